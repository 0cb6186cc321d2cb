"""Thinning, splitting, dispersion and the Anscombe pair against closed forms and a real scan."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from scipy.ndimage import gaussian_filter, zoom
from scipy.stats import chisquare, poisson

from rbs.degradation.thinning import Thinning, split
from rbs.errors import ScanError
from rbs.scans.counts import anscombe, dispersion_index, inverse_anscombe, standard_scale


def test_thinned_poisson_counts_are_poisson_and_independent_of_the_rest() -> None:
    rng = np.random.default_rng(1)
    counts = rng.poisson(4.0, (400, 400)).astype(np.int32)
    kept = Thinning(0.25)(counts, rng)
    rest = counts - kept
    observed = np.bincount(kept.ravel(), minlength=6)
    expected = poisson.pmf(np.arange(6), 1.0) * counts.size
    assert kept.dtype == np.int32
    assert (rest >= 0).all()
    assert chisquare(observed[:6], expected * observed[:6].sum() / expected.sum()).pvalue > 1e-3
    assert abs(np.corrcoef(kept.ravel(), rest.ravel())[0, 1]) < 4 / 400


def test_parts_are_disjoint_and_hold_their_shares() -> None:
    rng = np.random.default_rng(2)
    counts = rng.poisson(30.0, (100, 100))
    parts = split(counts, (0.2, 0.3, 0.5), rng)
    np.testing.assert_array_equal(sum(parts), counts)
    shares = [part.sum() / counts.sum() for part in parts]
    np.testing.assert_allclose(shares, (0.2, 0.3, 0.5), atol=4 * 0.5 / np.sqrt(counts.sum()))
    leftover = counts - sum(split(counts, (0.2, 0.3), rng))
    assert leftover.sum() / counts.sum() == pytest.approx(0.5, abs=0.005)


def test_thinning_by_everything_or_nothing() -> None:
    counts = np.array([[0, 5], [70_000, 1]])
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(Thinning(1.0)(counts, rng), counts)
    assert not Thinning(0.0)(counts, rng).any()


@pytest.mark.parametrize("exposures", [(0.6, 0.5), (-0.1,), (1.2,), (float("nan"),)])
def test_fractions_that_are_no_shares_are_refused(exposures: tuple[float, ...]) -> None:
    with pytest.raises(ScanError, match="shares"):
        split(np.ones((2, 2), int), exposures, np.random.default_rng(0))


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan])
def test_only_whole_counts_can_be_thinned(value: float) -> None:
    with pytest.raises(ScanError, match="whole"):
        Thinning(0.5)(np.array([[value]]), np.random.default_rng(0))


@pytest.mark.parametrize("mean", [0.1, 1.0, 10.0])
def test_dispersion_is_one_for_poisson_counts_and_the_scale_otherwise(mean: float) -> None:
    counts = np.random.default_rng(3).poisson(mean, (2, 300, 200))
    assert dispersion_index(counts) == pytest.approx(1, abs=0.03)
    assert dispersion_index(2 * counts) == pytest.approx(2, abs=0.1)
    assert dispersion_index(gaussian_filter(counts.astype(float), (0, 1, 1))) < 0.3
    assert dispersion_index(zoom(counts[0].astype(float), 1.5, order=1)) < 0.8


def test_dispersion_survives_a_steep_hot_spot() -> None:
    y, x = np.mgrid[:512, :256]
    expectation = 1 + 5000 * np.exp(-((x - 128) ** 2 + (y - 256) ** 2) / 8)
    assert dispersion_index(np.random.default_rng(4).poisson(expectation)) == pytest.approx(1, abs=0.05)


def test_dispersion_says_nothing_without_enough_counts() -> None:
    assert np.isnan(dispersion_index(np.zeros((1, 200, 200), int)))
    assert np.isnan(dispersion_index(np.full((10, 10), 500)))


def test_dispersion_of_a_real_scan_and_of_thinned_ones(real_scan: Path) -> None:
    counts = pydicom.dcmread(real_scan).pixel_array
    rng = np.random.default_rng(5)
    assert dispersion_index(counts) == pytest.approx(1, abs=0.06)
    for exposure in (0.5, 0.25, 0.05):
        assert dispersion_index(Thinning(exposure)(counts, rng)) == pytest.approx(1, abs=0.06)
    assert dispersion_index(np.rint(255 * np.minimum(counts / 60, 1) ** 0.5)) > 1.2
    assert dispersion_index(np.rint(counts / 3)) < 0.8


def test_anscombe_stabilises_the_variance() -> None:
    values = anscombe(np.random.default_rng(6).poisson(20.0, 200_000))
    assert values.var() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("mean", [0, 0.01, 0.3, 1, 2.7, 10, 50, 99.99, 100.01, 400])
def test_inverse_anscombe_is_exact_and_unbiased(mean: float) -> None:
    x = np.arange(2000)
    transformed = (poisson.pmf(x, mean) * anscombe(x)).sum()
    assert float(inverse_anscombe(transformed)) == pytest.approx(mean, abs=1e-3)


def test_inverse_anscombe_is_zero_below_zero_counts_and_keeps_the_shape() -> None:
    z = np.array([[-1.0, 0.0], [1.2247, 30.0]])
    counts = inverse_anscombe(z)
    assert counts.shape == z.shape
    np.testing.assert_allclose(counts[0], 0)
    assert counts[1, 0] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("exposure", [0.4, np.float64(0.4), np.float32(0.4)])
def test_standard_scale_is_counts_over_exposure_in_the_precision_of_the_counts(exposure) -> None:
    counts = np.random.default_rng(3).poisson(5.0, (2, 8, 6)).astype(np.float32)
    scaled = standard_scale(counts, exposure)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, counts / np.float32(0.4))


def test_each_scan_of_a_batch_has_its_own_exposure() -> None:
    counts = torch.poisson(torch.full((2, 2, 8, 6), 5.0))
    scaled = standard_scale(counts, torch.tensor([0.5, 0.25]))
    assert torch.equal(scaled, torch.stack([2 * counts[0], 4 * counts[1]]))
