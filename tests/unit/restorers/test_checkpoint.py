import hashlib
import json
import re
import resource
import sys
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from rbs import __version__
from rbs.distillation.cascade import load_cascade
from rbs.errors import CheckpointError, OutputError
from rbs.restorers import checkpoint
from rbs.restorers.checkpoint import LoadedRestorer, load_restorer, save_restorer
from rbs.restorers.dncnn import DnCNN
from rbs.restorers.uncertainty import load_uncertainty
from rbs.restorers.unet import UNet
from rbs.tasks.fit import compare_with_checkpoint
from rbs.utils.allowlist import VARIABLE, allow
from rbs.utils.checkpoint import digest_of, save_modules
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


# --- files from elsewhere


def planted(tmp_path, restorer, description, **tensors):
    """A file with another description or other tensors, and a digest that belongs to them."""
    state = {name: tensors.get(name.replace(".", "_"), t) for name, t in restorer.state_dict().items()}
    described = {**restorer.spec(), "version": "0.2.0", **description}
    with suppress(RecursionError):
        described["digest"] = digest_of(state, described)
    file = tmp_path / "restorer.safetensors"
    save_file(state, file, metadata={"rbs": json.dumps(described)})
    return file


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("description", "fault"),
    [
        ({"provenance": "a text"}, "its provenance is 'a text'"),
        ({"provenance": {"spacing_mm": ["a", "b"]}}, "its spacing_mm is"),
        ({"provenance": {"exposure": [0.75, 0.25]}}, r"its exposure is \[0.75, 0.25\], no range"),
        ({"provenance": {"steps": "many"}}, "its steps is 'many'"),
        ({"provenance": {"x": [[1] * 300] * 300}}, "too many values"),
        ({"version": ["0.2.0"]}, "its version is"),
        ({"version": "\x1b]0;hello\x07"}, "its version is"),
        ({"class_path": ["rbs.restorers.dncnn.DnCNN"]}, "its class_path is"),
        ({"class_path": "rbs.restorers.dncnn.DnCNN\x00"}, "its class .* is no Restorer"),
        ({"class_path": "rbs.restorers..dncnn.DnCNN"}, "its class .* is no Restorer"),
        ({"init_args": [3, 4]}, "its init_args is"),
        ({"init_args": {"depth": 3, "width": -4}}, "cannot be built from its arguments"),
        ({"init_args": {"depth": 3, "width": "4"}}, "its width is '4'"),
        ({"init_args": {"depth": 3, "width": 4.5}}, "its width is 4.5"),
        ({"init_args": {"depth": 3, "width": 0}}, "0 feature channels.* are out of range"),
        ({"init_args": {"depth": 3, "width": 4, "sigma_px": 1e9}}, "are out of range"),
        ({"init_args": {"depth": 3, "width": 4, "domain": "hearts"}}, "its domain is 'hearts'"),
        ({"init_args": {"depth": 3, "pretrained": "https://example.org/x.pth"}}, "pretrained"),
        ({"init_args": {"depth": 3, "width": {"class_path": "os.system"}}}, "its width is"),
        ({"init_args": {"depth": 3, "width": 10**6}}, "far larger network"),
        ({"init_args": {"depth": 10**9, "width": 4}}, "far larger network"),
        ({"wings": 2}, "'wings', which is unknown here"),
    ],
)
def test_a_description_out_of_bounds_is_refused(tmp_path, restorer, description, fault):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = planted(tmp_path, restorer, description)
    with pytest.raises(CheckpointError, match=fault) as caught:
        load_restorer(file)
    assert caught.value.file == file
    assert caught.value.remedy
    assert str(caught.value).isprintable()
    assert len(caught.value.fault) < 300
    if sys.platform == "linux":  # counts in kB
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_brackets_without_end_in_the_metadata(tmp_path, restorer):
    file = tmp_path / "restorer.safetensors"
    save_file(restorer.state_dict(), file, metadata={"rbs": DEEP})
    with pytest.raises(CheckpointError, match="nested too deeply"):
        load_restorer(file)


@pytest.mark.parametrize("levels", [12, 40])
def test_many_levels_do_not_pad_a_scan_to_any_size(tmp_path, levels):
    small = UNet(channels=[4, 8])
    file = planted(tmp_path, small, {"init_args": {"channels": [1] * levels}})
    with pytest.raises(CheckpointError, match=r"multiples of .* are out of range"):
        load_restorer(file)


def test_a_flipped_bit_is_noticed_wherever_it_lies(tmp_path, restorer):
    file = tmp_path / "restorer.safetensors"
    save_restorer(file, restorer, {"exposure": [0.25, 0.75]})
    intact, rng = file.read_bytes(), np.random.default_rng(0)
    wanted = load_restorer(file).restorer.state_dict()
    for place in rng.integers(len(intact), size=300):
        bit = 1 << int(rng.integers(8))
        file.write_bytes(intact[:place] + bytes([intact[place] ^ bit]) + intact[place + 1 :])
        with suppress(CheckpointError):
            found = load_restorer(file).restorer.state_dict()
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_files_of_before_there_were_digests_are_read(tmp_path, restorer):
    file = tmp_path / "restorer.safetensors"
    description = {**restorer.spec(), "version": "0.2.0", "provenance": {}}
    save_file(restorer.state_dict(), file, metadata={"rbs": json.dumps(description)})
    assert torch.equal(load_restorer(file).restorer(SCAN, HALF), restorer(SCAN, HALF))


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.float64, torch.uint8, torch.bool])
def test_weights_of_other_types_are_not_cast_in_silence(tmp_path, restorer, dtype):
    file = planted(tmp_path, restorer, {}, head_weight=restorer.head.weight.detach().to(dtype))
    with pytest.raises(CheckpointError, match=r"'head.weight' are \w+, not float32, float16 or bfloat16"):
        load_restorer(file)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_read(tmp_path, restorer, dtype):
    file = planted(tmp_path, restorer, {}, head_weight=restorer.head.weight.detach().to(dtype))
    assert load_restorer(file).restorer.head.weight.dtype == torch.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, restorer, value):
    file = planted(tmp_path, restorer, {}, head_bias=torch.tensor([1.0, value]))
    with pytest.raises(CheckpointError, match=r"weights are not finite: 1 damaged \(head.bias\)"):
        load_restorer(file)


def header(file, change):
    """Write another header in front of the same data."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    text = change(data[8 : 8 + size])
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b'"shape":[2,4,3,3]', b'"shape":[1000000,1000000]'),
        lambda text: text + b" " * 2**25,
        lambda text: text[:-1] + b',"x":' + DEEP.encode(),
        lambda text: text.replace(b'"F32"', b'"F99"'),
        lambda text: text.replace(b"data_offsets", b"data_offsetz"),
    ],
)
def test_headers_that_claim_what_is_not_there(tmp_path, restorer, change):
    file = tmp_path / "restorer.safetensors"
    save_restorer(file, restorer, {})
    header(file, change)
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file") as caught:
        load_restorer(file)
    assert len(caught.value.fault) < 250


def lightning(file, restorer, **changes):
    state = {f"cascade.f1.{n}": t for n, t in restorer.state_dict().items()}
    torch.save({"state_dict": state, "rbs": {**restorer.spec(), "version": "0.2.0"}, **changes}, file)
    return file


@pytest.mark.parametrize(
    "changes",
    [
        {"state_dict": [1, 2]},
        {"state_dict": "text"},
        {"state_dict": {3: torch.ones(1)}},
        {"state_dict": {"cascade.f1.head.weight": "text"}},
        {"rbs": "text"},
        {"rbs": {"class_path": "rbs.restorers.dncnn.DnCNN", "provenance": "text"}},
        {"rbs": {"class_path": torch.ones(1)}},
    ],
)
def test_a_checkpoint_of_other_types_is_refused(tmp_path, restorer, changes):
    with pytest.raises(CheckpointError, match=r"last\.ckpt: it is not a checkpoint of RestorationTask"):
        load_restorer(lightning(tmp_path / "last.ckpt", restorer, **changes))


def test_a_checkpoint_that_is_a_list(tmp_path):
    torch.save([1, 2], tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="it is not a checkpoint"):
        load_restorer(tmp_path / "last.ckpt")


def test_damage_that_pytorch_does_not_see_in_a_checkpoint(tmp_path, restorer):
    file = lightning(tmp_path / "last.ckpt", restorer)
    weight = restorer.head.weight.detach().numpy().tobytes()
    intact = file.read_bytes()
    place = intact.index(weight)
    file.write_bytes(intact[: place + 9] + bytes([intact[place + 9] ^ 1]) + intact[place + 10 :])
    torch.load(file, weights_only=True)
    with pytest.raises(CheckpointError, match=r"its part .*data/\d+ is damaged"):
        load_restorer(file)


def test_tensors_of_a_checkpoint_that_take_no_memory_until_they_are_looked_at(tmp_path, restorer):
    state = {f"cascade.f1.{n}": t for n, t in restorer.state_dict().items()}
    state["cascade.f1.head.weight"] = torch.zeros(1).expand(10**6, 10**6)
    with pytest.raises(CheckpointError, match="1 misshapen"):
        load_restorer(lightning(tmp_path / "last.ckpt", restorer, state_dict=state))
    state["cascade.f1.head.weight"] = torch.zeros(2, 4, 3, 3, device="meta")
    with pytest.raises(CheckpointError, match="not float32"):
        load_restorer(lightning(tmp_path / "last.ckpt", restorer, state_dict=state))


DOORS = {
    "class_path": {"class_path": "mine.nets.Net"},
    "module": {"class_path": "mine.nets"},
    "submodule of rbs": {"class_path": "rbs.restorers.mine.nets.Net"},
    "nested": {"init_args": {"depth": {"class_path": "mine.nets.Net"}, "width": 4}},
    "losses": {"provenance": {"losses": [{"class_path": "mine.nets.Net", "init_args": {}}]}},
    "second restorer": {"f2": {"class_path": "mine.nets.Net"}},
    "head": {"head": {"class_path": "mine.nets.Net"}},
}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("door", DOORS)
def test_no_file_imports_what_it_names(tmp_path, mine, restorer, door, suffix):
    mark, description = tmp_path / "mine" / "nets.imported", DOORS[door]
    if suffix == ".ckpt":
        made = {**restorer.spec(), **description}
        file = lightning(tmp_path / "last.ckpt", restorer, rbs=made, hyper_parameters=made)
    else:
        file = planted(tmp_path, restorer, description)
    for load in (
        lambda: load_restorer(file),
        lambda: load_cascade(file, restorer),
        lambda: load_uncertainty(LoadedRestorer(restorer, "f1", "0", ""), file),
        lambda: compare_with_checkpoint(file, {"class_path": "RestorationTask", "init_args": {}}),
    ):
        with suppress(CheckpointError):
            load()
    assert not mark.exists()
    assert "mine.nets" not in sys.modules


def test_a_copy_of_the_shipped_weights_is_checked_too(tmp_path):
    copy, place = tmp_path / "copy.safetensors", -1000
    data = bytearray(shipped.SHIPPED.read_bytes())
    copy.write_bytes(data)
    assert load_restorer(copy).sha256 == load_restorer().sha256
    data[place] ^= 1
    copy.write_bytes(data)
    with pytest.raises(CheckpointError, match="it is damaged: its weights or its description are not those"):
        load_restorer(copy)


def test_the_shipped_file_is_checked_by_whatever_path_it_is_named(tmp_path, restorer, monkeypatch):
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "restorer.safetensors")
    monkeypatch.chdir(tmp_path)
    save_restorer(tmp_path / "restorer.safetensors", restorer, {})
    (tmp_path / "restorer.json").write_text(json.dumps({"sha256": "0" * 64}))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.safetensors").symlink_to(tmp_path / "restorer.safetensors")
    for name in ("restorer.safetensors", "elsewhere/../restorer.safetensors", "elsewhere/link.safetensors"):
        with pytest.raises(CheckpointError, match="install rbs again"):
            load_restorer(name)
