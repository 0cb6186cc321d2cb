"""`rbs segment --atlas`: one labelled scan and a folder of scans without labels."""

import json

import numpy as np
import pytest
from nm_files import poisson, write_nm

from rbs.cli.main import main
from rbs.clinic import atlas as clinic
from rbs.clinic.atlas import Student
from rbs.data.labels import labels_file
from rbs.errors import ScanError
from rbs.segmentation.checkpoint import save_segmenter
from rbs.segmentation.dynunet import DynUNet

BOTH = ("anterior", "posterior")


@pytest.fixture
def folder(tmp_path):
    """Two scans; the atlas and its labels beside the folder."""
    for number in range(2):
        write_nm(tmp_path / "in" / f"{number}.dcm", poisson(2, seed=number), views=BOTH)
    write_nm(tmp_path / "atlas.dcm", poisson(2, seed=9), views=BOTH, velocity=20.0)
    np.savez(labels_file(tmp_path / "atlas.dcm"), labels=np.ones((2, 64, 48), np.uint8))
    return tmp_path


def segment(folder, capsys, *options):
    status = main(["segment", str(folder / "in"), str(folder / "out"), *map(str, options)])
    return status, *capsys.readouterr()


def test_the_student_of_the_atlas_segments_the_folder(folder, capsys, monkeypatch):
    given = {}

    def student_of(atlas, labels, files, out, **options):
        given.update(options, labels=labels, files=[file.name for file in files], velocity=atlas.velocity)
        weights = folder / "student.safetensors"
        print("epoch 1")
        save_segmenter(weights, DynUNet(filters=(4, 4, 4, 4)), {})
        return Student(weights, 1, {files[1]: ScanError("it is too faint", file=files[1], remedy="leave it")})

    monkeypatch.setattr(clinic, "train_student", student_of)
    labelled = "--atlas", folder / "atlas.dcm", "--labels", labels_file(folder / "atlas.dcm")
    status, said, error = segment(folder, capsys, *labelled, "--standard-velocity", 15, "--json")
    assert status == 0, error
    assert json.loads(said)["segmented"] == 2
    assert "epoch 1" in error
    assert sorted(path.name for path in (folder / "out").glob("*.dcm")) == ["0_seg.dcm", "1_seg.dcm"]
    assert (given["files"], given["standard_velocity"], given["velocity"]) == (["0.dcm", "1.dcm"], 15.0, 20.0)
    assert given["labels"].all()
    assert "not trained on" in error
    assert "it is too faint" in error


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--atlas", "a.dcm"], "--atlas and --labels go together"),
        (["--labels", "a.npz"], "--atlas and --labels go together"),
        (["--atlas", "a.dcm", "--labels", "a.npz", "--segmenter", "s.onnx"], "--segmenter names one"),
    ],
)
def test_options_that_do_not_go_together(folder, capsys, options, fault):
    status, _, error = segment(folder, capsys, *options)
    assert status == 1
    assert fault in error


def test_outputs_are_looked_at_before_the_training(folder, capsys):
    (folder / "out").mkdir()
    (folder / "out" / "1_seg.dcm").write_text("mine")
    labelled = "--atlas", folder / "atlas.dcm", "--labels", labels_file(folder / "atlas.dcm")
    status, _, error = segment(folder, capsys, *labelled)
    assert status == 1
    assert "1_seg.dcm: the output exists already; add --skip-existing, or name another OUT." in error
    assert not (folder / "out" / "atlas").exists()


def test_a_single_scan_trains_nothing(folder, capsys):
    labelled = ["--atlas", folder / "atlas.dcm", "--labels", labels_file(folder / "atlas.dcm")]
    one = folder / "in" / "0.dcm"
    assert main(["segment", str(one), str(folder / "o.dcm"), *map(str, labelled)]) == 1
    assert "0.dcm: --atlas needs scans to train on; name a folder of them as IN." in capsys.readouterr().err
