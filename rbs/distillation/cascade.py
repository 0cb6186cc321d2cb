"""The cascade: two restorers in a row, semantic priors between them. Only the first one ships."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from rbs.distillation.scm import SCM
from rbs.distillation.skd import SKD
from rbs.distillation.spi import SPI
from rbs.errors import CheckpointError
from rbs.restorers.base import Restorer
from rbs.restorers.checkpoint import build_restorer
from rbs.utils.checkpoint import load_into, read_safetensors, save_modules
from rbs.weights.shipped import check_recorded, file_sha256

if TYPE_CHECKING:
    from rbs.segmentation.prior import SemanticPrior


@dataclass(frozen=True)
class CascadeOutput:
    """Output of a cascade for a batch of rapid scans.

    Attributes:
        i1: First restoration, counts at standard scale (B, V, H, W), or frames (B, 3, H, W).
        f1_features: Its features, (B, C1, H, W).
        i2: Second restoration; None without a second restorer.
        f2_features: Its features, (B, C2, H, W); None without a second restorer.
        prior: The prior used; None where none was given.
    """

    i1: Tensor
    f1_features: Tensor
    i2: Tensor | None = None
    f2_features: Tensor | None = None
    prior: SemanticPrior | None = None


class Cascade(nn.Module):
    """`I1 = f1(x)`, `I2 = f2(SPI(I1, T(I1)))`. Gradients of I2 flow into f1.

    Args:
        f1: First restorer, the one that ships.
        f2: Second restorer, training only; None for the first alone.
        spi: Fuses I1 with the prior; None for the identity.
        skd: Distillation from f2 to f1; None for none. Used by
            `rbs.distillation.objective.cascade_losses`.
        scm: Semantic consistency; None for none. Used by
            `rbs.distillation.objective.cascade_losses`.
    """

    def __init__(
        self,
        f1: Restorer,
        f2: Restorer | None = None,
        spi: SPI | None = None,
        skd: SKD | None = None,
        scm: SCM | None = None,
    ) -> None:
        super().__init__()
        self.f1, self.f2, self.spi, self.skd, self.scm = f1, f2, spi, skd, scm

    def forward(
        self,
        x: Tensor,
        exposure: Tensor,
        prior: SemanticPrior | Callable[[Tensor], SemanticPrior] | None = None,
    ) -> CascadeOutput:
        """Restore.

        Args:
            x: Rapid scan at standard scale, counts (B, V, H, W), or frames (B, 3, H, W).
            exposure: Its exposure relative to the standard scan, (B,).
            prior: Of these pixels, or a function of I1 that makes it; needed where there is an SPI.

        Raises:
            ValueError: There is an SPI but no prior.
        """
        i1, features1 = self.f1.restore_with_features(x, exposure)
        if self.f2 is None:
            return CascadeOutput(i1, features1)
        if callable(prior):
            prior = prior(i1.detach())
        fused = i1
        if self.spi is not None:
            if prior is None:
                raise ValueError("semantic prior integration needs a prior")
            fused = self.spi(i1, prior)
        i2, features2 = self.f2.restore_with_features(fused, exposure)
        return CascadeOutput(i1, features1, i2, features2, prior)


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
    embedding_dim = cascade.spi and cascade.spi.embedding_dim
    save_modules(
        path, modules, {"f2": cascade.f2.spec(), "embedding_dim": embedding_dim, "provenance": provenance}
    )


def load_cascade(path: Path, f1: Restorer) -> tuple[Cascade, dict[str, Any]]:
    """Read a file of `save_cascade`.

    Args:
        path: The .safetensors file.
        f1: The first restorer it was trained with.

    Returns:
        The cascade without its training losses, in evaluation mode, and its provenance.

    Raises:
        CheckpointError: The file is missing, truncated, holds another architecture or no second
            restorer.
    """
    check_recorded(path, file_sha256(path))
    tensors, description = read_safetensors(path)
    if description.f2 is None:
        fault = "it holds no second restorer"
        remedy = "put the cascade.safetensors there that stage 2 wrote beside its restorer.safetensors"
        raise CheckpointError(fault, file=path, remedy=remedy)
    f2 = build_restorer(description.f2, path, description.version, tensors)
    if f2.images.shows != f1.images.shows:
        fault = f"its second restorer restores {f2.images.shows}, the first one {f1.images.shows}"
        raise CheckpointError(fault, file=path, remedy="name the files of one training")
    # Its size is bounded: the description allows no more than 4096 channels.
    spi = SPI(description.embedding_dim, domain=f2.domain) if description.embedding_dim else None
    for prefix, module in (("f2.", f2), ("spi.", spi)):
        if module is not None:
            part = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            load_into(module, part, path)
    return Cascade(f1, f2, spi).eval(), description.provenance
