"""The metrics of the table: for each a formula, a unit, a direction, and what it is compared with.

All take an estimate in standard counts, (V, H, W) with both views aligned, and a `Target`; all are
evaluated over the body mask of both views together with the peak P, both defined once, in
`rbs.scans.body` and `rbs.scans.fidelity`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from rbs.data.anatomy import Anatomy
from rbs.scans import fidelity
from rbs.scans.body import body_mask
from rbs.scans.censoring import rarely_cut
from rbs.scans.counts import block_sums
from rbs.scans.fidelity import decibels, noise_corrected_mse, peak_counts, psnr_between, relative_error
from rbs.scans.scan import REGIONS, Array

PEAK_DEFINITION = (
    "P: 99.9th percentile, over all pixels of both views, of the standard scan smoothed with a Gaussian of "
    "4 mm sigma"
)
TRUTH, NOISY = "Against the truth", "Against the noisy standard scan"
"""Groups of metrics in print; those of neither stand under `Metric.group`'s default."""

MS_SSIM_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the scales from fine to coarse, found by asking observers (Wang et al. 2003)."""
SSIM_WINDOW = 11
"""Width of the Gaussian window of SSIM, pixels: what is left of 1.5 pixels sigma cut at 3.5
sigma."""

MIN_REGION_COUNTS = 100.0
"""Regions expected to hold fewer standard counts have no region bias: their own noise exceeds 10
%."""


@dataclass(frozen=True)
class Target:
    """Reference of the metrics of a scan.

    Attributes:
        counts: Raw counts of a scan independent of the rapid one, at its own exposure, (V, H, W).
        exposure: That exposure relative to the standard scan: 1 for a standard scan, 1-p for a
            disjoint remainder.
        spacing_mm: Row and column spacing, mm.
        expectation: Known expected standard counts of a phantom (V, H, W).
        labels: Region labels (V, H, W), 0 for background, k+1 for REGIONS[k].
        anatomy: Where a phantom has its lesions and landmarks.
        cut: Counts up to this number are not those of the camera but were drawn
            (`rbs.scans.censoring.completed`); 0 where none were cut.
    """

    counts: Array
    exposure: float
    spacing_mm: tuple[float, float]
    expectation: Array | None = None
    labels: Array | None = None
    anatomy: Anatomy | None = None
    cut: int = 0

    @cached_property
    def standard(self) -> Array:
        """The counts at standard scale, float64 (V, H, W)."""
        return self.counts.astype(np.float64) / self.exposure

    @cached_property
    def mask(self) -> Array:
        """The body, bool (V, H, W)."""
        return body_mask(self.standard, self.spacing_mm)

    @cached_property
    def judged(self) -> Array:
        """The pixels of the body whose noise is known: not those that may well have been cut."""
        return self.mask & rarely_cut(self.counts, self.cut)

    @cached_property
    def peak(self) -> float:
        """P, standard counts."""
        return peak_counts(self.standard, self.spacing_mm)

    @cached_property
    def mean_count(self) -> float:
        """λ̄, the mean standard counts over the body."""
        return float(self.standard[self.mask].mean())


@dataclass(frozen=True)
class Metric:
    """One column of the table.

    Attributes:
        name: The column.
        label: As printed.
        unit: "dB", "%", ... or "" if it has none.
        higher_is_better: None where neither is: `ideal` is best.
        reference: What the estimate is compared with.
        definition: Formula, in one sentence.
        compute: Estimate (V, H, W) standard counts and target (of frames: colours (3, H, W) and
            theirs) to a number, NaN where the target does not allow it.
        pooled_from: The column of relative errors whose mean over patients is turned into dB: the
            mean of dB may not be defined.
        printed: Whether reports show it; the CSV files hold all.
        group: Heading it is printed under.
        ideal: The best value, where `higher_is_better` is None.
        mask: The pixels it is evaluated on.
        peak: The peak or window that enters it; empty for none.
    """

    name: str
    label: str
    unit: str
    higher_is_better: bool | None
    reference: str
    definition: str
    compute: Callable[[Array, Any], float]
    pooled_from: str | None = None
    printed: bool = True
    group: str = "Further measures"
    ideal: float = 0.0
    mask: str = "body"
    peak: str = ""

    def describe(self) -> dict[str, Any]:
        """All but the function, for the settings file."""
        return {key: value for key, value in vars(self).items() if key != "compute"}


def ssim_between(estimate: Array, reference: Array, mask: Array, peak: float) -> float:
    """Mean over the mask of the SSIM map of each view.

    Wang et al., IEEE Trans Image Process 2004;13:600: Gaussian window of sigma 1.5 pixels, K1 =
    0.01, K2 = 0.03, dynamic range P, on counts as they are (neither clipped nor windowed).

    Args:
        estimate: Standard counts (V, H, W).
        reference: Standard counts (V, H, W).
        mask: bool (V, H, W).
        peak: P, standard counts.
    """
    return float(_ssim_maps(estimate, reference, peak)[mask].mean())


def ms_ssim_between(estimate: Array, reference: Array, mask: Array, peak: float) -> float:
    """Multi-scale SSIM over the mask: structure at five scales, luminance at the coarsest.

    Wang, Simoncelli, Bovik, Asilomar 2003: the product over the scales j of mean(cs_j) to the power
    w_j, at the coarsest of mean(ssim_j) to the power w_j; from scale to scale pixels are averaged
    two by two. Window and constants as in `ssim_between`; the means are over the mask of both
    views, averaged along with the pixels; a negative mean counts as zero.

    Args:
        estimate: Standard counts (V, H, W).
        reference: Standard counts (V, H, W).
        mask: bool (V, H, W).
        peak: P, standard counts.

    Returns:
        0 to 1; NaN for views narrower than 176 pixels, in which the window does not fit the
        coarsest scale.
    """
    coarsest = len(MS_SSIM_EXPONENTS) - 1
    if min(estimate.shape[1:]) >> coarsest < SSIM_WINDOW or not mask.any():
        return math.nan
    t, s, weight = (np.asarray(image, dtype=np.float64) for image in (estimate, reference, mask))
    found = 1.0
    for scale, exponent in enumerate(MS_SSIM_EXPONENTS):
        maps = _ssim_maps(t, s, peak, luminance=scale == coarsest)
        found *= max(float(np.average(maps, weights=weight)), 0.0) ** exponent
        t, s, weight = (block_sums(image, 2, 2) / 4 for image in (t, s, weight))
    return found


def _ssim_maps(estimate: Array, reference: Array, peak: float, *, luminance: bool = True) -> Array:
    """SSIM at every pixel, (V, H, W); without luminance its contrast and structure alone."""
    from skimage.metrics import structural_similarity

    maps = [
        structural_similarity(
            t.astype(np.float64),
            s.astype(np.float64),
            data_range=peak,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
            # (2ab + C) / (a² + b² + C) is one within rounding where the constant C = (K1 P)² dwarfs
            # the rest.
            K1=0.01 if luminance else 1e6,
        )[1]
        for t, s in zip(estimate, reference, strict=True)
    ]
    return np.stack(maps)


def _against(
    reference: Literal["standard", "expectation"], between: Callable[[Array, Array, Array, float], float]
) -> Callable[[Array, Target], float]:
    """A measure against the noisy standard scan, or against the known expectation: NaN without."""

    def compute(estimate: Array, target: Target) -> float:
        image = getattr(target, reference)
        return math.nan if image is None else between(estimate, image, target.mask, target.peak)

    return compute


psnr_truth = _against("expectation", psnr_between)
"""PSNR against the known expectation, dB; NaN without one."""

nmse_truth = _against("expectation", relative_error)
"""Squared error against the known expectation relative to P²; NaN without one."""


def nc_mse(estimate: Array, target: Target) -> float:
    """Noise-corrected squared error, counts². See `rbs.scans.fidelity.noise_corrected_mse`.

    Of a cut scan it is that of the pixels rarely cut; NaN where there are none.
    """
    return noise_corrected_mse(estimate, target.counts, target.exposure, target.judged)


def nc_nmse(estimate: Array, target: Target) -> float:
    """Noise-corrected squared error relative to P²."""
    return nc_mse(estimate, target) / target.peak**2


def nc_psnr(estimate: Array, target: Target) -> float:
    """Noise-corrected PSNR, dB; NaN where the noise-corrected error of the scan is not positive."""
    return decibels(nc_nmse(estimate, target))


def count_bias(estimate: Array, target: Target) -> float:
    """100 (ΣT - ΣS) / ΣS over the body, %; the noise of S alone is 100/sqrt(ΣS): 0.1 to 0.2 %."""
    return fidelity.count_bias(estimate, target.standard, target.mask)


def region_biases(estimate: Array, target: Target) -> dict[str, float]:
    """100 (ΣT - Σλ) / Σλ of each labelled region, %, over both views; {} without truth.

    Regions that are absent or expected to hold fewer than MIN_REGION_COUNTS are left out.
    """
    if target.labels is None or target.expectation is None:
        return {}
    labels = target.labels.astype(np.intp).ravel()
    size = len(REGIONS) + 1
    expected = np.bincount(labels, target.expectation.ravel(), minlength=size)
    found = np.bincount(labels, estimate.ravel(), minlength=size)
    return {
        name: float(100 * (found[k] - expected[k]) / expected[k])
        for k, name in enumerate(REGIONS, start=1)
        if expected[k] >= MIN_REGION_COUNTS
    }


def region_bias(estimate: Array, target: Target) -> float:
    """Mean over the labelled regions of the absolute bias, %; NaN without labels."""
    biases = region_biases(estimate, target)
    return float(np.mean(np.abs(list(biases.values())))) if biases else math.nan


_STANDARD = "the independent standard scan (noisy)"
_TRUTH = "the known expectation (phantoms only)"

METRICS: tuple[Metric, ...] = (
    Metric(
        "nc_psnr",
        "NC-PSNR",
        "dB",
        True,
        "the expectation, estimated through the independent standard scan",
        "10 log10(P² / (mean((T - Q/q)²) - mean(Q)/q²)): the standard scan's own noise is subtracted, so "
        "there is no ceiling; the mean over patients is taken of the relative error, before the logarithm, "
        "because one scan's estimate may be negative by chance",
        nc_psnr,
        pooled_from="nc_nmse",
        group=TRUTH,
        peak="P",
    ),
    Metric(
        "psnr_truth",
        "PSNR truth",
        "dB",
        True,
        _TRUTH,
        "10 log10(P² / mean((T - λ)²)); over patients the mean is taken of the relative error, as of NC-PSNR",
        psnr_truth,
        pooled_from="nmse_truth",
        group=TRUTH,
        peak="P",
    ),
    Metric(
        "ssim_truth",
        "SSIM truth",
        "",
        True,
        _TRUTH,
        "as SSIM, against the expectation",
        _against("expectation", ssim_between),
        group=TRUTH,
        peak="P",
    ),
    Metric(
        "ms_ssim_truth",
        "MS-SSIM truth",
        "",
        True,
        _TRUTH,
        "as MS-SSIM, against the expectation",
        _against("expectation", ms_ssim_between),
        group=TRUTH,
        peak="P",
    ),
    Metric(
        "region_bias",
        "Region bias",
        "%",
        False,
        _TRUTH,
        "mean over the labelled regions of |100 (ΣT - Σλ)/Σλ|; the aim is within 5 %",
        region_bias,
        group=TRUTH,
        mask="the labelled regions",
    ),
    Metric(
        "psnr",
        "PSNR",
        "dB",
        True,
        _STANDARD,
        "10 log10(P² / mean((T - S)²)); no method can exceed its ceiling 10 log10(P²/λ̄), λ̄ the mean count",
        _against("standard", psnr_between),
        group=NOISY,
        peak="P",
    ),
    Metric(
        "ssim",
        "SSIM",
        "",
        True,
        _STANDARD,
        "structural similarity, Gaussian window of 1.5 pixels, range P, on unclipped counts; the ceiling is "
        "that of the expectation itself, known on phantoms only",
        _against("standard", ssim_between),
        group=NOISY,
        peak="P",
    ),
    Metric(
        "ms_ssim",
        "MS-SSIM",
        "",
        True,
        _STANDARD,
        "multi-scale structural similarity (Wang et al. 2003): SSIM's contrast and structure at five scales, "
        "pixels averaged two by two from one to the next, and its luminance at the coarsest; the ceiling "
        "is that of the expectation itself; views narrower than 176 pixels have none",
        _against("standard", ms_ssim_between),
        group=NOISY,
        peak="P",
    ),
    Metric(
        "count_bias",
        "Count bias",
        "%",
        None,
        _STANDARD,
        "100 (ΣT - ΣS)/ΣS over the body; zero is best, the aim is within 2 %; decay and bladder filling "
        "between the two passes are part of it",
        count_bias,
        group=NOISY,
    ),
    Metric(
        "nc_mse",
        "NC-MSE",
        "counts²",
        False,
        "as NC-PSNR",
        "mean((T - Q/q)²) - mean(Q)/q²; may be negative",
        nc_mse,
        printed=False,
        group=TRUTH,
    ),
    Metric(
        "nc_nmse",
        "NC-MSE / P²",
        "",
        False,
        "as NC-PSNR",
        "noise-corrected squared error over P²",
        nc_nmse,
        printed=False,
        group=TRUTH,
        peak="P",
    ),
    Metric(
        "nmse_truth",
        "MSE truth / P²",
        "",
        False,
        _TRUTH,
        "mean((T - λ)²) / P²",
        nmse_truth,
        printed=False,
        group=TRUTH,
        peak="P",
    ),
)
"""Every metric that needs numbers alone; `set_metrics.lpips` adds LPIPS where its weights are."""
