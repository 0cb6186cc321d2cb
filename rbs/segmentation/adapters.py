"""Adapters in SAM's encoder, and adapted teachers in files, which leave SAM itself out.

Adapters come from PEFT. Two sit on the encoder's fused query-key-value projections: LoRA (Hu et
al., arXiv 2106.09685) and DoRA (Liu et al., arXiv 2402.09353), which learns the length of each row
of W' apart from its direction,

    W' = W + (alpha / r) B A,    W'_i = m_i (W + (alpha / r) B A)_i / |(W + (alpha / r) B A)_i| .

(IA)3 (Liu et al., arXiv 2205.05638) learns a factor for each of these projections' outputs, and for
each hidden unit of the blocks' perceptrons. Merged into the weights, none of them costs time.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from segment_anything.modeling import Sam
from torch import Tensor, nn

from rbs.errors import CheckpointError
from rbs.restorers.image_domain import DOMAINS, DomainName
from rbs.segmentation.labels import LABELLED
from rbs.segmentation.sam import ARCHITECTURES, Size, build_sam, find_checkpoint
from rbs.segmentation.teacher import Teacher, region_decoder
from rbs.segmentation.tiles import CANVAS
from rbs.utils.checkpoint import Budget, read_tensors, require_weights
from rbs.utils.files import whole_file, write_json
from rbs.utils.schema import checked, parsed, shown
from rbs.weights.shipped import file_sha256, teacher_folder

Mode = Literal["decoder", "lora", "dora", "ia3", "full"]

WEIGHTS, SETTINGS = "teacher.safetensors", "teacher.json"
_MAGNITUDE = "lora_magnitude_vector"
_UNTRAINED = ("iou_prediction_head.", "output_hypernetworks_mlps.0.")
"""Parts of the decoder that no loss reaches: the quality of masks, and the mask that is not
used."""


def trainable_teacher(size: Size, mode: Mode, rank: int, domain: DomainName = "roots") -> Teacher:
    """A teacher that can be trained: its decoder and, by `mode`, its encoder or an adapter in it.

    It has no weights yet: `start` copies them. Meta's sizes compute the blocks of the encoder
    twice: the activations of a whole scan would fill an accelerator.

    Args:
        size: SAM's size.
        mode: "decoder" leaves the encoder frozen; "lora", "dora" and "ia3" adapt it; "full" trains
            all of it.
        rank: Rank of LoRA and DoRA.
        domain: Name of the domain of its images.
    """
    teacher = Teacher(size, ARCHITECTURES[size].build(), domain=domain)
    teacher.requires_grad_(False)
    for name, parameter in teacher.mask_decoder.named_parameters():
        parameter.requires_grad_(not name.startswith(_UNTRAINED))
    teacher.prompt_encoder.no_mask_embed.requires_grad_(True)
    if mode == "full":
        teacher.image_encoder.requires_grad_(True)
    elif mode != "decoder":
        teacher.image_encoder = adapted(teacher.image_encoder, mode, rank).get_base_model()
    teacher.recomputes = size != "vit_t" and mode != "decoder"
    return teacher


def start(teacher: Teacher, sam: Sam) -> None:
    """Copy SAM's base weights into a trainable teacher; its adapter, untrained, changes nothing."""
    encoder = teacher.image_encoder.state_dict()
    base = sam.image_encoder.state_dict()
    for name in encoder:
        if _MAGNITUDE in name:
            layer = name.partition(f".{_MAGNITUDE}")[0]
            encoder[name] = base[f"{layer}.weight"].norm(dim=1)
        elif not _of_adapter(name):
            encoder[name] = base[name.replace(".base_layer.", ".")]
    teacher.image_encoder.load_state_dict(encoder)
    teacher.prompt_encoder.load_state_dict(sam.prompt_encoder.state_dict())
    decoder = region_decoder(teacher.size, sam.mask_decoder, len(teacher.labels))
    teacher.mask_decoder.load_state_dict(decoder.state_dict())


def adapted(encoder: nn.Module, mode: Mode, rank: int) -> PeftModel:
    """The encoder with an untrained adapter in it; all else of it is frozen.

    Args:
        encoder: SAM's image encoder.
        mode: "lora", "dora" or "ia3".
        rank: Rank of LoRA and DoRA.
    """
    config: PeftConfig
    if mode == "ia3":
        config = IA3Config(target_modules=["qkv", "lin2"], feedforward_modules=["lin2"])
    else:
        # alpha = 2 r: the adapter's step does not depend on its rank.
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["qkv"], use_dora=mode == "dora")
    return get_peft_model(encoder, config)


def save_teacher(folder: Path, teacher: Teacher, *, mode: Mode, rank: int, base: Path) -> str:
    """Write the trained weights of a teacher, and only those, to `folder`, in half precision.

    Args:
        folder: Folder of the teacher; an older one in it is replaced.
        teacher: A teacher from `trainable_teacher`.
        mode: Mode in which it was trained.
        rank: Rank of LoRA and DoRA.
        base: The checkpoint of SAM that it started from.

    Returns:
        The teacher's digest.
    """
    state = {
        f"mask_decoder.{name}": tensor
        for name, tensor in teacher.mask_decoder.state_dict().items()
        if not name.startswith(_UNTRAINED)
    }
    state["no_mask_embed.weight"] = teacher.prompt_encoder.no_mask_embed.weight
    encoder = teacher.image_encoder
    if mode == "full":
        state |= {f"image_encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    elif mode != "decoder":
        layers = {name: tensor for name, tensor in encoder.state_dict().items() if _of_adapter(name)}
        state |= {f"{mode}.{name}": tensor for name, tensor in layers.items()}
    settings = _settings(teacher.size, file_sha256(base), teacher.images.name) | {"mode": mode, "rank": rank}
    with whole_file(folder / WEIGHTS, overwrite=True) as part:
        save_file({name: tensor.detach().cpu().half().contiguous() for name, tensor in state.items()}, part)
    settings["sha256"] = file_sha256(folder / WEIGHTS)
    settings["digest"] = teacher.digest = _digest(settings)
    write_json(folder / SETTINGS, settings)
    return teacher.digest


def load_teacher(folder: str | Path, checkpoint: Path | None = None) -> Teacher:
    """Load the adapted teacher in `folder`: frozen, in evaluation mode, its adapter merged.

    Args:
        folder: Folder that `save_teacher` wrote, or "shipped".
        checkpoint: SAM's base weights, see `build_sam`.

    Raises:
        CheckpointError: A file is missing or damaged, or the teacher was adapted from other base
            weights or made for other regions or by other settings than this version's.
    """
    folder = teacher_folder(folder)
    settings, state = _read(folder)
    base = find_checkpoint(settings.size, checkpoint)
    wanted = _settings(settings.size, file_sha256(base), settings.domain)
    for name, value in wanted.items():
        if getattr(settings, name) != value:
            adapted_with = shown(getattr(settings, name))
            fault = f"the teacher was adapted with {name} {adapted_with}, but here it is {shown(value)}"
            remedy = "name the base weights it was adapted from, or adapt it anew with `make adapt-sam`"
            raise CheckpointError(fault, file=folder / SETTINGS, remedy=remedy)
    teacher = Teacher(settings.size, build_sam(settings.size, base), domain=settings.domain)
    try:
        _load_decoder(teacher.mask_decoder, _part(state, "mask_decoder."))
        teacher.prompt_encoder.no_mask_embed.load_state_dict(_part(state, "no_mask_embed."))
        if settings.mode == "full":
            teacher.image_encoder.load_state_dict(_part(state, "image_encoder."))
        elif settings.mode != "decoder":
            with Budget(state):
                model = adapted(teacher.image_encoder, settings.mode, settings.rank)
            teacher.image_encoder = _merged(model, _part(state, f"{settings.mode}."))
    except (RuntimeError, KeyError, ValueError) as error:
        fault = f"its weights do not fit SAM {settings.size} ({str(error).splitlines()[0]})"
        raise CheckpointError(
            fault, file=folder / WEIGHTS, remedy="adapt the teacher anew with `make adapt-sam`"
        ) from error
    teacher.digest = settings.digest
    return teacher.requires_grad_(False).eval()


def _settings(size: str, base_sha256: str, domain: DomainName) -> dict[str, Any]:
    """Settings a teacher depends on besides its own weights."""
    labelled = LABELLED[DOMAINS[domain].shows]
    return {
        "size": size,
        "base_sha256": base_sha256,
        "domain": domain,
        "regions": list(labelled.labels.names),
        "canvas": CANVAS,
        **labelled.display,
    }


def _digest(settings: dict[str, Any]) -> str:
    rest = {name: value for name, value in settings.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _Settings:
    """The file of settings; see `_settings` and `save_teacher`."""

    size: Size
    base_sha256: str
    regions: list[str]
    canvas: int
    mode: Mode
    rank: int
    sha256: str
    digest: str
    domain: DomainName = "roots"  # teachers from before there were frames do not name it
    grey_half: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 4096:
            raise ValueError(f"its rank is {self.rank}")


def _read(folder: Path) -> tuple[_Settings, dict[str, Tensor]]:
    remedy = "adapt a teacher with `make adapt-sam`"
    for name in (SETTINGS, WEIGHTS):
        if not (folder / name).is_file():
            raise CheckpointError("there is no such file", file=folder / name, remedy=remedy)
    try:
        values = parsed((folder / SETTINGS).read_bytes())
        settings = checked(_Settings, values)
    except (ValueError, OSError) as error:
        raise CheckpointError(
            f"it cannot be read ({error})", file=folder / SETTINGS, remedy=remedy
        ) from error
    if settings.digest != _digest(values) or settings.sha256 != file_sha256(folder / WEIGHTS):
        fault = "the teacher's weights and settings do not belong together, or one of them is damaged"
        raise CheckpointError(fault, file=folder / WEIGHTS, remedy=remedy)
    state, _ = read_tensors(folder / WEIGHTS)
    require_weights(state, folder / WEIGHTS)
    return settings, state


def _load_decoder(decoder: nn.Module, trained: dict[str, Tensor]) -> None:
    """Load the trained weights into a decoder that starts from that of SAM."""
    found = decoder.load_state_dict(trained, strict=False)
    wrong = [name for name in found.missing_keys if not name.startswith(_UNTRAINED)] + found.unexpected_keys
    if wrong:
        raise KeyError(f"mask_decoder.{min(wrong)}")


def _merged(model: PeftModel, layers: dict[str, Tensor]) -> nn.Module:
    inner: nn.Module = model.get_base_model()
    missing = {name for name in inner.state_dict() if _of_adapter(name)} ^ set(layers)
    if missing:
        raise KeyError(f"adapter layer {min(missing)}")
    inner.load_state_dict(layers, strict=False)
    return model.merge_and_unload()


def _of_adapter(name: str) -> bool:
    """True for the names that PEFT gives the weights of its layers."""
    return "lora_" in name or "ia3_" in name


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
