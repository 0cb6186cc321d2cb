"""What is tracked, and what is not without being asked for."""

import getpass
import socket
import sys
from argparse import Namespace

import numpy as np
import pydicom
import pytest
import wandb
import wandb_file

from rbs.data.bone_scans import RBSDataModule
from rbs.data.endoscopy import EndoscopyDataModule
from rbs.data.mucosa import write_mucosa
from rbs.errors import RbsError
from rbs.tasks.tracking import ScanPictures, Table, agent_run, colour_picture, default_mode, picture, tracker


@pytest.fixture
def trainer(make_cohort, tmp_path):
    class Trainer:
        datamodule = RBSDataModule(make_cohort(tmp_path / "cohort", splits=("train", "val"), truth=False))

    return Trainer


def test_images_of_phantoms_may_be_logged(trainer):
    ScanPictures(of_patients=False).setup(trainer, None, "fit")


@pytest.mark.parametrize("kind", ["rapid", "standard"])
def test_images_of_patients_are_refused_unless_asked_for_twice(trainer, tmp_path, kind):
    file = tmp_path / "cohort" / "P0002" / f"{kind}.dcm"
    header = pydicom.dcmread(file)
    del header.SyntheticData
    header.save_as(file)
    with pytest.raises(RbsError, match="a scan of a patient") as refused:
        ScanPictures(of_patients=False).setup(trainer, None, "fit")
    assert refused.value.file == file
    ScanPictures(of_patients=True).setup(trainer, None, "fit")


def test_a_picture_shows_every_view_of_every_scan_in_one_window():
    rapid, restored, standard = (np.full((2, 6, 5), value) for value in (0.0, 2.0, 9.0))
    grey = picture([rapid, restored, standard])
    assert grey.dtype == np.uint8
    assert grey.shape == (6, 6 * 9)
    assert [grey[0, 9 * k] for k in range(6)] == [255, 255, 0, 0, 0, 0]
    assert set(grey[:, 5:9].ravel()) == {255}


def test_offline_unless_an_agent_of_a_server_started_it(monkeypatch):
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    assert (default_mode(), agent_run()) == ("offline", None)
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    assert (default_mode(), agent_run()) == ("offline", None)
    monkeypatch.setenv("WANDB_SWEEP_ID", "xyz")
    assert (default_mode(), agent_run()) == ("online", "abc")


def test_only_drawn_frames_are_logged_unless_asked_for_twice(tmp_path):
    manifest = write_mucosa(tmp_path / "mucosa", 3, 1, 64, seed=0, progress=False)

    class Trainer:
        datamodule = EndoscopyDataModule(manifest, crop=(32, 32))

    ScanPictures(of_patients=False).setup(Trainer, None, "fit")
    other = tmp_path / "mucosa" / "other.csv"
    other.write_text(manifest.read_text().replace("synthetic", "a hospital"))
    Trainer.datamodule = EndoscopyDataModule(other, crop=(32, 32))
    with pytest.raises(RbsError, match=r"\.png: --log_images would record a frame of a patient \(its source"):
        ScanPictures(of_patients=False).setup(Trainer, None, "fit")
    ScanPictures(of_patients=True).setup(Trainer, None, "fit")


def test_frames_are_shown_side_by_side_in_their_colours():
    panels = [np.full((3, 6, 5), value) for value in (0.0, 0.5, 2.0)]
    panels[1][0] = 1.0
    shown = colour_picture(panels)
    assert shown.dtype == np.uint8
    assert shown.shape == (6, 3 * 9, 3)
    assert [shown[0, 9 * k].tolist() for k in range(3)] == [[0, 0, 0], [255, 128, 128], [255, 255, 255]]
    assert set(shown[:, 5:9].ravel()) == {255}


def test_wandb_has_nothing_to_warn_of(tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr("wandb.termwarn", lambda message, **kw: warned.append(message))
    logger = tracker(name="run", folder=str(tmp_path), mode="offline", tags=[], config={})
    logger.experiment.finish()
    assert warned == []


def test_neither_places_nor_the_machine_are_tracked(tmp_path):
    place = tmp_path / "alice"
    logger = tracker(
        name="run",
        folder=str(place),
        mode="offline",
        tags=[],
        config={"data": {"manifest": str(place / "manifest.csv")}, "output": "runs/mine"},
    )
    logger.log_hyperparams({"init_from": place / "restorer.safetensors"})
    logger.experiment.finish()
    wandb.teardown()  # only then all is written
    found = wandb_file.records(next(place.rglob("*.wandb")))
    config = wandb_file.config(found)
    assert config["data"] == {"manifest": "manifest.csv"}
    assert (config["init_from"], config["output"]) == ("restorer.safetensors", "runs/mine")
    said = " ".join(map(str, found))
    for secret in (str(tmp_path), socket.gethostname(), getpass.getuser(), sys.executable):
        assert f'"{secret}' not in said
    assert "alice" not in said


def test_hyper_parameters_are_noted_without_places(tmp_path):
    table = Table(tmp_path, name="run")
    table.log_hyperparams(Namespace(manifest=tmp_path / "manifest.csv", lr=0.1))
    table.save()
    noted = (tmp_path / "run" / "version_0" / "hparams.yaml").read_text()
    assert noted == "lr: 0.1\nmanifest: manifest.csv\n"
