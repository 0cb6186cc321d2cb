"""Several processes of one training: they begin alike, and say so when one is gone."""

import socket
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch.distributed

from rbs.cli.training import _one_of_several
from rbs.errors import CheckpointError, RbsError
from rbs.tasks.callbacks import SameStart


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
