"""The second restorer of a cascade on whole scans and frames, with a prior as in its training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from rbs.scans.scan import Array

if TYPE_CHECKING:
    from torch import Tensor

    from rbs.distillation.cascade import Cascade
    from rbs.distillation.prior_cache import PriorCache
    from rbs.restorers.base import Restorer
    from rbs.restorers.image_domain import Domain
    from rbs.segmentation.prior import SemanticPrior
    from rbs.segmentation.segmenter import Segmenter

Other = Callable[[], Array | None]
"""Gives another patient's labels on the grid of a pair, (V, H, W); None where one has none."""

PriorOf = Callable[[Any, Other], Any]
"""From a pair to the prior argument of `Cascade`; None where that does not exist."""


def second_restoration(
    cascade: Cascade, prior_of: PriorOf | None, device: str
) -> Callable[[Any, Other], Array | None]:
    """A function of a pair that gives I2, laid out as it; None where its prior does not exist.

    Args:
        cascade: In evaluation mode, on the device.
        prior_of: Its priors; None for a cascade without SPI.
        device: Of the networks.
    """
    import torch

    def restore(pair: Any, other: Other) -> Array | None:
        x, exposure, _ = _tensors(pair, device)
        with torch.inference_mode():
            prior = None if prior_of is None else prior_of(pair, other)
            if prior is None and prior_of is not None:
                return None
            restored = cascade(x, exposure, prior).i2
        return None if restored is None else restored[0].float().cpu().numpy()

    return restore


def labelled_priors(source: str, images: Domain, device: str) -> PriorOf:
    """Priors of true masks: those of the pair ("truth"), or of another patient ("placebo").

    Args:
        source: As of `rbs.tasks.priors.PriorConfig`.
        images: Domain of what is restored.
        device: Of the networks.
    """
    import torch

    from rbs.segmentation.prior import SemanticPrior

    def prior_of(pair: Any, other: Other) -> SemanticPrior | None:
        labels = labels_of(pair) if source == "truth" else other()
        if labels is None:
            return None
        own = torch.as_tensor(np.ascontiguousarray(labels), device=device)[None]
        return SemanticPrior.of_labels(own, images)

    return prior_of


def segmented_priors(
    segmenter: Segmenter,
    stage1: Restorer,
    device: str,
    *,
    online: bool = False,
    cache: PriorCache | None = None,
) -> PriorOf:
    """Priors that a segmenter gives of the whole image as the frozen stage 1 restores it.

    Args:
        segmenter: On the device.
        stage1: On the device.
        device: Of both.
        online: Of the image as the first restorer of the cascade restores it instead.
        cache: Keeps them by the raw image, as trainings do; None computes each.
    """

    def prior_of(pair: Any, _: Other) -> SemanticPrior | Callable[[Tensor], SemanticPrior]:
        x, exposure, spacing = _tensors(pair, device)
        if online:
            return lambda i1: segmenter.prior(i1, exposure, spacing)

        def compute(*_: Any) -> SemanticPrior:
            return segmenter.prior(stage1(x, exposure), exposure, spacing)

        if cache is None:
            return compute()
        image, p = pair.network_input
        raw = getattr(pair, "rapid", image)
        return cache.get_or_compute(raw, p, pair.spacing_mm, compute).decoded().to(device)

    return prior_of


def labels_of(pair: Any) -> Array | None:
    """Region labels of a pair, (V, H, W): of a scan its regions, of a frame its lesion."""
    if not hasattr(pair.target, "lesion"):
        regions: Array | None = pair.target.labels
        return regions
    lesion: Array | None = pair.target.lesion
    return None if lesion is None else lesion[None].astype(np.uint8)


def _tensors(pair: Any, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Image (1, C, H, W), exposure (1,) and spacing, mm, (1, 2)."""
    import torch

    from rbs.segmentation.segmenter import facts_of

    image, exposure = pair.network_input
    x = torch.as_tensor(image, dtype=torch.float32, device=device)
    return x[None], *facts_of(exposure, pair.spacing_mm, device)
