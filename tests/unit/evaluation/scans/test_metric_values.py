"""Metrics against scikit-image and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from rbs.evaluation.scans import metrics
from rbs.evaluation.scans.limits import ceiling_psnr
from rbs.evaluation.scans.metrics import Target

SPACING = (2.3, 2.3)


@pytest.fixture
def body():
    """A disc of 5 standard counts with a hot spot, on an empty ground, (2, 96, 64)."""
    y, x = np.mgrid[0:96, 0:64]
    disc = np.where((y - 48) ** 2 + (x - 32) ** 2 < 24**2, 5.0, 0.0)
    disc[44:48, 30:34] = 100
    return np.stack([disc, disc])


def test_psnr_and_ssim_agree_with_scikit_image(body):
    rng = np.random.default_rng(0)
    estimate, reference = rng.poisson(body), rng.poisson(body)
    everywhere = np.ones(body.shape, dtype=bool)
    expected = peak_signal_noise_ratio(reference, estimate, data_range=7.5)
    assert metrics.psnr_between(estimate, reference, everywhere, 7.5) == pytest.approx(expected)
    # scikit-image leaves out the border that its window overhangs; so does a mask of the inner
    # pixels.
    inner = np.zeros(body.shape, dtype=bool)
    inner[:, 5:-5, 5:-5] = True
    expected = np.mean(
        [
            structural_similarity(
                t.astype(float),
                s.astype(float),
                data_range=7.5,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
            for t, s in zip(estimate, reference, strict=True)
        ]
    )
    assert metrics.ssim_between(estimate, reference, inner, 7.5) == pytest.approx(expected)


@pytest.fixture(scope="module")
def scenes():
    """Two noisy pictures of one smooth scene, 512 x 384 pixels, and the peak."""
    rng = np.random.default_rng(4)
    scene = 4 + 60 * gaussian_filter(rng.normal(size=(512, 384)), 6)
    return rng.poisson(np.maximum(scene, 0)).astype(float), np.maximum(scene, 0), 12.0


@pytest.mark.parametrize("scale", range(5))
def test_each_scale_of_ms_ssim_is_monais(scenes, scale, monkeypatch):
    """MONAI drops the pixels that its window overhangs; mirrored borders of that width make it agree exactly.

    Mirrored once at full size, they are as wide as the window overhangs at one scale only: so one
    at a time.
    """
    from monai.metrics.regression import compute_ms_ssim

    estimate, reference, peak = scenes
    alone = [float(k == scale) for k in range(5)]
    monkeypatch.setattr(metrics, "MS_SSIM_EXPONENTS", alone)
    found = metrics.ms_ssim_between(estimate[None], reference[None], np.ones((1, 512, 384), bool), peak)
    padded = [
        torch.from_numpy(np.pad(image, 5 * 2**scale, mode="symmetric")).float()[None, None]
        for image in (estimate, reference)
    ]
    # The last scale it is told of has the luminance term, so all but the coarsest need one more.
    weights = alone if scale == 4 else alone[: scale + 2]
    theirs = compute_ms_ssim(*padded, spatial_dims=2, data_range=peak, weights=weights)
    assert found == pytest.approx(theirs.item(), abs=2e-5)


def test_ms_ssim_is_torchmetrics_but_for_the_borders(scenes):
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    estimate, reference, peak = scenes
    found = metrics.ms_ssim_between(estimate[None], reference[None], np.ones((1, 512, 384), bool), peak)
    both = [torch.from_numpy(image).float()[None, None] for image in (estimate, reference)]
    theirs = multiscale_structural_similarity_index_measure(*both, data_range=peak)
    assert found == pytest.approx(theirs.item(), abs=5e-3)
    assert 0.1 < found < 0.99


def test_ms_ssim_looks_at_the_body_alone(scenes):
    estimate, reference, peak = scenes
    mask = np.zeros((1, 512, 384), dtype=bool)
    mask[:, 96:416, 96:288] = True
    found = metrics.ms_ssim_between(estimate[None], reference[None], mask, peak)
    disturbed = estimate.copy()
    # Out of reach of the coarsest window, whose half is 5 pixels of 16.
    disturbed[:, :15], disturbed[500:] = 50, 0
    assert metrics.ms_ssim_between(disturbed[None], reference[None], mask, peak) == pytest.approx(found)
    everywhere = np.ones_like(mask)
    assert metrics.ms_ssim_between(disturbed[None], reference[None], everywhere, peak) < found


def test_ms_ssim_has_no_value_where_its_window_does_not_fit(scenes):
    estimate, reference, peak = (*(image[None, :, :175] for image in scenes[:2]), scenes[2])
    assert math.isnan(metrics.ms_ssim_between(estimate, reference, np.ones(estimate.shape, bool), peak))
    nothing = np.zeros((1, 512, 384), bool)
    assert math.isnan(metrics.ms_ssim_between(scenes[0][None], scenes[1][None], nothing, peak))
    # Perfectly opposite structure: a negative mean counts as none, its root would not be real.
    mirror = 2 * scenes[1].mean() - scenes[1]
    assert metrics.ms_ssim_between(mirror[None], scenes[1][None], ~nothing, 0.1 * peak) == 0


def test_target_of_a_remainder_is_at_standard_scale(body):
    rng = np.random.default_rng(2)
    whole, half = Target(rng.poisson(body), 1.0, SPACING), Target(rng.poisson(body / 2), 0.5, SPACING)
    assert half.mean_count == pytest.approx(whole.mean_count, rel=0.03)
    assert half.peak == pytest.approx(whole.peak, rel=0.1)
    ceilings = [ceiling_psnr(t.mean_count, t.peak, t.exposure) for t in (whole, half)]
    assert ceilings[0] - ceilings[1] == pytest.approx(3.01, abs=1)


def test_nc_psnr_is_the_psnr_to_the_truth_within_statistics():
    truth = np.tile(np.linspace(1, 9, 128), (2, 128, 1))
    rng = np.random.default_rng(3)
    target = Target(rng.poisson(truth), 1.0, SPACING, truth)
    estimate = rng.poisson(truth / 2) / 0.5
    assert metrics.nc_psnr(estimate, target) == pytest.approx(metrics.psnr_truth(estimate, target), abs=0.3)


def test_count_bias_is_signed_and_in_percent(body):
    target = Target(body, 1.0, SPACING)
    assert metrics.count_bias(1.1 * body, target) == pytest.approx(10)
    assert metrics.count_bias(0.9 * body, target) == pytest.approx(-10)


def test_region_bias_names_the_region(body):
    labels = np.zeros(body.shape, dtype=np.uint8)
    labels[:, 30:40, 20:40], labels[:, 50:60, 20:40] = 1, 2
    labels[:, 0, :] = 3  # expected to hold nothing
    target = Target(body, 1.0, SPACING, body, labels)
    estimate = np.where(labels == 2, 1.2, 1.0) * body
    biases = metrics.region_biases(estimate, target)
    assert biases == pytest.approx({"skull": 0, "spine": 20})
    assert metrics.region_bias(estimate, target) == pytest.approx(10)
    assert math.isnan(metrics.region_bias(estimate, Target(body, 1.0, SPACING)))
