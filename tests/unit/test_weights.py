import hashlib
import json
import re

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from rbs import __version__, weights
from rbs.errors import CheckpointError, OutputError
from rbs.restorers.dncnn import DnCNN
from rbs.restorers.unet import UNet
from rbs.weights import load_restorer, save_restorer

SCAN, HALF = torch.rand(1, 2, 9, 7), torch.tensor([0.5])


@pytest.fixture
def restorer():
    torch.manual_seed(0)
    net = DnCNN(depth=3, width=4, sigma_px=0.7)
    torch.nn.init.normal_(net.head.weight)
    return net


def test_round_trip_gives_the_same_restorer_and_its_making(tmp_path, restorer):
    file = tmp_path / "new" / "f1.safetensors"
    save_restorer(file, restorer, {"steps": 12, "manifest": "cohort"})
    loaded = load_restorer(file)
    assert torch.equal(loaded.restorer(SCAN, HALF), restorer(SCAN, HALF))
    assert not loaded.restorer.training
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (loaded.version, loaded.name) == (__version__, "DnCNN f1.safetensors")
    assert loaded.provenance == {"steps": 12, "manifest": "cohort"}


def test_rows_that_were_not_scanned_stay_empty(tmp_path, restorer):
    """A restorer smooths over the edge of a partial scan; nobody was there."""
    file = tmp_path / "f1.safetensors"
    save_restorer(file, restorer, {})
    counts = np.zeros((2, 24, 16), np.uint16)
    counts[:, 5:20] = np.random.default_rng(0).poisson(3.0, (2, 15, 16))
    counts[:, 10] = 0  # an empty row between others was scanned
    loaded = load_restorer(file)
    with torch.inference_mode():
        everywhere = loaded.restorer(torch.from_numpy(counts / np.float32(0.5))[None], HALF)[0].numpy()
    restored = loaded.restore(counts, 0.5)
    assert everywhere[:, :5].any()
    assert not restored[:, :5].any()
    assert not restored[:, 20:].any()
    np.testing.assert_array_equal(restored[:, 5:20], everywhere[:, 5:20])
    assert not loaded.restore(np.zeros_like(counts), 0.5).any()


def test_the_same_weights_make_the_same_file(tmp_path, restorer):
    for name in ("a", "b"):
        save_restorer(tmp_path / f"{name}.safetensors", restorer, {"steps": 1})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_lightning_checkpoint_gives_its_first_restorer(tmp_path, restorer):
    file = tmp_path / "last.ckpt"
    state = {f"cascade.f1.{n}": t for n, t in restorer.state_dict().items()} | {"cascade.f2.x": torch.ones(1)}
    old = {n: torch.zeros_like(t) for n, t in state.items()}
    torch.save(
        {
            "state_dict": state,
            "current_model_state": old,
            "hyper_parameters": {"teacher": "a folder"},
            "rbs": {**restorer.spec(), "version": "0.1.0", "provenance": {"steps": 3}},
        },
        file,
    )
    loaded = load_restorer(file)
    assert torch.equal(loaded.restorer(SCAN, HALF), restorer(SCAN, HALF))
    assert loaded.provenance == {"steps": 3}


def test_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="no such weight file; check the path"):
        load_restorer(tmp_path / "none.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("content", [b"", b"hello, I am not a checkpoint", b"\x80\x02]q\x00."])
def test_not_a_checkpoint(tmp_path, suffix, content):
    file = tmp_path / f"f1{suffix}"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(str(file))):
        load_restorer(file)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_truncated_file(tmp_path, restorer, suffix):
    file = tmp_path / f"f1{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": restorer.state_dict(), "rbs": restorer.spec()}, file)
    else:
        save_restorer(file, restorer, {})
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated or not a"):
        load_restorer(file)


def test_another_architecture_names_the_tensors(tmp_path, restorer):
    file = tmp_path / "f1.safetensors"
    weights.save_modules(file, {"": restorer}, UNet(channels=[4, 8]).spec())
    with pytest.raises(
        CheckpointError, match=r"another architecture than UNet: 16 missing \(backbone.Conv1.*unexpected"
    ):
        load_restorer(file)


def test_another_width_names_the_tensors(tmp_path, restorer):
    file = tmp_path / "f1.safetensors"
    weights.save_modules(file, {"": restorer}, DnCNN(depth=3, width=5).spec())
    with pytest.raises(CheckpointError, match=r"misshapen \(backbone.conv_list"):
        load_restorer(file)


@pytest.mark.parametrize("path", ["os.system", "subprocess.Popen", "no.such.Net", "nodots", ""])
def test_a_class_that_is_no_restorer_is_never_called(tmp_path, restorer, path):
    file = tmp_path / "f1.safetensors"
    weights.save_modules(file, {"": restorer}, {"class_path": path, "init_args": {"command": "false"}})
    with pytest.raises(CheckpointError, match=r"is not a restorer|cannot be imported|no first restorer"):
        load_restorer(file)


def test_constructor_arguments_it_does_not_know(tmp_path, restorer):
    file = tmp_path / "f1.safetensors"
    weights.save_modules(file, {"": restorer}, {**restorer.spec(), "init_args": {"wings": 2}})
    with pytest.raises(CheckpointError, match=rf"wings.*rbs {re.escape(__version__)}"):
        load_restorer(file)


def test_safetensors_of_someone_else(tmp_path):
    file = tmp_path / "other.safetensors"
    save_file({"a": torch.ones(1)}, file)
    with pytest.raises(CheckpointError, match="does not say which restorer"):
        load_restorer(file)


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    file = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "rbs": {}, "bomb": Bomb()}, file)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_restorer(file)
    assert not (tmp_path / "exploded").exists()


def test_the_shipped_file_must_match_its_hash(tmp_path, restorer, monkeypatch):
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "f1.safetensors")
    with pytest.raises(CheckpointError, match="--checkpoint"):
        load_restorer()
    save_restorer(tmp_path / "f1.safetensors", restorer, {})
    digest = hashlib.sha256((tmp_path / "f1.safetensors").read_bytes()).hexdigest()
    (tmp_path / "f1.json").write_text(json.dumps({"sha256": digest}))
    assert load_restorer().sha256 == digest
    (tmp_path / "f1.json").write_text(json.dumps({"sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match="install rbs again"):
        load_restorer()


def test_the_file_of_the_second_restorer_is_no_restorer(tmp_path, restorer):
    file = tmp_path / "cascade.safetensors"
    weights.save_modules(file, {"f2": restorer}, {"f2": restorer.spec()})
    with pytest.raises(CheckpointError, match="no first restorer"):
        load_restorer(file)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_file_that_may_not_be_read_is_named(tmp_path, restorer, suffix, monkeypatch):
    file = tmp_path / f"f1{suffix}"
    save_restorer(file, restorer, {})

    def denied(self):
        raise PermissionError(13, "Permission denied")

    for name in ("read_bytes", "is_file"):
        with monkeypatch.context() as patch:
            patch.setattr(type(file), name, denied)
            with pytest.raises(CheckpointError, match=r"f1.*cannot be read \(Permission denied\)"):
                load_restorer(file)


def test_a_description_that_is_none(tmp_path):
    file = tmp_path / "other.safetensors"
    for text in ("{", "[]"):
        save_file({"a": torch.ones(1)}, file, metadata={"rbs": text})
        with pytest.raises(CheckpointError, match="does not say which restorer"):
            load_restorer(file)


def test_the_shipped_file_needs_its_hash(tmp_path, restorer, monkeypatch):
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "f1.safetensors")
    save_restorer(tmp_path / "f1.safetensors", restorer, {})
    with pytest.raises(CheckpointError, match="install rbs again"):
        load_restorer()


def test_a_full_disk_is_said_and_leaves_the_older_file(tmp_path, restorer, monkeypatch):
    """safetensors quotes the system's error in one of its own, which is no OSError."""
    file = tmp_path / "f1.safetensors"
    save_restorer(file, restorer, {"steps": 1})

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(OutputError, match="the disk is full"):
        save_restorer(file, restorer, {"steps": 2})
    assert load_restorer(file).provenance == {"steps": 1}
