"""Faint foci kept: what is given back is the scan's own surplus, and nothing else changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from rbs import faint
from rbs.faint import SCALES_MM, SHARE, THRESHOLD, keep_faint

SPACING = (2.3, 2.2)
P = 0.5


def flat(level: float, shape: tuple[int, int, int] = (2, 200, 160)) -> np.ndarray:
    return np.full(shape, level)


def test_of_noise_comes_back_what_a_soft_threshold_lets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variance of (z - z0)+ has a closed form for normal z, as has that of smoothed Poisson counts."""
    scale, level = 6.0, 8.0
    monkeypatch.setattr(faint, "SCALES_MM", (scale,))
    truth = flat(level, (2, 400, 400))
    rapid = np.random.default_rng(1).poisson(P * truth)
    back = keep_faint(truth, rapid, P, SPACING) - truth
    z0, tail = THRESHOLD, norm.sf(THRESHOLD)
    mean = norm.pdf(z0) - z0 * tail
    variance = (1 + z0**2) * tail - z0 * norm.pdf(z0) - mean**2
    deviation = math.sqrt(level / P / (4 * math.pi * scale**2 / math.prod(SPACING)))
    inner = back[:, 20:-20, 20:-20]
    assert inner.std() == pytest.approx(SHARE * deviation * math.sqrt(variance), rel=0.03)
    assert inner.mean() == pytest.approx(0, abs=0.02 * deviation)


def test_the_total_stays_as_it_was() -> None:
    truth = flat(3.0)
    truth[:, 90:96, 70:76] += 20
    rapid = np.random.default_rng(2).poisson(P * truth)
    kept = keep_faint(flat(3.0), rapid, P, SPACING)
    assert kept.dtype == np.float32
    assert kept.sum(dtype=float) == pytest.approx(flat(3.0).sum(), rel=1e-5)
    assert (kept >= 0).all()


@pytest.mark.parametrize("fwhm", [9.0, 20.0])
def test_a_focus_that_was_flattened_comes_back(fwhm: float) -> None:
    y, x = np.mgrid[:200, :160]
    far = ((y - 100) * SPACING[0]) ** 2 + ((x - 80) * SPACING[1]) ** 2
    focus = 4.0 * np.exp(-4 * math.log(2) * far / fwhm**2)
    gained = []
    for seed in range(20):
        rapid = np.random.default_rng(seed).poisson(P * (flat(5.0) + focus))
        kept = keep_faint(flat(5.0), rapid, P, SPACING)
        gained.append(kept[:, 99:102, 79:82].mean() - kept[:, 20:180, 20:60].mean())
    assert 0.25 * 4 < np.mean(gained) < 4
    rapid = np.random.default_rng(0).poisson(P * flat(5.0))
    assert abs(keep_faint(flat(5.0), rapid, P, SPACING)[:, 99:102, 79:82].mean() - 5) < 0.25 * 4


def test_a_restoration_that_explains_the_counts_is_left_alone() -> None:
    rapid = np.random.default_rng(3).poisson(P * flat(5.0))
    smooth = rapid / P
    np.testing.assert_allclose(keep_faint(smooth, rapid, P, SPACING), smooth, rtol=1e-6)


def test_rows_that_were_not_scanned_stay_empty_and_nothing_gives_nothing() -> None:
    truth = flat(5.0)
    truth[:, :40] = 0
    rapid = np.random.default_rng(4).poisson(P * truth)
    assert not keep_faint(truth, rapid, P, SPACING)[:, :40].any()
    nothing = keep_faint(flat(0.0), np.zeros((2, 200, 160), int), P, SPACING)
    assert not nothing.any()
    assert np.isfinite(nothing).all()


def test_the_scales_are_those_of_the_foci_that_observers_are_asked_for() -> None:
    from rbs.evaluation.lesions import CAMERA_FWHM_MM
    from rbs.evaluation.studies import FOCUS_SIZES_MM

    seen = [math.hypot(size, CAMERA_FWHM_MM) for size in FOCUS_SIZES_MM]
    widths = [2 * math.sqrt(2 * math.log(2)) * scale for scale in SCALES_MM]
    assert min(seen) == pytest.approx(min(widths), rel=0.1)
    assert max(seen) == pytest.approx(max(widths), rel=0.15)
