"""The mathematics of cut counts, against simulation."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import poisson

from rbs.degradation.thinning import split
from rbs.losses import PoissonDeviance
from rbs.scans.censoring import completed, cut_counts, expected, local_mean, rarely_cut
from rbs.scans.fidelity import noise_corrected_mse


def body() -> np.ndarray:
    """Expected counts of a body of 3 a pixel with a spine and ribs of up to 20, air around it."""
    y, x = np.mgrid[:192, :160]
    image = 3.0 * ((x - 80) ** 2 / 50**2 + (y - 96) ** 2 / 70**2 < 1)
    image += image * (4.0 * (np.abs(x - 80) < 6) + 1.5 * (np.sin(y / 6.0) > 0.6))
    return gaussian_filter(image, 1.5)[None]


def slope(mean: float, counts: np.ndarray, weights: np.ndarray, cut: int) -> float:
    """Derivative by the estimate of the expected loss, over targets each of its own probability."""
    estimate = torch.full((1, 1, 1, 1), mean, dtype=torch.float64, requires_grad=True)
    loss, exposure = PoissonDeviance(epsilon=1e-9), torch.ones(1, dtype=torch.float64)
    targets = torch.from_numpy(counts.astype(np.float64)).view(-1, 1, 1, 1, 1)
    terms = [loss(estimate, target, exposure, torch.tensor([cut])) for target in targets]
    (torch.from_numpy(weights) @ torch.stack(terms)).backward()
    return float(estimate.grad)


@pytest.mark.parametrize("cut", [1, 2, 4])
@pytest.mark.parametrize("truth", [0.4, 2.0, 5.0])
def test_the_censored_loss_is_least_at_the_true_mean(cut: int, truth: float) -> None:
    counts = np.arange(40)
    weights, kept = poisson.pmf(counts, truth), cut_counts(counts, cut)
    assert slope(truth, kept, weights, cut) == pytest.approx(0, abs=1e-6)
    assert slope(0.9 * truth, kept, weights, cut) < -1e-6 < 1e-6 < slope(1.1 * truth, kept, weights, cut)
    # Pixels left out by their own count have a larger least mean, zeros taken for counts a smaller.
    assert slope(truth, kept, weights * (kept > 0), 0) < -1e-4
    assert slope(truth, kept, weights, 0) > 1e-4


@pytest.mark.parametrize("cut", [1, 2])
def test_the_loss_is_the_likelihood(cut: int) -> None:
    for mean in (0.01, 0.5, 3.0, 30.0, 200.0):
        estimate = torch.full((1, 1, 1, 1), mean, dtype=torch.float64)
        found = PoissonDeviance(epsilon=1e-12)(
            estimate, torch.zeros_like(estimate), torch.ones(1), torch.tensor([cut])
        )
        assert float(found) == pytest.approx(-poisson.logcdf(cut, mean), rel=1e-6)


def test_targets_that_are_not_cut_have_the_loss_they_always_had() -> None:
    rng = np.random.default_rng(0)
    estimate = torch.from_numpy(rng.gamma(2.0, 2.0, (3, 2, 8, 8))).float()
    target, exposure = torch.poisson(estimate), torch.tensor([0.3, 0.5, 1.0])
    plain = PoissonDeviance()(estimate, target, exposure)
    assert torch.equal(plain, PoissonDeviance()(estimate, target, exposure, torch.zeros(3, dtype=torch.long)))


@pytest.mark.parametrize("cut", [1, 2])
def test_parts_of_a_cut_scan_are_independent_cut_scans(cut: int) -> None:
    rng = np.random.default_rng(1)
    counts = rng.poisson(3.0, 400_000)
    r, q = split(cut_counts(counts, cut), (0.4, 0.6), rng, cut)
    for part, mean in ((r, 1.2), (q, 1.8)):
        assert not ((part > 0) & (part <= cut)).any()
        assert (part == 0).mean() == pytest.approx(poisson.cdf(cut, mean), abs=0.003)
        for n in range(cut + 1, 7):
            assert (part == n).mean() == pytest.approx(poisson.pmf(n, mean), abs=0.003)
    assert abs(np.corrcoef(r, q)[0, 1]) < 4 / np.sqrt(len(r))
    assert abs(np.corrcoef(r == 0, q == 0)[0, 1]) < 4 / np.sqrt(len(r))


def test_parts_without_the_cut_would_not_be() -> None:
    """Zeros dealt out as if they were counts: the faster scan would seem to have too few."""
    rng = np.random.default_rng(1)
    r, q = split(cut_counts(rng.poisson(3.0, 400_000), 2), (0.4, 0.6), rng)
    assert np.corrcoef(r, q)[0, 1] > 0.1


@pytest.mark.parametrize(("cut", "tolerance"), [(1, 0.015), (2, 0.05)])
def test_completed_counts_are_those_of_the_scan(cut: int, tolerance: float) -> None:
    truth = np.repeat(body(), 2, axis=0)
    counts = np.random.default_rng(2).poisson(truth)
    whole = completed(cut_counts(counts, cut), cut)
    assert (whole[counts > cut] == counts[counts > cut]).all()
    assert whole[counts <= cut].max() <= cut
    assert whole.sum() == pytest.approx(counts.sum(), rel=tolerance)
    inside = truth > 1.5
    assert (whole[inside] - truth[inside]).var() == pytest.approx(truth[inside].mean(), rel=0.03)
    # Air stays empty, and the draw is always the same.
    assert whole[truth < 1e-6].mean() < 2 * tolerance
    assert (completed(cut_counts(counts, cut), cut) == whole).all()
    mean = expected(counts, cut, truth)
    assert mean.sum() == pytest.approx(counts.sum(), rel=0.01)


def test_the_local_mean_of_a_flat_scan_is_its_mean() -> None:
    for mean, cut in ((0.3, 1), (1.0, 2), (8.0, 2)):
        counts = np.random.default_rng(3).poisson(mean, (1, 256, 256))
        for own in (True, False):
            assert local_mean(counts, cut, own=own).mean() == pytest.approx(mean, rel=0.1)


@pytest.mark.parametrize("cut", [1, 2])
def test_the_noise_corrected_error_of_a_cut_scan_is_the_true_one(cut: int) -> None:
    """Chosen by neighbours it is right; chosen by the pixel's own count it is far off."""
    truth = 1.5 * body()
    estimate = gaussian_filter(truth, (0, 1.2, 1.2))
    rng = np.random.default_rng(4)
    found, true, uncut, by_own = [], [], [], []
    for _ in range(20):
        counts = rng.poisson(truth)
        kept = cut_counts(counts, cut)
        judged, own = rarely_cut(kept, cut), kept > 0
        found.append(noise_corrected_mse(estimate, completed(kept, cut), 1.0, judged))
        uncut.append(noise_corrected_mse(estimate, counts, 1.0, judged))
        true.append(((estimate - truth)[judged] ** 2).mean())
        by_own.append(noise_corrected_mse(estimate, kept, 1.0, own))
        assert 0.1 < judged[truth > 3].mean() < 1
    error = np.std(uncut) / np.sqrt(20)
    assert np.mean(found) == pytest.approx(np.mean(true), abs=0.02 * np.mean(true) + 3 * error)
    assert np.mean(by_own) < 0.5 * np.mean(true)
