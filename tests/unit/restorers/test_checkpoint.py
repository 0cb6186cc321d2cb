import hashlib
import json
import re
import sys

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from rbs import __version__
from rbs.errors import CheckpointError, OutputError
from rbs.restorers import checkpoint
from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.restorers.dncnn import DnCNN
from rbs.restorers.unet import UNet
from rbs.utils.allowlist import VARIABLE, allow
from rbs.utils.checkpoint import save_modules
from rbs.weights import shipped

SCAN, HALF = torch.rand(1, 2, 9, 7), torch.tensor([0.5])


@pytest.fixture
def restorer():
    torch.manual_seed(0)
    net = DnCNN(depth=3, width=4, sigma_px=0.7)
    torch.nn.init.normal_(net.head.weight)
    return net


def test_round_trip_gives_the_same_restorer_and_its_making(tmp_path, restorer):
    file = tmp_path / "new" / "restorer.safetensors"
    save_restorer(file, restorer, {"steps": 12, "manifest": "cohort"})
    loaded = load_restorer(file)
    assert torch.equal(loaded.restorer(SCAN, HALF), restorer(SCAN, HALF))
    assert not loaded.restorer.training
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (loaded.version, loaded.name) == (__version__, "DnCNN restorer.safetensors")
    assert loaded.provenance == {"steps": 12, "manifest": "cohort"}


def test_rows_that_were_not_scanned_stay_empty(tmp_path, restorer):
    """A restorer smooths over the edge of a partial scan; nobody was there."""
    file = tmp_path / "restorer.safetensors"
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
    file = tmp_path / "restorer.safetensors"
    save_modules(file, {"": restorer}, UNet(channels=[4, 8]).spec())
    with pytest.raises(
        CheckpointError, match=r"another architecture than UNet: 16 missing \(backbone.Conv1.*unexpected"
    ):
        load_restorer(file)


def test_another_width_names_the_tensors(tmp_path, restorer):
    file = tmp_path / "restorer.safetensors"
    save_modules(file, {"": restorer}, DnCNN(depth=3, width=5).spec())
    with pytest.raises(CheckpointError, match=r"misshapen \(backbone.conv_list"):
        load_restorer(file)


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("os.system", r"'os\.system' is not of rbs.*--allow os\."),
        ("subprocess.Popen", r"'subprocess\.Popen' is not of rbs.*--allow subprocess\."),
        ("nodots", "'nodots' is not of rbs"),
        ("rbs.restorers.base.torch", "'rbs.restorers.base.torch' is no Restorer"),
        ("rbs.restorers.uncertainty.UncertaintyHead", "is no Restorer; name a"),
        ("rbs.cli.__main__.main", "'rbs.cli.__main__.main' is no Restorer of rbs"),
        ("", "no first restorer"),
    ],
)
def test_a_class_that_is_no_restorer_is_never_called(tmp_path, restorer, path, fault):
    file = tmp_path / "restorer.safetensors"
    save_modules(file, {"": restorer}, {"class_path": path, "init_args": {"command": "false"}})
    with pytest.raises(CheckpointError, match=fault):
        load_restorer(file)


MINE = """
from pathlib import Path
from rbs.restorers.dncnn import DnCNN

Path(__file__).with_suffix(".imported").touch()


class Net(DnCNN):
    pass
"""


@pytest.fixture
def mine(tmp_path, restorer, monkeypatch):
    """A weight file of a class outside rbs, whose module leaves a mark when it is imported."""
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine.nets", raising=False)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    (tmp_path / "mine" / "nets.py").write_text(MINE)
    file, spec = tmp_path / "restorer.safetensors", restorer.spec()
    save_modules(file, {"": restorer}, {**spec, "class_path": "mine.nets.Net"})
    return file


def test_a_foreign_class_is_not_imported_unless_it_is_allowed(tmp_path, mine, restorer):
    mark = tmp_path / "mine" / "nets.imported"
    for other in ("minerals", "mine.net", "mine.nets.Net"):
        allow(other)
    with pytest.raises(CheckpointError, match=r"'mine\.nets\.Net' is not of rbs.*--allow mine\."):
        load_restorer(mine)
    assert not mark.exists()
    allow("mine")
    loaded = load_restorer(mine)
    assert mark.exists()
    assert type(loaded.restorer).__module__ == "mine.nets"
    assert torch.equal(loaded.restorer(SCAN, HALF), restorer(SCAN, HALF))


def test_an_allowed_package_that_is_not_installed(tmp_path, restorer, monkeypatch):
    monkeypatch.setenv(VARIABLE, "no")
    file = tmp_path / "restorer.safetensors"
    save_modules(file, {"": restorer}, {"class_path": "no.such.Net"})
    with pytest.raises(CheckpointError, match=r"'no\.such\.Net' cannot be imported.*install the package"):
        load_restorer(file)


@pytest.mark.parametrize("path", ["rbs.models.nafnet.NAFNet", "rbs.restorers.resnet.ResNet"])
def test_a_class_of_an_older_version_names_the_version(tmp_path, restorer, path):
    file, state = tmp_path / "restorer.safetensors", restorer.state_dict()
    description = {"class_path": path, "init_args": {}, "version": "0.1.0"}
    save_file(state, file, metadata={"rbs": json.dumps(description)})
    with pytest.raises(
        CheckpointError, match=rf"'{path}' .*; it was written by rbs 0\.1\.0: use that version"
    ):
        load_restorer(file)


def test_constructor_arguments_it_does_not_know(tmp_path, restorer):
    file = tmp_path / "restorer.safetensors"
    save_modules(file, {"": restorer}, {**restorer.spec(), "init_args": {"wings": 2}})
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
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "restorer.safetensors")
    with pytest.raises(CheckpointError, match="--checkpoint"):
        load_restorer()
    save_restorer(tmp_path / "restorer.safetensors", restorer, {})
    digest = hashlib.sha256((tmp_path / "restorer.safetensors").read_bytes()).hexdigest()
    (tmp_path / "restorer.json").write_text(json.dumps({"sha256": digest}))
    assert load_restorer().sha256 == digest
    (tmp_path / "restorer.json").write_text(json.dumps({"sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match="install rbs again"):
        load_restorer()


def test_the_file_of_the_second_restorer_is_no_restorer(tmp_path, restorer):
    file = tmp_path / "cascade.safetensors"
    save_modules(file, {"f2": restorer}, {"f2": restorer.spec()})
    with pytest.raises(CheckpointError, match="no first restorer"):
        load_restorer(file)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_file_that_may_not_be_read_is_named(tmp_path, restorer, suffix, monkeypatch):
    file = tmp_path / f"f1{suffix}"
    save_restorer(file, restorer, {})

    def denied(self, *_):
        raise PermissionError(13, "Permission denied")

    for name in ("open", "is_file"):
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
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "restorer.safetensors")
    save_restorer(tmp_path / "restorer.safetensors", restorer, {})
    with pytest.raises(CheckpointError, match="install rbs again"):
        load_restorer()


def test_a_full_disk_is_said_and_leaves_the_older_file(tmp_path, restorer, monkeypatch):
    """safetensors quotes the system's error in one of its own, which is no OSError."""
    file = tmp_path / "restorer.safetensors"
    save_restorer(file, restorer, {"steps": 1})

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("rbs.utils.checkpoint.save_file", full)
    with pytest.raises(OutputError, match="the disk is full"):
        save_restorer(file, restorer, {"steps": 2})
    assert load_restorer(file).provenance == {"steps": 1}


# --- frames

FRAME = np.random.default_rng(0).random((3, 20, 31), dtype=np.float32)


def of_frames(tmp_path, weight=0.05):
    torch.manual_seed(0)
    net = DnCNN(depth=3, width=4, domain="colours")
    torch.nn.init.normal_(net.head.weight, std=weight)
    save_restorer(tmp_path / "restorer.safetensors", net, {"preset": "mixed"})
    return load_restorer(tmp_path / "restorer.safetensors")


def test_a_frame_is_restored_within_0_and_1(tmp_path):
    loaded = of_frames(tmp_path)
    restored = loaded.restore_frame(FRAME)
    assert restored.shape == FRAME.shape
    assert restored.dtype == np.float32
    assert 0 <= restored.min() < restored.max() <= 1
    with torch.no_grad():
        at_once = loaded.restorer(torch.from_numpy(FRAME)[None], torch.ones(1))[0].numpy()
    np.testing.assert_array_equal(restored, at_once)
    assert np.abs(restored - FRAME).max() > 0.01


@pytest.mark.parametrize("shape", [(3, 130, 170), (3, 130, 30), (3, 30, 130)])
def test_tiles_of_a_large_frame_join_without_a_seam(tmp_path, monkeypatch, shape):
    """Three convolutions see a few pixels: but for a tile's rim, where weights fade, all is as at once."""
    loaded, frame = of_frames(tmp_path), np.random.default_rng(1).random(shape, dtype=np.float32)
    whole = loaded.restore_frame(frame)
    monkeypatch.setattr(checkpoint, "FRAME_TILE", 96)
    seen = []
    hook = loaded.restorer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-2:]))
    tiled = loaded.restore_frame(frame)
    hook.remove()
    assert len(seen) > 1
    assert max(max(size) for size in seen) <= 96
    assert np.abs(tiled - whole).mean() < 0.01 * np.abs(whole - frame).mean()
    assert np.abs(tiled - whole).max() < 0.15 * np.abs(whole - frame).max()  # with MONAI's own weights, all


def test_a_restorer_of_scans_refuses_frames_and_the_other_way_round(tmp_path, restorer):
    save_restorer(tmp_path / "scans.safetensors", restorer, {})
    with pytest.raises(
        CheckpointError, match=r"DnCNN scans.safetensors restores scans, not frames; .* trained on frames"
    ):
        load_restorer(tmp_path / "scans.safetensors").restore_frame(FRAME)
    with pytest.raises(CheckpointError, match=r"restores frames, not scans; .* trained on scans"):
        of_frames(tmp_path).restore(np.ones((2, 8, 8), np.uint16), 0.5)


def test_weights_from_before_there_were_frames_are_of_scans(tmp_path, restorer):
    spec = restorer.spec()
    del spec["init_args"]["domain"]
    save_modules(tmp_path / "restorer.safetensors", {"": restorer}, spec)
    loaded = load_restorer(tmp_path / "restorer.safetensors")
    assert loaded.restorer.domain == "roots"
    assert torch.equal(loaded.restorer(SCAN, HALF), restorer(SCAN, HALF))
