"""Training: honest checkpoints, experiments by name, and several processes that begin alike."""

import hashlib
import os
import socket
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.distributed
import yaml
from lightning.pytorch import Trainer

from rbs.errors import CheckpointError, RbsError
from rbs.restorers.checkpoint import load_restorer
from rbs.tasks.callbacks import SameStart
from rbs.tasks.fit import (
    FINISHED,
    _newest_unfinished,
    _one_of_several,
    compare_with_checkpoint,
    fit,
    imitates_bfloat16,
    with_files,
)

TWO_STEPS = {
    "wandb": "disabled",
    "trainer": {"max_steps": 2, "limit_val_batches": 1, "accelerator": "cpu", "precision": "32-true"},
    "trainer.enable_progress_bar": False,
    "trainer.val_check_interval": None,
    "trainer.check_val_every_n_epoch": 1,
    "data": {"crop": [64, 64], "batch_size": 1, "samples_per_epoch": 2},
    "model.init_args.f1.init_args": {"width": 4, "enc_blocks": [1], "middle_blocks": 1, "dec_blocks": [1]},
}


def test_a_training_from_python_gives_its_folder(tiny_cohort, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = fit("stage1", **TWO_STEPS, **{"data.manifest": tiny_cohort})
    assert folder.resolve() == tmp_path / "runs" / "stage1"
    assert (folder / "restorer.safetensors").is_file()
    settings = yaml.safe_load((folder / "version_0" / "config.yaml").read_text())
    assert settings["data"]["init_args"]["manifest"] == str(tiny_cohort)
    # What may be handed on says what it was made of, and not where that lies.
    provenance = load_restorer(folder / "restorer.safetensors").provenance
    digest = hashlib.sha256(tiny_cohort.read_bytes()).hexdigest()
    assert (provenance["manifest"], provenance["manifest_sha256"]) == ("manifest.csv", digest)
    for made in ("restorer.safetensors", "version_0/checkpoints/last.ckpt", "version_0/hparams.yaml"):
        for place in (tmp_path, tiny_cohort.parent):
            assert str(place).encode() not in (folder / made).read_bytes()
    # The content of a file does as well, and a setting still replaces what it says.
    del settings["model"]["init_args"]["output"]
    again = fit(
        settings | {"name": "again"}, trainer={"default_root_dir": tmp_path / "other", "max_steps": 1}
    )
    assert (again, settings["trainer"]["max_steps"]) == (tmp_path / "other" / "again", 2)
    assert (again / "restorer.safetensors").is_file()
    changed = yaml.safe_load((again / "version_0" / "config.yaml").read_text())
    assert changed["trainer"]["max_steps"] == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"traner": 1}, "--traner=1"), ({"trainer": {"max_steps": "many"}}, 'trainer.max_steps": .*many')],
)
def test_a_wrong_setting_is_an_error_and_no_exit(settings, said):
    with pytest.raises(RbsError, match=said):
        fit("stage1", **settings)


@pytest.mark.parametrize(
    ("processor", "precision", "slow"),
    [("AVX2", "bf16-mixed", True), ("AVX512", "bf16-mixed", False), ("AVX2", "32-true", False)],
)
def test_bfloat16_that_the_processor_imitates_is_known(monkeypatch, processor, precision, slow):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: processor)
    trainer = Trainer(accelerator="cpu", precision=precision, logger=False, enable_checkpointing=False)
    assert imitates_bfloat16(trainer) is slow


def test_config_names_an_experiment_and_nothing_else_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [
        "fit",
        "--config",
        "stage1",
        "--config=overlays/cpu",
        "--config",
        "{name: a}",
        "--name",
        "stage1",
    ]
    found = with_files(given)
    assert [Path(found[2]).name, Path(found[3]).name] == ["stage1.yaml", "cpu.yaml"]
    assert all(Path(value.removeprefix("--config=")).is_file() for value in found[2:4])
    assert found[4:] == given[4:]
    with pytest.raises(RbsError, match="none of the experiments"):
        with_files(["fit", "-c", "stage9"])


def test_processes_that_see_other_files_are_refused(monkeypatch):
    def gather(starts, own):
        assert own == "runs/a/version_0/checkpoints/last.ckpt"
        starts[:] = [own, None]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    start = SameStart("runs/a/version_0/checkpoints/last.ckpt")
    start.setup(SimpleNamespace(world_size=1), None, "fit")
    with pytest.raises(
        CheckpointError, match=r"rank 0 goes on from runs/a/.*, rank 1 from nothing; let"
    ) as no:
        start.setup(SimpleNamespace(world_size=2), None, "fit")
    assert "on a disk that all machines see" in no.value.remedy


def test_a_process_that_cannot_be_reached_is_named_and_no_other_error_is():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        pytest.raises(RbsError, match=r"cannot be reached .*waiting for clients.*--ckpt_path last"),
        _one_of_several(),
    ):
        torch.distributed.TCPStore("127.0.0.1", port, 2, is_master=True, timeout=timedelta(seconds=1))
    with pytest.raises(RuntimeError, match="out of memory"), _one_of_several():
        raise RuntimeError("out of memory")


def test_a_lost_connection_is_told_without_the_source_of_gloo():
    error = (
        "[/b/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error [10.0.0.2]:9: Connection reset. GLHF"
    )
    with pytest.raises(RbsError) as lost, _one_of_several():
        raise RuntimeError(error)
    assert "(Read error [10.0.0.2]:9: Connection reset); see what" in str(lost.value)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    hyper_parameters = {
        "_class_path": "a.Task",
        "_instantiator": "x",
        "spi": True,
        "f1": {"class_path": "b.Net"},
    }
    torch.save({"hyper_parameters": hyper_parameters, "state_dict": {}}, path)
    return path


def asked(**changes):
    init_args = {"spi": True, "f1": {"class_path": "b.Net", "init_args": {}}, **changes}
    return {"class_path": "a.Task", "init_args": init_args}


def test_matching_checkpoint_passes(checkpoint):
    compare_with_checkpoint(checkpoint, asked())


def test_checkpoint_that_differs_names_both_values(checkpoint):
    with pytest.raises(CheckpointError, match="spi: trained with True, asked for False"):
        compare_with_checkpoint(checkpoint, asked(spi=False))
    with pytest.raises(CheckpointError, match=r"f1\.class_path: trained with b\.Net, asked for b\.Other"):
        compare_with_checkpoint(checkpoint, asked(f1={"class_path": "b.Other"}))


def test_missing_and_broken_checkpoints_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        compare_with_checkpoint(tmp_path / "none.ckpt", asked())
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"PK not really")
    with pytest.raises(CheckpointError, match=r"broken\.ckpt"):
        compare_with_checkpoint(broken, asked())


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def test_code_in_a_checkpoint_to_be_resumed_is_not_run(tmp_path):
    torch.save({"hyper_parameters": {}, "callbacks": Bomb(tmp_path / "exploded")}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="it is truncated or not a checkpoint"):
        compare_with_checkpoint(tmp_path / "last.ckpt", asked())
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("stored", ["text", [1], {"a": [[[[]]] * 300] * 300}, {"a": {1, 2}}])
def test_hyper_parameters_of_other_types_are_refused(tmp_path, stored):
    torch.save({"hyper_parameters": stored}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last\.ckpt: its hyper-parameters are damaged"):
        compare_with_checkpoint(tmp_path / "last.ckpt", asked())


def test_last_is_the_newest_unless_it_has_finished(tmp_path):
    assert _newest_unfinished(tmp_path) is None
    for version in (2, 10):
        folder = tmp_path / f"version_{version}" / "checkpoints"
        folder.mkdir(parents=True)
        torch.save({}, folder / "last.ckpt")
    assert _newest_unfinished(tmp_path) == str(tmp_path / "version_10" / "checkpoints" / "last.ckpt")
    # Interrupted before its first checkpoint, or no training at all.
    (tmp_path / "version_11").mkdir()
    assert _newest_unfinished(tmp_path) == str(tmp_path / "version_10" / "checkpoints" / "last.ckpt")
    # Version 10 went on with what version 2 began, and finished: nothing is left to resume.
    (tmp_path / "version_10" / FINISHED).touch()
    assert _newest_unfinished(tmp_path) is None


def test_a_truncated_checkpoint_is_named_and_the_newest_readable_one_resumed(tmp_path, capsys):
    for version, names in ((0, ["last.ckpt"]), (1, ["epoch=2.ckpt", "epoch=4.ckpt", "last.ckpt"])):
        folder = tmp_path / f"version_{version}" / "checkpoints"
        folder.mkdir(parents=True)
        for number, name in enumerate(names):
            torch.save({"state_dict": {"w": torch.zeros(1000)}}, folder / name)
            os.utime(folder / name, (10 * version + number,) * 2)
    assert _newest_unfinished(tmp_path) == str(folder / "last.ckpt")
    assert capsys.readouterr().out == ""
    for name, older in (
        ("last.ckpt", folder / "epoch=4.ckpt"),
        ("epoch=4.ckpt", folder / "epoch=2.ckpt"),
        ("epoch=2.ckpt", tmp_path / "version_0" / "checkpoints" / "last.ckpt"),
    ):
        times = (folder / name).stat()
        os.truncate(folder / name, 2000)
        os.utime(folder / name, (times.st_atime, times.st_mtime))
        assert _newest_unfinished(tmp_path) == str(older)
        said = f"rbs: {folder / name} is truncated or damaged, so an older checkpoint is looked for\n"
        assert said in capsys.readouterr().out
    older.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last\.ckpt: neither it nor an older .* to start afresh"):
        _newest_unfinished(tmp_path)
    (tmp_path / "version_1" / FINISHED).touch()  # nothing is left to resume
    assert _newest_unfinished(tmp_path) is None
