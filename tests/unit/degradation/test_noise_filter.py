"""The filter before export, found in noise; counts drawn through it; parts of scans."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from rbs.degradation.noise_filter import WHITE, NoiseFilter, estimate_noise_filter, finest_power
from rbs.degradation.parts import independent_parts

SPACING = (2.8, 2.8)
BUTTERWORTH = NoiseFilter(0.08, 6.0)


@pytest.fixture(scope="module")
def expected():
    """A blurred body of bones, (2, 256, 128)."""
    rng = np.random.default_rng(0)
    bones = 40.0 * (rng.random((2, 256, 128)) < 0.02)
    body = 2 + gaussian_filter(bones, (0, 2, 2))
    body[:, :20] = body[:, -20:] = body[..., :20] = body[..., -20:] = 0
    return gaussian_filter(body, (0, 2.2, 2.2)).astype(np.float32)


def test_a_butterworth_filter_is_found_in_noise(expected):
    rng = np.random.default_rng(1)
    mean = np.maximum(BUTTERWORTH.filtered(expected, SPACING), 0)
    scans = [BUTTERWORTH.expose(mean, SPACING, rng) for _ in range(3)]
    found = estimate_noise_filter(scans, SPACING)
    frequency = np.linspace(0.03, 0.1, 20)
    np.testing.assert_allclose(found.response(frequency), BUTTERWORTH.response(frequency), atol=0.06)


def test_raw_counts_are_white(expected):
    counts = np.random.default_rng(2).poisson(expected)
    assert estimate_noise_filter([counts], SPACING) is WHITE
    assert finest_power(counts, SPACING) == pytest.approx(1, abs=0.05)
    assert finest_power(3 * counts, SPACING) == pytest.approx(3, abs=0.15)


def test_exposed_counts_have_the_mean_and_the_filtered_noise(expected):
    rng = np.random.default_rng(3)
    assert (WHITE.expose(expected, SPACING, rng) >= 0).all()
    flat = np.full((64, 64, 64), 30.0)
    counts = BUTTERWORTH.expose(flat, SPACING, rng)
    assert counts.dtype.kind == "i"
    assert counts.mean() == pytest.approx(30, abs=0.05)
    # The variance that the filter leaves, and that of rounding.
    left = (np.abs(np.fft.fft2(BUTTERWORTH_KERNEL(64))) ** 2).mean()
    assert counts.var() == pytest.approx(30 * left + 1 / 12, rel=0.05)


def BUTTERWORTH_KERNEL(size):
    point = np.zeros((size, size))
    point[0, 0] = 1
    return BUTTERWORTH.filtered(point, SPACING)


@pytest.mark.parametrize("noise", [WHITE, BUTTERWORTH], ids=["white", "filtered"])
def test_drawn_counts_follow_their_mean(noise):
    """The gradient of an average over draws is that of its expectation: m + m^2 of raw counts."""
    torch.manual_seed(0)
    mean = torch.full((64, 1, 32, 32), 5.0, requires_grad=True)
    counts = noise.expose_tensor(mean, SPACING)
    assert torch.equal(counts, counts.round())
    counts.square().mean().backward()
    share = 1.0 if noise.white else float((noise.response_of((32, 32), SPACING)[:, 1:-1] ** 2).mean())
    assert float(mean.grad.sum()) == pytest.approx(2 * 5 + share, rel=0.05)


@pytest.mark.parametrize("noise", [WHITE, BUTTERWORTH], ids=["white", "filtered"])
def test_parts_expect_their_share_and_have_independent_noise(noise):
    torch.manual_seed(0)
    flat = np.full((100, 1, 48, 48), 12.0, np.float32)
    counts = torch.from_numpy(noise.expose(flat, SPACING, np.random.default_rng(4)).astype(np.float32))
    first, second = independent_parts(counts, torch.full((100,), 0.3), noise, SPACING)
    torch.testing.assert_close(first + second, counts, atol=1e-3, rtol=0)
    assert float(first.mean()) == pytest.approx(0.3 * 12, rel=0.01)
    assert float(second.mean()) == pytest.approx(0.7 * 12, rel=0.01)
    pair = np.corrcoef(first.flatten().numpy(), second.flatten().numpy())
    assert abs(pair[0, 1]) < 0.03
