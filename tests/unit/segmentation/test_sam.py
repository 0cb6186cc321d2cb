import hashlib
import urllib.error

import pytest
import torch
from safetensors.torch import load_file, save_file
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam

from rbs.errors import CheckpointError
from rbs.segmentation import sam as sam_module
from rbs.segmentation.sam import ARCHITECTURES, META_CHECKPOINTS, build_sam, find_checkpoint


def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_meta_sizes_have_the_tensors_of_metas_own_builders():
    with torch.device("meta"):
        for size in META_CHECKPOINTS:
            assert shapes(ARCHITECTURES[size].build()) == shapes(sam_model_registry[size]())


def test_vit_t_is_made_of_sams_classes(base):
    sam = build_sam("vit_t", base)
    assert isinstance(sam, Sam)
    assert isinstance(sam.image_encoder, ImageEncoderViT)
    assert isinstance(sam.prompt_encoder, PromptEncoder)
    assert isinstance(sam.mask_decoder, MaskDecoder)
    assert not sam.training


def test_weights_are_loaded(base):
    state = load_file(base)
    for name, tensor in build_sam("vit_t", base).state_dict().items():
        assert torch.equal(tensor, state[name].float())


def test_vit_t_segments_by_prompt_through_sams_own_forward(base):
    image = torch.rand(3, 400, 512) * 255
    call = {"image": image, "original_size": (400, 512), "boxes": torch.tensor([[10.0, 10, 80, 90]])}
    masks = build_sam("vit_t", base)([call], multimask_output=True)[0]["masks"]
    assert masks.shape == (1, 3, 400, 512)


def test_a_checkpoint_of_another_size_is_named(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"other\.safetensors: it does not hold the weights of vit_t"):
        build_sam("vit_t", path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth: there is no such file"):
        build_sam("vit_b", tmp_path / "none.pth")


def test_offline_says_where_to_put_the_file(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setenv("RBS_HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"sam_vit_b_01ec64\.pth.*could not be downloaded.*RBS_HOME"):
        build_sam("vit_b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("honest", [True, False])
def test_a_download_is_checked_kept_and_used_again(honest, tmp_path, monkeypatch):
    served = tmp_path / "server" / "sam_vit_b_01ec64.pth"
    served.parent.mkdir()
    served.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights" if honest else b"others").hexdigest()
    monkeypatch.setitem(META_CHECKPOINTS, "vit_b", ("sam_vit_b_01ec64.pth", digest))
    monkeypatch.setattr(sam_module, "_ADDRESS", served.parent.as_uri() + "/")
    home = tmp_path / "home"
    monkeypatch.setenv("RBS_HOME", str(home))
    if not honest:
        with pytest.raises(CheckpointError, match="hash"):
            find_checkpoint("vit_b")
        assert list(home.iterdir()) == []
        return
    path = find_checkpoint("vit_b")
    assert path.read_bytes() == b"weights"
    served.unlink()
    assert find_checkpoint("vit_b") == path


def test_a_file_of_meta_must_be_the_one_that_was_published(tmp_path):
    """It was checked when it was downloaded, but a copy or an old download was not."""
    torch.save({"a": torch.ones(1)}, tmp_path / "sam_vit_b_01ec64.pth")
    with pytest.raises(CheckpointError, match="it is not the file that Meta published under this name"):
        build_sam("vit_b", tmp_path / "sam_vit_b_01ec64.pth")


def test_base_weights_beside_a_card_must_match_it(base, tmp_path):
    copy = tmp_path / "sam_vit_t.safetensors"
    copy.write_bytes(base.read_bytes())
    copy.with_suffix(".json").write_text(
        '{"sha256": "' + hashlib.sha256(base.read_bytes()).hexdigest() + '"}'
    )
    build_sam("vit_t", copy)
    data = bytearray(base.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    with pytest.raises(CheckpointError, match="differs from the hash recorded beside it; copy both again"):
        build_sam("vit_t", copy)


@pytest.mark.parametrize(
    ("change", "fault"), [(lambda t: t.int(), "are int32"), (lambda t: t / 0, "not finite")]
)
def test_base_weights_that_are_none(base, tmp_path, change, fault):
    state = load_file(base)
    state["image_encoder.pos_embed"] = change(state["image_encoder.pos_embed"])
    save_file(state, tmp_path / "sam.safetensors")
    with pytest.raises(CheckpointError, match=fault):
        build_sam("vit_t", tmp_path / "sam.safetensors")
