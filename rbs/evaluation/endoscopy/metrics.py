"""Metrics of colour frames: against the clean frame, by networks, without reference, at a task.

All take an estimate, sRGB values (3, H, W), and a `FrameTarget`, and look at the valid area alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rbs.errors import CheckpointError
from rbs.evaluation.scans.metrics import Metric, psnr_between, ssim_between
from rbs.evaluation.set_metrics.lpips import lpips_metric
from rbs.inference.devices import torch_device
from rbs.scans.scan import Array

if TYPE_CHECKING:
    from torch import Tensor

Segment = Callable[[Array], Array]
"""From a frame (3, H, W) to where a lesion is, bool (H, W)."""

log = logging.getLogger(__name__)

VALID = "the valid area"
MASK_DEFINITION = (
    "valid area: what the endoscope saw; black borders, insets and burned-in text are left out. Elsewhere "
    "every estimate is given the colours of the clean frame, for what looks beyond single pixels"
)
PEAK_DEFINITION = "P: 1, the range of sRGB values"
CLEAN, TASK, ALONE = "Against the clean frame", "At a task", "Without a reference"
"""Groups of metrics in print."""

PATCH = 96
"""Side of the patches of NIQE, pixels, as published."""
MIN_FITTED = 40
"""Frames NIQE's 36 features are fitted to, at least."""


@dataclass(frozen=True)
class FrameTarget:
    """Reference of the metrics of a frame.

    Attributes:
        clean: The frame as it should be, float32 (3, H, W), sRGB 0..1.
        valid: False on black borders, insets and burned-in text, bool (H, W).
        lesion: Where a lesion is, bool (H, W); None without a mask.
    """

    clean: Array
    valid: Array
    lesion: Array | None = None

    @cached_property
    def mask(self) -> Array:
        """The valid pixels of every colour, bool (3, H, W)."""
        return np.broadcast_to(self.valid, self.clean.shape)


def psnr(estimate: Array, target: FrameTarget) -> float:
    """10 log10(1 / mean squared error of sRGB values), dB."""
    return psnr_between(estimate, target.clean, target.mask, 1.0)


def ssim(estimate: Array, target: FrameTarget) -> float:
    """Mean SSIM of the three colours. See `rbs.evaluation.scans.metrics.ssim_between`."""
    return ssim_between(estimate, target.clean, target.mask, 1.0)


def colour_difference(estimate: Array, target: FrameTarget) -> float:
    """Mean CIEDE2000 (Sharma et al., Color Res Appl 2005;30:21), D65; about 1 can just be seen."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    a, b = (rgb2lab(frame.transpose(1, 2, 0).astype(np.float64)) for frame in (estimate, target.clean))
    return float(deltaE_ciede2000(a, b)[target.valid].mean())


_FRAME = "the clean frame"

METRICS: tuple[Metric, ...] = (
    Metric(
        "psnr",
        "PSNR",
        "dB",
        True,
        _FRAME,
        "10 log10(1 / mean((T - S)²)) of the sRGB values of all three colours",
        psnr,
        group=CLEAN,
        mask=VALID,
        peak="P",
    ),
    Metric(
        "ssim",
        "SSIM",
        "",
        True,
        _FRAME,
        "structural similarity, Gaussian window of 1.5 pixels, range 1, mean of the three colours",
        ssim,
        group=CLEAN,
        mask=VALID,
        peak="P",
    ),
    Metric(
        "delta_e",
        "Colour difference",
        "ΔE",
        False,
        _FRAME,
        "mean CIEDE2000 of the pixels; about 1 can just be seen",
        colour_difference,
        group=CLEAN,
        mask=VALID,
    ),
)
"""Every metric that needs nothing but numbers."""


def lpips_of_frames() -> Metric | None:
    """LPIPS of colour frames; see `rbs.evaluation.set_metrics.lpips.lpips_metric`."""
    return lpips_metric(
        lambda estimate, target: (2 * estimate[None] - 1, 2 * target.clean[None] - 1),
        reference=_FRAME,
        definition="LPIPS-alex v0.1 of the whole frame at its own size",
        group=CLEAN,
        mask="the whole frame",
    )


def dice_metric(segment: Segment, digest: str) -> Metric:
    """Dice of the lesion that a fixed segmenter finds in a restored frame.

    Args:
        segment: The segmenter, the same for every row.
        digest: What identifies it.
    """

    def compute(estimate: Array, target: FrameTarget) -> float:
        if target.lesion is None or not (target.lesion & target.valid).any():
            return math.nan
        found, marked = segment(estimate) & target.valid, target.lesion & target.valid
        return float(2 * (found & marked).sum() / (found.sum() + marked.sum()))

    definition = (
        "2 |A and B| / (|A| + |B|) of the lesion that the segmenter finds in T and the one that was marked; "
        f"frames without a marked lesion have none. The segmenter, {digest[:12]}, is the same for every row"
    )
    reference = "the lesion that was marked"
    return Metric("dice", "Dice of lesions", "", True, reference, definition, compute, group=TASK, mask=VALID)


def load_lesion_finder(path: Path, base_checkpoint: Path | None = None) -> tuple[Segment, str]:
    """A segmenter of frames as a function from a frame to its lesions.

    Args:
        path: Its file, or the folder of a SAM that was adapted to frames.
        base_checkpoint: SAM's base weights that it was adapted from; None for the shipped or
            downloaded ones.

    Returns:
        The function, and what identifies its weights.

    Raises:
        CheckpointError: It cannot be loaded, or was trained on scans.
    """
    from rbs.segmentation.checkpoint import load_segmenter

    loaded = load_segmenter(path, base_checkpoint)
    if loaded.segmenter.images.shows != "frames":
        fault = "this segmenter was trained on scans"
        remedy = "adapt SAM to frames with `make adapt-sam DATA=endoscopy`"
        raise CheckpointError(fault, file=path, remedy=remedy)
    loaded.segmenter.to(torch_device("auto"))

    def segment(frame: Array) -> Array:
        found: Array = loaded.probabilities(frame, 1.0, (1.0, 1.0))[0].argmax(axis=0) == 1
        return found

    return segment, loaded.sha256


def niqe_metric(clean: Iterable[FrameTarget]) -> Metric | None:
    """NIQE (Mittal et al., IEEE Signal Process Lett 2013;20:209), fitted to clean frames.

    The published model was fitted to photographs of landscapes and streets and has to be
    downloaded; this one is fitted, by deepinv, to frames that are known to be good.

    Args:
        clean: Frames of the training split; each is looked at once.

    Returns:
        None, with a line in the log, where there are too few.
    """
    import torch
    from deepinv.loss.metric import NIQE

    frames = [x for x in (_whole_patches(target.clean, target) for target in clean) if x is not None]
    if len(frames) < MIN_FITTED:
        log.warning(
            "NIQE is left out: fewer than %d training frames are large enough to fit it to", MIN_FITTED
        )
        return None
    # In single precision the inverse of a covariance of 36 features now and then gives no number.
    model = NIQE(weights_path=None, patch_size=PATCH, dtype=torch.float64)
    model.create_weights(frames)

    def compute(estimate: Array, target: FrameTarget) -> float:
        seen = _whole_patches(estimate, target)
        if seen is None:
            return math.nan
        with torch.inference_mode():
            return float(model(seen[None]).item())

    definition = (
        f"distance of the statistics of natural scenes in patches of {PATCH} pixels from those of "
        f"{len(frames)} clean training frames; not the published model: values compare with each other only"
    )
    mask = "the rectangle about the valid area"
    return Metric("niqe", "NIQE", "", False, "nothing", definition, compute, group=ALONE, mask=mask)


def _whole_patches(frame: Array, target: FrameTarget) -> Tensor | None:
    """Bounding box of the valid area, (3, h, w), 0..255; None where it holds no two patches."""
    import torch

    rows, columns = (np.flatnonzero(target.valid.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    cut = frame[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if (cut.shape[1] // PATCH) * (cut.shape[2] // PATCH) < 2:
        return None
    return torch.from_numpy(np.ascontiguousarray(255 * cut, dtype=np.float64))
