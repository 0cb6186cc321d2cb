"""Strengths of a restoration: the smooth residual put back, and what is stated of the result."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from rbs.inference import strengths
from rbs.inference.strengths import ERROR_LEFT, SIGMA_MM, Strength, apply, deviation, put_back
from rbs.scans.counts import block_sums

SPACING = (2.3, 2.2)
P = 0.5
WEAKER = [strength for strength in Strength if strength.share]


def flat(level: float, shape: tuple[int, int, int] = (2, 200, 160)) -> np.ndarray:
    return np.full(shape, level)


def counted(expectation: np.ndarray, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).poisson(P * expectation)


def filtered(counts: np.ndarray) -> np.ndarray:
    return gaussian_filter(counts.astype(float), (0, *(SIGMA_MM / mm for mm in SPACING)), mode="reflect")


def focus(fwhm: float, peak: float) -> np.ndarray:
    y, x = np.mgrid[:200, :160]
    far = ((y - 100) * SPACING[0]) ** 2 + ((x - 80) * SPACING[1]) ** 2
    return peak * np.exp(-4 * math.log(2) * far / fwhm**2)


def test_the_dial_has_an_order() -> None:
    assert [str(strength) for strength in Strength] == ["gentle", "standard", "strong"]
    assert Strength.GENTLE.share > Strength.STANDARD.share >= Strength.STRONG.share == 0
    assert Strength("gentle") is Strength.GENTLE


def test_strong_is_the_restorers_own_answer() -> None:
    own, s, rapid = flat(4.0), flat(0.3), counted(flat(5.0))
    np.testing.assert_array_equal(apply(Strength.STRONG, own, rapid, P, SPACING), own)
    np.testing.assert_array_equal(deviation(Strength.STRONG, s, rapid, P, SPACING), s)


@pytest.mark.parametrize("strength", WEAKER)
def test_the_noise_put_back_is_its_share_of_a_gaussian_filters(strength: Strength) -> None:
    """Of Poisson counts behind a Gaussian the deviation is sqrt(level / (p 4 pi s^2)), s in pixels.

    Of an answer without error it is all that is stated, too.
    """
    truth = flat(8.0, (2, 400, 400))
    rapid = counted(truth)
    given = apply(strength, truth, rapid, P, SPACING)
    expected = strength.share * math.sqrt(8.0 / P / (4 * math.pi * SIGMA_MM**2 / math.prod(SPACING)))
    inner = np.s_[:, 20:-20, 20:-20]
    assert given.dtype == np.float32
    assert given[inner].std() == pytest.approx(expected, rel=0.03)
    assert given.mean() == pytest.approx(8.0, rel=1e-3)
    stated = deviation(strength, 0 * truth, rapid, P, SPACING)
    assert stated.dtype == np.float32
    assert np.sqrt((stated[inner] ** 2).mean()) == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_the_deviation_of_the_best_linear_estimate(share: float, monkeypatch) -> None:
    """Of levels of variance v, counted with noise of variance n, it is m + v (x - m) / (v + n).

    Its error has the variance vn / (v + n) in every pixel, and what the filter leaves of it is the
    sum of its squared weights.
    """
    left = math.prod(SPACING) / (4 * math.pi * SIGMA_MM**2)
    monkeypatch.setattr("rbs.inference.strengths.ERROR_LEFT", left)
    monkeypatch.setitem(strengths._SHARES, Strength.GENTLE, share)
    rng, mean, v = np.random.default_rng(3), 40.0, 5.0
    levels = np.maximum(mean + math.sqrt(v) * rng.standard_normal((2, 300, 300)), 0)
    rapid = rng.poisson(P * levels)
    n = mean / P
    best = mean + v / (v + n) * (rapid / P - mean)
    error = apply(Strength.GENTLE, best, rapid, P, SPACING) - levels
    stated = deviation(Strength.GENTLE, flat(math.sqrt(v * n / (v + n)), rapid.shape), rapid, P, SPACING)
    assert error.std() == pytest.approx(np.sqrt((stated**2).mean()), rel=0.01)


def test_noise_below_what_the_restorer_owns_up_to_takes_nothing_away() -> None:
    own = flat(3.0)
    assert ERROR_LEFT * 3.0**2 > 5 / P / 10
    stated = deviation(Strength.GENTLE, own, counted(flat(5.0)), P, SPACING)
    np.testing.assert_allclose(stated, own, rtol=1e-6)


@pytest.mark.parametrize("strength", WEAKER)
@pytest.mark.parametrize("peak", [4.0, -4.0])
@pytest.mark.parametrize("fwhm", [9.0, 20.0])
def test_a_flattened_focus_comes_back_as_the_filter_shows_it(
    strength: Strength, peak: float, fwhm: float
) -> None:
    """A Gaussian of FWHM w behind one of sigma s keeps w^2 / (w^2 + 8 ln 2 s^2) of its peak."""
    there = P * (flat(5.0) + focus(fwhm, peak))  # what is counted on average
    shown = peak * fwhm**2 / (fwhm**2 + 8 * math.log(2) * SIGMA_MM**2)
    given = apply(strength, flat(5.0), there, P, SPACING)
    np.testing.assert_allclose(given[:, 100, 80] - 5, strength.share * shown, rtol=0.01)


def test_the_response_to_a_faint_focus_is_linear() -> None:
    rapid = counted(flat(20.0))

    def response(peak: float) -> np.ndarray:
        plain, with_it = (
            apply(Strength.GENTLE, flat(20.0), counts, P, SPACING).astype(float)
            for counts in (rapid, rapid + P * focus(9.0, peak))
        )
        return with_it - plain

    np.testing.assert_allclose(response(3.0), 3 * response(1.0), atol=1e-5)
    assert response(1.0).max() > 0.1


def test_counts_that_a_restorer_lost_come_back_by_its_share() -> None:
    given = apply(Strength.GENTLE, flat(4.0), counted(flat(5.0), 2), P, SPACING)
    assert given.mean() == pytest.approx(4 + Strength.GENTLE.share, rel=0.01)


@pytest.mark.parametrize("strength", [Strength.GENTLE, Strength.STANDARD])
def test_on_finer_pixels_the_sums_get_what_they_would_get(strength: Strength) -> None:
    rapid, answer = counted(flat(5.0), 2), flat(4.0)
    coarse = apply(strength, answer, rapid, P, SPACING)
    quarters = np.repeat(np.repeat(answer / 4, 2, axis=1), 2, axis=2)
    fine = apply(strength, quarters, rapid, P, SPACING)
    assert fine.shape == (*rapid.shape[:1], *(2 * side for side in rapid.shape[1:]))
    assert fine.sum() == pytest.approx(coarse.sum(), rel=1e-4)
    np.testing.assert_allclose(block_sums(fine, 2, 2), coarse, rtol=0.02)


def test_rows_that_were_not_scanned_stay_empty() -> None:
    truth = flat(5.0)
    truth[:, :40] = 0
    rapid = counted(truth, 4)
    assert not apply(Strength.GENTLE, truth, rapid, P, SPACING)[:, :40].any()
    assert not deviation(Strength.GENTLE, truth, rapid, P, SPACING)[:, :40].any()


def test_the_smooth_part_is_put_back() -> None:
    rapid, nothing = counted(flat(4.0)), flat(0.0)
    np.testing.assert_allclose(put_back(nothing, rapid, P, SPACING), filtered(rapid / P))
    np.testing.assert_allclose(put_back(nothing, rapid, P, SPACING, 0.3), 0.3 * filtered(rapid / P))
    np.testing.assert_allclose(put_back(rapid / P, rapid, P, SPACING), rapid / P)


def test_nothing_is_below_zero() -> None:
    assert put_back(flat(9.0), np.zeros(flat(9.0).shape), P, SPACING, 2.0).min() == 0
