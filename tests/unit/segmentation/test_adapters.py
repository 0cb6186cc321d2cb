import json
import shutil
from functools import cache

import pytest
import torch
from safetensors.torch import load_file, save_file
from segmenters import given

from rbs.errors import CheckpointError
from rbs.restorers.image_domain import DOMAINS
from rbs.segmentation import adapters
from rbs.segmentation.adapters import load_teacher, save_teacher, start, trainable_teacher
from rbs.segmentation.sam import build_sam
from rbs.segmentation.teacher import Teacher

MODES = ("decoder", "lora", "dora", "ia3", "full")
ADAPTERS = ("lora", "dora", "ia3")


@cache
def trained(base, mode):
    """A teacher after two steps of training on noise. Read only."""
    torch.manual_seed(0)
    teacher = trainable_teacher("vit_t", mode, rank=4)
    start(teacher, build_sam("vit_t", base))
    weights = [weight for weight in teacher.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        teacher.logits(*given(torch.rand(1, 1, 64, 64) * 9)).square().mean().backward()
        optimizer.step()
    return teacher.eval()


@pytest.fixture(scope="module")
def kept(base, tmp_path_factory):
    """Where a teacher with LoRA is saved. Read only."""
    folder = tmp_path_factory.mktemp("lora")
    save_teacher(folder, trained(base, "lora"), mode="lora", rank=4, base=base)
    return folder


@pytest.fixture
def saved(kept, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(kept, tmp_path / "teacher")


@pytest.mark.parametrize("mode", ADAPTERS)
def test_an_untrained_adapter_changes_nothing(base, counts, mode):
    teacher = trainable_teacher("vit_t", mode, rank=4)
    start(teacher, build_sam("vit_t", base))
    plain = Teacher("vit_t", build_sam("vit_t", base))
    adapted, untouched = (t.embed(*given(counts)) for t in (teacher, plain))
    torch.testing.assert_close(adapted, untouched, rtol=0, atol=1e-4 if mode == "dora" else 0)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_trained(base, mode):
    before = build_sam("vit_t", base).image_encoder.state_dict()
    start_of = trainable_teacher("vit_t", mode, rank=4)
    start(start_of, build_sam("vit_t", base))
    before |= {n: w for n, w in start_of.image_encoder.state_dict().items() if adapters._of_adapter(n)}
    after = trained(base, mode).image_encoder.state_dict()
    changed = [name for name in after if not torch.equal(after[name], before[_plain(name)])]
    learned = {"lora": {"lora_B"}, "dora": {"lora_B", "lora_magnitude_vector"}, "ia3": {"ia3_l"}}
    kinds = ("lora_B", "lora_magnitude_vector", "ia3_l")
    assert {kind for kind in kinds if any(kind in name for name in changed)} == learned.get(mode, set())
    assert any(not adapters._of_adapter(name) for name in changed) == (mode == "full")


@pytest.mark.parametrize("mode", MODES)
def test_round_trip(base, tmp_path, counts, mode):
    teacher = trained(base, mode)
    digest = save_teacher(tmp_path, teacher, mode=mode, rank=4, base=base)
    again = load_teacher(tmp_path, base)
    assert again.digest == digest
    assert not any(weight.requires_grad for weight in again.parameters())
    assert not any("lora" in name or "ia3" in name for name, _ in again.named_modules())
    with torch.no_grad():
        wanted, got = teacher.prior(*given(counts)), again.prior(*given(counts))
    # It is written in half precision.
    assert torch.allclose(got.embedding, wanted.embedding, atol=5e-3)
    assert torch.allclose(got.masks, wanted.masks, atol=1e-3)


def test_only_adapter_and_decoder_are_saved(base, saved):
    teacher = trained(base, "lora")
    names = load_file(saved / "teacher.safetensors")
    reached = {name for name, weight in teacher.mask_decoder.named_parameters() if weight.requires_grad}
    assert {n.removeprefix("mask_decoder.") for n in names if n.startswith("mask_decoder.")} == reached
    assert {tensor.dtype for tensor in names.values()} == {torch.half}
    assert {name.split(".")[0] for name in names} == {"lora", "mask_decoder", "no_mask_embed"}
    adapter = sum(tensor.numel() for name, tensor in names.items() if name.startswith("lora."))
    assert adapter == 6 * 4 * (192 + 3 * 192)  # six blocks, rank 4, A: 192 -> 4, B: 4 -> 576


def test_digest_tells_weights_apart(base, tmp_path):
    digests = {save_teacher(tmp_path, trained(base, m), mode=m, rank=4, base=base) for m in MODES}
    assert len(digests) == len(MODES)


def test_other_base_weights_are_refused(base, saved, tmp_path):
    state = load_file(base)
    state["image_encoder.pos_embed"] += 1
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"teacher\.json: .*base_sha256.*; name the base weights"):
        load_teacher(saved, tmp_path / "other.safetensors")


def test_a_teacher_from_before_there_were_frames_is_of_scans(base, saved, counts):
    teacher = trained(base, "lora")
    settings = json.loads((saved / "teacher.json").read_text())
    assert settings.pop("domain") == "roots"
    settings["digest"] = adapters._digest(settings)
    (saved / "teacher.json").write_text(json.dumps(settings))
    again = load_teacher(saved, base)
    assert again.images is DOMAINS["roots"]
    with torch.no_grad():
        assert torch.allclose(again(*given(counts)), teacher(*given(counts)), atol=1e-3)


def test_a_teacher_that_was_written_whole_is_read(base, saved, counts):
    teacher = trained(base, "lora")
    state = load_file(saved / "teacher.safetensors")
    state |= {f"mask_decoder.{name}": tensor for name, tensor in teacher.mask_decoder.state_dict().items()}
    rewrite(saved, state)
    with torch.no_grad():
        again = load_teacher(saved, base)
        assert torch.allclose(again(*given(counts)), teacher(*given(counts)), atol=1e-3)


@pytest.mark.parametrize("name", ["mask_decoder.mask_tokens.weight", "mask_decoder.more"])
def test_a_decoder_of_another_kind_is_refused(base, saved, name):
    state = load_file(saved / "teacher.safetensors")
    state = {name: torch.ones(1), **state} if name not in state else {n: state[n] for n in state if n != name}
    rewrite(saved, state)
    with pytest.raises(CheckpointError, match=f"do not fit SAM vit_t .*{name}"):
        load_teacher(saved, base)


def rewrite(folder, state):
    """Put other weights into a teacher, and their hash."""
    save_file(state, folder / "teacher.safetensors")
    settings = json.loads((folder / "teacher.json").read_text())
    settings["sha256"] = adapters.file_sha256(folder / "teacher.safetensors")
    settings["digest"] = adapters._digest(settings)
    (folder / "teacher.json").write_text(json.dumps(settings))


def test_a_teacher_of_other_regions_is_refused(base, saved):
    settings = json.loads((saved / "teacher.json").read_text())
    settings["regions"] = settings["regions"][:-1]
    settings["digest"] = adapters._digest(settings)
    (saved / "teacher.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"adapted with regions \['skull'.*adapt it anew"):
        load_teacher(saved, base)


def test_damage_is_refused(base, saved):
    settings = json.loads((saved / "teacher.json").read_text())
    (saved / "teacher.json").write_text(json.dumps(settings | {"rank": 8}))
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_teacher(saved, base)
    (saved / "teacher.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_teacher(saved, base)
    (saved / "teacher.json").unlink()
    with pytest.raises(CheckpointError, match="no such file; adapt a teacher"):
        load_teacher(saved, base)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"size": "vit_x"}, "its size is 'vit_x'"),
        ({"size": ["vit_t"]}, "its size is"),
        ({"rank": "four"}, "its rank is 'four'"),
        ({"rank": -4}, "its rank is -4"),
        ({"rank": 4096}, "do not fit SAM vit_t .*far larger network"),
        ({"mode": "all"}, "its mode is 'all'"),
        ({"domain": "hearts"}, "its domain is 'hearts'"),
        ({"target_modules": ["qkv"]}, "'target_modules', which is unknown here"),
    ],
)
def test_settings_of_other_types_are_refused(base, saved, changes, fault):
    settings = json.loads((saved / "teacher.json").read_text()) | changes
    settings["digest"] = adapters._digest(settings)
    (saved / "teacher.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=fault):
        load_teacher(saved, base)


def test_weights_of_a_teacher_that_are_none(base, saved):
    intact = load_file(saved / "teacher.safetensors")
    name = "no_mask_embed.weight"
    for wrong, fault in ((intact[name].int(), "are int32"), (intact[name] * float("nan"), "not finite")):
        rewrite(saved, intact | {name: wrong})
        with pytest.raises(CheckpointError, match=fault):
            load_teacher(saved, base)


def test_brackets_without_end_in_the_settings(base, saved):
    (saved / "teacher.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"it cannot be read \(it is nested too deeply\)"):
        load_teacher(saved, base)


def _plain(name):
    return name.replace(".base_layer.", ".")


@pytest.mark.parametrize(
    ("size", "mode", "twice"),
    [("vit_t", "lora", False), ("vit_b", "decoder", False), ("vit_b", "lora", True)],
)
def test_what_is_small_or_frozen_is_computed_once(size, mode, twice):
    assert trainable_teacher(size, mode, rank=4).recomputes is twice


def test_blocks_computed_again_give_the_same_gradients_and_keep_less(base, counts):
    gradients, kept = [], []
    for recomputes in (False, True):
        torch.manual_seed(0)
        teacher = trainable_teacher("vit_t", "lora", rank=4)
        start(teacher, build_sam("vit_t", base))
        teacher.recomputes = recomputes
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.append(t.nbytes) or t, lambda t: t
        ):
            loss = teacher.logits(*given(counts)).square().mean()
        loss.backward()
        kept.append(sum(saved))
        gradients.append({n: w.grad for n, w in teacher.named_parameters() if w.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    assert kept[1] < kept[0] / 2
