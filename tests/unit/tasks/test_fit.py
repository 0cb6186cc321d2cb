"""Training: honest checkpoints, experiments by name, and several processes that begin alike."""

import socket
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch.distributed

from rbs.errors import CheckpointError, RbsError
from rbs.tasks.callbacks import SameStart
from rbs.tasks.fit import FINISHED, _newest_unfinished, _one_of_several, compare_with_checkpoint, fit, with_files


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


def test_last_is_the_newest_unless_it_has_finished(tmp_path):
    assert _newest_unfinished(tmp_path) is None
    for version in (2, 10):
        folder = tmp_path / f"version_{version}" / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "last.ckpt").touch()
    assert _newest_unfinished(tmp_path) == str(tmp_path / "version_10" / "checkpoints" / "last.ckpt")
    # Interrupted before its first checkpoint, or no training at all.
    (tmp_path / "version_11").mkdir()
    assert _newest_unfinished(tmp_path) == str(tmp_path / "version_10" / "checkpoints" / "last.ckpt")
    # Version 10 went on with what version 2 began, and finished: nothing is left to resume.
    (tmp_path / "version_10" / FINISHED).touch()
    assert _newest_unfinished(tmp_path) is None
