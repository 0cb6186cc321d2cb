"""LPIPS (Zhang et al., CVPR 2018, arXiv 1801.03924), by its authors' package, as one more `Metric`.

A texture metric learned on photographs: it rewards noise of the right texture, so it is no measure
of truth.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rbs.evaluation.scans.metrics import NOISY, Metric, Target
from rbs.scans.scan import Array
from rbs.weights.external import ALEXNET, PUT_ALEXNET, find, load_alexnet

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


def display_grey(counts: Array, peak: float) -> Array:
    """Inverse grey of a bone scan: 1 (white) at zero counts, linear, -1 (black) at P and above.

    Args:
        counts: Standard counts, any shape.
        peak: P, standard counts.
    """
    return 1 - 2 * np.clip(counts / peak, 0, 1)


def load_lpips(backbone: Path) -> torch.nn.Module:
    """The lpips package's LPIPS-alex v0.1 with an AlexNet read from a file.

    Args:
        backbone: State dict with torchvision's keys features.*.

    Raises:
        CheckpointError: The file is no AlexNet.
    """
    import lpips

    features = load_alexnet(backbone).state_dict()
    with warnings.catch_warnings():
        # lpips 0.1.4 calls torchvision with the arguments of 2021.
        warnings.simplefilter("ignore", UserWarning)
        model = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    # lpips cuts AlexNet into slices but keeps torchvision's layer numbers: slice2.3.weight
    model.net.load_state_dict({key: features[key.split(".", 1)[1]] for key in model.net.state_dict()})
    return model.eval().requires_grad_(False)


def lpips_metric(shown: Callable[[Any, Any], tuple[Array, Array]], **words: Any) -> Metric | None:
    """LPIPS as a metric; None, with a line in the log, where the backbone's weights are missing.

    Args:
        shown: Estimate and target to the pictures compared, each float (N, 3, H, W), -1..1; the
            score is the mean over N.
        words: Reference, definition, group, mask and peak of the metric.
    """
    backbone = find(*ALEXNET)
    if backbone is None:
        log.warning("LPIPS is left out: %s", PUT_ALEXNET)
        return None
    model = load_lpips(backbone)

    def compute(estimate: Array, target: Any) -> float:
        import torch

        pictures = (torch.from_numpy(x).float() for x in shown(estimate, target))
        with torch.inference_mode():
            # One at a time: both views of a whole scan would need twice the memory.
            scores = [model(a[None], b[None]).item() for a, b in zip(*pictures, strict=True)]
        return float(np.mean(scores))

    return Metric("lpips", "LPIPS", "", False, compute=compute, **words)


def lpips_of_scans() -> Metric | None:
    """LPIPS of inverse-grey views; see `lpips_metric`."""

    def shown(estimate: Array, target: Target) -> tuple[Array, Array]:
        pictures = (display_grey(x, target.peak)[:, None] for x in (estimate, target.standard))
        a, b = (np.repeat(x, 3, axis=1) for x in pictures)
        return a, b

    return lpips_metric(
        shown,
        reference="the independent standard scan (noisy)",
        definition="LPIPS-alex v0.1 on the inverse-grey picture, window [0, P], whole views, mean of both",
        group=NOISY,
        mask="whole views",
        peak="window [0, P]",
    )
