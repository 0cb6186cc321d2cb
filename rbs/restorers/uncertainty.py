"""Uncertainty of a restoration: a small network on the features of the restorer it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbs.errors import CheckpointError
from rbs.restorers.base import Restorer
from rbs.restorers.checkpoint import LoadedRestorer
from rbs.restorers.image_domain import FLOOR, ROOT_SCALE
from rbs.scans.scan import Array
from rbs.utils.checkpoint import build_from, describe, load_into, read_safetensors, save_modules
from rbs.weights.shipped import check_recorded, file_sha256

FITTED_LEVELS = (0.683, 0.9)
"""Probabilities whose intervals the factor of a head is fitted to."""

SMALLEST = 1e-4
"""Smallest stated deviation, root-counts: it keeps logarithms finite."""

_FIRST = 0.05
"""Deviation that an untrained head states everywhere, root-counts."""


class UncertaintyHead(nn.Module):
    r"""A network for the standard deviation s of the error of a restoration T, in root-counts.

    .. math::
        \sqrt{T + \epsilon} - \sqrt{\lambda + \epsilon} \;\sim\; \mathcal{N}(0, s^2), \qquad
        s = c\,\operatorname{softplus} h(\text{features}, \sqrt{T + \epsilon}, 1 / 2\sqrt p) ,

    of a trained restorer that is not changed. Square roots of counts have noise of constant size,
    so s varies little over the image and shows mostly what is particular to a place. The head is
    trained by the Gaussian likelihood (Nix & Weigend, ICNN 1994; Kendall & Gal, NeurIPS 2017, arXiv
    1703.04977), see `root_likelihood`; one factor c, fitted afterwards on other children,
    calibrates the intervals (Guo et al., ICML 2017, arXiv 1706.04599, did so for classes).

    Args:
        feature_channels: Channels of the restorer's features.
        width: Channels of the hidden layers.

    Attributes:
        factor: c, saved with the weights.
    """

    factor: Tensor

    def __init__(self, feature_channels: int = 24, width: int = 16) -> None:
        super().__init__()
        self.feature_channels, self.width = feature_channels, width

        def layer(channels: int) -> list[nn.Module]:
            return [nn.Conv2d(channels, width, 3, padding=1, padding_mode="replicate"), nn.SiLU()]

        last = nn.Conv2d(width, 2, 1)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, float(np.log(np.expm1(_FIRST))))  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layer(feature_channels + 3), *layer(width), last)
        self.register_buffer("factor", torch.ones(()))

    def forward(self, features: Tensor, restored: Tensor, exposure: Tensor) -> Tensor:
        """State the standard deviation of the root.

        Args:
            features: Features of the restorer, (B, feature_channels, H, W).
            restored: Its restoration, standard counts (B, V, H, W), V = 1 or 2.
            exposure: Exposure of the rapid scan relative to the standard one, (B,).

        Returns:
            s, root-counts (B, V, H, W), float32, above zero.
        """
        views = restored.shape[1]
        with torch.autocast(restored.device.type, enabled=False):
            roots = (restored.float() + FLOOR).sqrt().expand(-1, 2, -1, -1) / ROOT_SCALE
            noise = (0.5 / exposure.float().sqrt())[:, None, None, None].expand(-1, 1, *roots.shape[-2:])
            s = F.softplus(self.layers(torch.cat([features.float(), roots, noise], dim=1))) + SMALLEST
        # A single view is given twice and the two results are averaged, as in the restorer.
        return self.factor * (s if views == 2 else s.mean(dim=1, keepdim=True))

    def spec(self) -> dict[str, Any]:
        """Class path and arguments to build it again, untrained: {"class_path", "init_args"}."""
        return describe(self)


def root_error(restored: Tensor, expectation: Tensor) -> Tensor:
    """Error of a restoration, root-counts; both arguments are standard counts of one shape."""
    return (restored + FLOOR).sqrt() - (expectation + FLOOR).sqrt()


def root_likelihood(error: Tensor, s: Tensor, beta: float = 0.5) -> Tensor:
    r"""The beta-NLL of Seitzer et al. (ICLR 2022, arXiv 2203.09168), a scalar.

    .. math::
        \ell = \overline{\lfloor s^{2\beta} \rfloor \Big(\log s + \frac{e^2}{2 s^2}\Big)}

    with no gradient through :math:`\lfloor\cdot\rfloor`: for every weight it is least where
    :math:`s^2 = \operatorname{E} e^2`. Without the weight (beta = 0) the air, where errors are
    small, outweighs the body: most pixels are air, and a relative error of s costs the same
    everywhere.

    Args:
        error: e, root-counts.
        s: The stated standard deviation, of the same shape.
        beta: 0 is the plain likelihood.
    """
    nll = F.gaussian_nll_loss(torch.zeros_like(error), error, s**2, eps=SMALLEST**2, reduction="none")
    return (s.detach() ** (2 * beta) * nll).mean()


def deviation_in_counts(s: Tensor, restored: Tensor) -> Tensor:
    r"""The standard deviation of a restoration, from that of its root.

    .. math::
        \operatorname{std}\big(r^2\big) = \sqrt{4 \rho^2 s^2 + 2 s^4}, \qquad
        r \sim \mathcal{N}(\rho, s^2), \quad \rho^2 = T + \epsilon .

    The first term is the delta method; the second remains where a pixel expects no counts.

    Args:
        s: Root-counts.
        restored: T, standard counts of the same shape.

    Returns:
        Standard counts.
    """
    return (4 * (restored + FLOOR) * s**2 + 2 * s**4).sqrt()


class _Deviation(nn.Module):
    """From the input of a restorer to the standard deviation of its restoration, counts."""

    def __init__(self, restorer: Restorer, head: UncertaintyHead) -> None:
        super().__init__()
        self.restorer, self.head = restorer, head

    def forward(self, x: Tensor, exposure: Tensor) -> Tensor:
        restored, features = self.restorer.restore_with_features(x, exposure)
        return deviation_in_counts(self.head(features, restored, exposure), restored)


@dataclass(frozen=True)
class Uncertainty:
    """A head from a file, with the restorer it was trained on.

    Attributes:
        loaded: The restorer.
        head: In evaluation mode.
        name: Its class and file, for headers and reports.
        version: The version of rbs that wrote it.
        sha256: Of its file, hexadecimal.
        provenance: Record of its making.
    """

    loaded: LoadedRestorer
    head: UncertaintyHead
    name: str
    version: str
    sha256: str
    provenance: dict[str, Any] = field(default_factory=dict)

    def deviation(self, rapid: Array, exposure: float) -> Array:
        """The standard deviation of the restoration of a scan.

        Args:
            rapid: Raw counts, aligned (V, H, W).
            exposure: Exposure relative to the standard scan.

        Returns:
            Standard counts (V, H, W), float32; 0 in rows that were not scanned.

        Raises:
            CheckpointError: The restorer restores frames.
        """
        restorer = self.loaded.restorer
        network = _Deviation(restorer, self.head).to(next(restorer.parameters()).device)
        return self.loaded.apply(network, rapid, exposure)


def head_file(weights: Path) -> Path:
    """File of the head that belongs to the weights of a restorer: STEM_uncertainty beside them."""
    return weights.with_name(f"{weights.stem}_uncertainty.safetensors")


def save_uncertainty(path: Path, head: UncertaintyHead, f1_sha256: str, provenance: dict[str, Any]) -> None:
    """Write a head, bound to a restorer, replacing an older file whole.

    Args:
        path: A .safetensors file.
        head: The head.
        f1_sha256: SHA-256 of the file of the restorer it was trained on.
        provenance: Record of its making, values that JSON can hold.

    Raises:
        OutputError: The file cannot be written.
    """
    description = {"head": head.spec(), "f1_sha256": f1_sha256, "provenance": provenance}
    save_modules(path, {"": head}, description)


def load_uncertainty(loaded: LoadedRestorer, path: Path) -> Uncertainty:
    """Read a head.

    Args:
        loaded: The restorer whose deviation it states.
        path: A file of `save_uncertainty`; see `head_file`.

    Raises:
        CheckpointError: The file is missing or damaged, holds no head, or was trained on other
            weights.
    """
    train = "train one with `make train-uncertainty`; the one that ships is of the shipped weights"
    sha256 = file_sha256(path, train)
    check_recorded(path, sha256)
    tensors, description = read_safetensors(path)
    if description.head is None:
        raise CheckpointError("it holds no uncertainty head", file=path, remedy=train)
    if description.f1_sha256 != loaded.sha256:
        raise CheckpointError(f"it was trained on other weights than {loaded.name}", file=path, remedy=train)
    head = build_from(description.head, UncertaintyHead, path, description.version, tensors)
    load_into(head, tensors, path)
    if head.feature_channels != loaded.restorer.feature_channels or not head.factor > 0:
        raise CheckpointError(f"it does not fit {loaded.name}", file=path, remedy=train)
    return Uncertainty(
        loaded=loaded,
        head=head.eval().requires_grad_(False),
        name=f"{type(head).__name__} {path.name}",
        version=description.version,
        sha256=sha256,
        provenance=description.provenance,
    )


def fitted_factor(errors: Array, deviations: Array, levels: Sequence[float] = FITTED_LEVELS) -> float:
    r"""The factor on stated deviations that makes their intervals cover what they claim.

    .. math::
        c = \frac1n \sum_\ell \frac{Q_\ell(|e| / s)}{\Phi^{-1}\big((1 + \ell)/2\big)}

    with Q the quantile. One factor can be exact for one level; where errors are not normal,
    several levels are met on average.

    Args:
        errors: e, of any shape.
        deviations: s as stated, of the same shape, above zero.
        levels: The probabilities.
    """
    from scipy.stats import norm

    found = np.quantile(np.abs(errors) / deviations, levels)
    return float(np.mean(found / norm.ppf((1 + np.asarray(levels)) / 2)))
