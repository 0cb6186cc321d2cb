"""The cascade: two restorers in a row, semantic priors between them. Only the first one ships."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from rbs.distillation.scm import SCM
from rbs.distillation.skd import SKD
from rbs.distillation.spi import SPI
from rbs.errors import CheckpointError, RbsError
from rbs.restorers.base import Restorer
from rbs.restorers.checkpoint import build_restorer
from rbs.utils.checkpoint import load_into, read_safetensors, save_modules
from rbs.weights.shipped import check_recorded, file_sha256

if TYPE_CHECKING:
    from rbs.segmentation.prior import SemanticPrior

Sees = Literal["i1", "rapid", "standard"]
"""Image that the second restorer restores: I1; the rapid scan beside I1; or the standard scan."""

Trains = Literal["both", "f1", "f2"]
"""Restorers that are trained; the other one is frozen."""


@dataclass(frozen=True)
class CascadeOutput:
    """Output of a cascade for a batch of rapid scans.

    Attributes:
        i1: First restoration, counts at standard scale (B, V, H, W), or frames (B, 3, H, W).
        f1_features: Its features, (B, C1, H, W).
        i2: Second restoration; None without a second restorer, or where it lacks what it sees.
        f2_features: Its features, (B, C2, H, W); None likewise.
        prior: The prior used; None where none was given.
    """

    i1: Tensor
    f1_features: Tensor
    i2: Tensor | None = None
    f2_features: Tensor | None = None
    prior: SemanticPrior | None = None


class Cascade(nn.Module):
    r"""Two restorers, the second one conditioned by a semantic prior S of the first restoration.

    .. math::
        I_1 = f_1(x), \qquad I_2 = f_2(I_1 \mid \mathrm{SPI}(S)) \quad\text{or}\quad
        f_2(x \mid I_1, \mathrm{SPI}(S))

    Args:
        f1: First restorer, the one that ships.
        f2: Second restorer, conditioned on `conditions(...)` channels; None for the first alone.
        spi: Turns the prior into f2's condition; None for none.
        skd: Distillation from f2 to f1; None for none. Used by
            `rbs.distillation.objective.cascade_losses`.
        scm: Semantic consistency; None for none. Used by
            `rbs.distillation.objective.cascade_losses`.
        sees: Image that f2 restores.
        trains: What is trained. Where both are, gradients of I2 flow into f1.
    """

    def __init__(
        self,
        f1: Restorer,
        f2: Restorer | None = None,
        spi: SPI | None = None,
        skd: SKD | None = None,
        scm: SCM | None = None,
        *,
        sees: Sees = "i1",
        trains: Trains = "both",
    ) -> None:
        super().__init__()
        self.f1, self.f2, self.spi, self.skd, self.scm = f1, f2, spi, skd, scm
        self.sees, self.trains = sees, trains
        frozen: dict[Trains, tuple[nn.Module | None, ...]] = {"both": (), "f1": (f2, spi), "f2": (f1,)}
        for module in frozen[trains]:
            if module is not None:
                module.requires_grad_(False)

    def forward(
        self,
        x: Tensor,
        exposure: Tensor,
        prior: SemanticPrior | Callable[[Tensor], SemanticPrior] | None = None,
        standard: tuple[Tensor, Tensor] | None = None,
        facts: Tensor | None = None,
    ) -> CascadeOutput:
        """Restore.

        Args:
            x: Rapid scan at standard scale, counts (B, V, H, W), or frames (B, 3, H, W).
            exposure: Its exposure relative to the standard scan, (B,).
            prior: Of these pixels, or a function of I1 that makes it; needed where there is an SPI.
            standard: The standard scan at standard scale, (B, V, H, W), and its exposure, (B,),
                where f2 sees that; without it there is no second restoration.
            facts: Facts of the children, (B, F), for an f1 that reads them.

        Raises:
            ValueError: There is an SPI but no prior.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trains != "f2"):
            i1, features1 = self.f1.restore_with_features(x, exposure, facts)
        if callable(prior):
            prior = prior(i1.detach())
        if self.f2 is None or (self.sees == "standard" and standard is None):
            return CascadeOutput(i1, features1, prior=prior)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trains != "f1"):
            source, p = (x, exposure) if self.sees == "rapid" else (i1, exposure)
            if self.sees == "standard":
                assert standard is not None
                source, p = standard
            i2, features2 = self.f2.restore_with_features(source, p, self._condition(i1, prior))
        return CascadeOutput(i1, features1, i2, features2, prior)

    def _condition(self, i1: Tensor, prior: SemanticPrior | None) -> Tensor | None:
        """The condition of f2, (B, C, H, W); None where it has none."""
        parts = []
        if self.sees == "rapid":
            images = self.f1.images
            with torch.autocast(i1.device.type, enabled=False):
                parts.append(
                    images.forward(i1.float()).expand(-1, images.channels, -1, -1) / images.input_scale
                )
        if self.spi is not None:
            if prior is None:
                raise ValueError("semantic prior integration needs a prior")
            parts.append(self.spi(prior, (i1.shape[-2], i1.shape[-1])))
        return torch.cat(parts, dim=1) if parts else None


def condition_channels(f1: Restorer, spi: SPI | None, sees: Sees) -> int:
    """Channels of the condition of the second restorer of a cascade."""
    return (f1.images.channels if sees == "rapid" else 0) + (spi.channels if spi is not None else 0)


def second_restorer(f1: Restorer, spi: SPI | None, sees: Sees, like: Restorer | None = None) -> Restorer:
    """An untrained second restorer of a cascade.

    Args:
        f1: The first one.
        spi: Makes its condition; None for none.
        sees: Image that it restores. Of I1 it starts from the identity, of counts from a filter.
        like: Restorer whose class and arguments it has; None for those of `f1`.

    Raises:
        RbsError: Its class takes no condition.
    """
    arguments = (like or f1).spec()["init_args"]
    if like is None and sees == "i1":
        arguments = arguments | {"sigma_px": 0.0}
    kind, channels = type(like or f1), condition_channels(f1, spi, sees)
    if channels and "condition_channels" not in arguments:
        fault = f"{kind.__name__} has no argument condition_channels, so that no prior can enter it"
        raise RbsError(fault, remedy="pass one on to Restorer, or set --model.spi false and --model.sees i1")
    return kind(**arguments | ({"condition_channels": channels} if channels else {}))


def save_cascade(path: Path, cascade: Cascade, provenance: dict[str, Any]) -> None:
    """Write what training adds to f1: the second restorer and SPI.

    Args:
        path: A .safetensors file; an older one is replaced whole.
        cascade: A cascade with a second restorer.
        provenance: How it was made: values JSON can hold.

    Raises:
        OutputError: The file cannot be written.
    """
    assert cascade.f2 is not None
    modules: dict[str, nn.Module] = {"f2": cascade.f2}
    if cascade.spi is not None:
        modules["spi"] = cascade.spi
    embedding_dim = None if cascade.spi is None else cascade.spi.embedding_dim
    about = {"f2": cascade.f2.spec(), "embedding_dim": embedding_dim, "sees": cascade.sees}
    save_modules(path, modules, about | {"provenance": provenance})


def load_cascade(path: Path, f1: Restorer) -> tuple[Cascade, dict[str, Any]]:
    """Read a file of `save_cascade`.

    Args:
        path: The .safetensors file.
        f1: The first restorer it was trained with.

    Returns:
        The cascade without its training losses, in evaluation mode, and its provenance.

    Raises:
        CheckpointError: The file is missing, truncated, holds another architecture or no second
            restorer, or was written by a version whose cascade was another.
    """
    check_recorded(path, file_sha256(path))
    tensors, description = read_safetensors(path)
    if description.f2 is None:
        fault = "it holds no second restorer"
        remedy = "put the cascade.safetensors there that stage 2 wrote beside its restorer.safetensors"
        raise CheckpointError(fault, file=path, remedy=remedy)
    if description.sees is None:
        fault = f"it is of rbs {description.version}, in which the prior did not enter the second restorer"
        raise CheckpointError(fault, file=path, remedy="train stage 2 again, or use that version")
    f2 = build_restorer(description.f2, path, description.version, tensors)
    if f2.images.shows != f1.images.shows:
        fault = f"its second restorer restores {f2.images.shows}, the first one {f1.images.shows}"
        raise CheckpointError(fault, file=path, remedy="name the files of one training")
    # Its size is bounded: the description allows no more than 4096 channels.
    dim = description.embedding_dim
    spi = None if dim is None else SPI(dim, domain=f2.domain)
    if f2.condition_channels != condition_channels(f1, spi, description.sees):
        fault = (
            f"its second restorer has a condition of {f2.condition_channels} channels, which nothing makes"
        )
        raise CheckpointError(fault, file=path, remedy="train stage 2 again")
    for prefix, module in (("f2.", f2), ("spi.", spi)):
        if module is not None:
            part = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            load_into(module, part, path)
    return Cascade(f1, f2, spi, sees=description.sees).eval(), description.provenance
