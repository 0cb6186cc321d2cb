"""Faint foci kept: half of what the scan holds beyond a restoration, at the camera's own blur."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rbs.inference.residual import SHARE, SIGMA_MM, keep_faint

SPACING = (2.3, 2.2)
P = 0.5


def flat(level: float, shape: tuple[int, int, int] = (2, 200, 160)) -> np.ndarray:
    return np.full(shape, level)


def test_its_noise_is_half_a_gaussian_filters() -> None:
    """Of Poisson counts behind a Gaussian the deviation is sqrt(level / (p 4 pi s^2)), s in pixels."""
    truth = flat(8.0, (2, 400, 400))
    kept = keep_faint(truth, np.random.default_rng(1).poisson(P * truth), P, SPACING)
    deviation = math.sqrt(8.0 / P / (4 * math.pi * SIGMA_MM**2 / math.prod(SPACING)))
    assert kept.dtype == np.float32
    assert kept[:, 20:-20, 20:-20].std() == pytest.approx(SHARE * deviation, rel=0.03)
    assert kept.mean() == pytest.approx(8.0, rel=1e-3)


def focus(fwhm: float, peak: float) -> np.ndarray:
    y, x = np.mgrid[:200, :160]
    far = ((y - 100) * SPACING[0]) ** 2 + ((x - 80) * SPACING[1]) ** 2
    return peak * np.exp(-4 * math.log(2) * far / fwhm**2)


@pytest.mark.parametrize("peak", [4.0, -4.0])
@pytest.mark.parametrize("fwhm", [9.0, 20.0])
def test_of_a_flattened_focus_comes_back_what_the_filter_shows_of_it(fwhm: float, peak: float) -> None:
    """A Gaussian of FWHM w behind one of sigma s keeps w^2 / (w^2 + 8 ln 2 s^2) of its peak."""
    gained = [
        keep_faint(
            flat(5.0), np.random.default_rng(seed).poisson(P * (flat(5.0) + focus(fwhm, peak))), P, SPACING
        )
        for seed in range(60)
    ]
    shown = peak * fwhm**2 / (fwhm**2 + 8 * math.log(2) * SIGMA_MM**2)
    assert np.mean(gained, axis=0)[:, 100, 80].mean() - 5 == pytest.approx(SHARE * shown, abs=0.12)


def test_counts_that_a_restorer_lost_come_half_back() -> None:
    rapid = np.random.default_rng(2).poisson(P * flat(5.0))
    assert keep_faint(flat(4.0), rapid, P, SPACING).mean() == pytest.approx(4.5, rel=0.01)


def test_rows_that_were_not_scanned_stay_empty() -> None:
    truth = flat(5.0)
    truth[:, :40] = 0
    rapid = np.random.default_rng(4).poisson(P * truth)
    assert not keep_faint(truth, rapid, P, SPACING)[:, :40].any()
