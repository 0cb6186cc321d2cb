"""Metrics of frames: against scikit-image and closed forms, inside the valid area alone."""

import os

import numpy as np
import pytest
from drawn_frames import textured
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from rbs.errors import CheckpointError
from rbs.evaluation.endoscopy import metrics
from rbs.evaluation.endoscopy.metrics import (
    METRICS,
    FrameTarget,
    colour_difference,
    dice_metric,
    load_lesion_finder,
    lpips_of_frames,
    niqe_metric,
    psnr,
    ssim,
)
from rbs.weights.external import ALEXNET, find


def target_of(seed=0, valid=None, lesion=None):
    clean = textured(seed)
    return FrameTarget(clean, np.ones(clean.shape[1:], bool) if valid is None else valid, lesion)


def noisy(frame, size, seed=1):
    return np.clip(frame + size * np.random.default_rng(seed).normal(size=frame.shape), 0, 1).astype(
        np.float32
    )


def test_psnr_and_ssim_are_those_of_scikit_image():
    target = target_of()
    estimate = noisy(target.clean, 0.05)
    assert psnr(estimate, target) == pytest.approx(
        peak_signal_noise_ratio(target.clean.astype(float), estimate.astype(float), data_range=1)
    )
    expected = structural_similarity(
        target.clean.astype(float),
        estimate.astype(float),
        channel_axis=0,
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )[1]
    assert ssim(estimate, target) == pytest.approx(expected.mean())


def test_the_colour_difference_is_that_of_scikit_image_and_about_one_where_it_can_just_be_seen():
    target = target_of()
    estimate = np.clip(target.clean + np.float32(0.01), 0, 1)
    a, b = (rgb2lab(x.transpose(1, 2, 0)) for x in (target.clean, estimate))
    assert colour_difference(estimate, target) == pytest.approx(deltaE_ciede2000(a, b).mean(), rel=1e-3)
    assert 0.3 < colour_difference(estimate, target) < 3


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_what_is_not_valid_does_not_count(metric):
    valid = np.zeros((192, 224), bool)
    valid[40:150, 30:200] = True
    target = target_of(valid=valid)
    estimate = noisy(target.clean, 0.03)
    # SSIM looks five pixels beyond; there both are the clean frame's, as `FramePair.to_target`
    # makes them.
    estimate = np.where(valid, estimate, target.clean)
    inside = FrameTarget(target.clean[:, 30:160, 20:210], valid[30:160, 20:210])
    expected = metric.compute(estimate[:, 30:160, 20:210], inside)
    assert metric.compute(estimate, target) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_the_clean_frame_is_best_and_noise_makes_it_worse(metric):
    target = target_of()
    best = metric.compute(target.clean, target)
    assert best == pytest.approx({"psnr": np.inf, "ssim": 1.0, "delta_e": 0.0}[metric.name])
    sign = 1 if metric.higher_is_better else -1
    values = [sign * metric.compute(noisy(target.clean, size), target) for size in (0.01, 0.03, 0.1)]
    assert np.all(np.diff(values) < 0)


def test_every_metric_says_what_it_is():
    for metric in (*METRICS, dice_metric(lambda frame: frame[0] > 0, "0123456789abcdef")):
        described = metric.describe()
        for stated in ("name", "label", "definition", "reference", "mask", "group"):
            assert described[stated]


def test_lpips_sees_colours_and_blur(metric_weights):
    assert os.environ["RBS_WEIGHTS"]
    assert find(*ALEXNET) is not None
    metric = lpips_of_frames()
    target = target_of()
    swapped = target.clean[::-1].copy()
    values = [
        metric.compute(x, target) for x in (target.clean, noisy(target.clean, 0.02), noisy(target.clean, 0.1))
    ]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert np.all(np.diff(values) > 0)
    assert metric.compute(swapped, target) > 0.05


def disc(row, column, radius):
    y, x = np.mgrid[:192, :224]
    return (y - row) ** 2 + (x - column) ** 2 < radius**2


def test_dice_is_that_of_two_discs():
    lesion, found = disc(90, 100, 30), disc(90, 130, 30)
    target = target_of(lesion=lesion)
    metric = dice_metric(lambda frame: found, "digest")
    # Two circles whose centres are one radius apart share 2 pi / 3 - sqrt(3) / 2 of r squared.
    shared = (2 * np.pi / 3 - np.sqrt(3) / 2) / np.pi
    assert metric.compute(target.clean, target) == pytest.approx(shared, abs=0.01)
    assert dice_metric(lambda frame: lesion, "").compute(target.clean, target) == 1
    assert dice_metric(lambda frame: ~lesion, "").compute(target.clean, target) == 0


def test_dice_needs_a_lesion_that_can_be_seen():
    metric = dice_metric(lambda frame: disc(90, 100, 30), "digest")
    hidden = np.ones((192, 224), bool) & ~disc(90, 100, 40)
    assert np.isnan(metric.compute(textured(0), target_of()))
    assert np.isnan(metric.compute(textured(0), target_of(lesion=np.zeros((192, 224), bool))))
    assert np.isnan(metric.compute(textured(0), target_of(lesion=disc(90, 100, 30), valid=hidden)))


def test_the_segmenter_is_a_teacher_of_frames(tmp_path, caplog):
    from rbs.segmentation.adapters import save_teacher, start, trainable_teacher
    from rbs.segmentation.sam import build_sam, find_checkpoint

    base = find_checkpoint("vit_t", None)
    for domain in ("colours", "roots"):
        teacher = trainable_teacher("vit_t", "decoder", 4, domain)
        start(teacher, build_sam("vit_t", base))
        save_teacher(tmp_path / domain, teacher, mode="decoder", rank=4, base=base)
    segment, digest = load_lesion_finder(tmp_path / "colours")
    found = segment(textured(0))
    assert (found.shape, found.dtype, len(digest)) == ((192, 224), bool, 64)
    with pytest.raises(CheckpointError, match=r"trained on scans; .*DATA=endoscopy"):
        load_lesion_finder(tmp_path / "roots")


def natural(seed):
    """Drawn frames are flat in places, which nothing natural is."""
    target = target_of(seed)
    return FrameTarget(noisy(target.clean, 0.02, seed), target.valid)


@pytest.fixture(scope="module")
def niqe():
    return niqe_metric([natural(seed) for seed in range(metrics.MIN_FITTED)])


def test_niqe_prefers_frames_like_those_it_was_fitted_to(niqe):
    target = natural(100)
    values = [niqe.compute(noisy(target.clean, size), target) for size in (0.0, 0.05, 0.2)]
    assert np.isfinite(values).all()
    assert values[0] < 10
    assert np.all(np.diff(values) > 0)


def test_niqe_looks_at_the_valid_area_alone(niqe):
    """Borders of black would be the most unnatural thing in the frame."""
    target = natural(101)
    framed = np.zeros((3, 292, 324), np.float32)
    valid = np.zeros((292, 324), bool)
    framed[:, 50:242, 50:274], valid[50:242, 50:274] = target.clean, True
    assert niqe.compute(framed, FrameTarget(framed, valid)) == pytest.approx(
        niqe.compute(target.clean, target)
    )


def test_niqe_is_left_out_where_it_cannot_be(niqe, caplog):
    assert niqe_metric([target_of(0)]) is None
    assert "NIQE is left out" in caplog.text
    small = FrameTarget(textured(0, 96, 96), np.ones((96, 96), bool))
    assert np.isnan(niqe.compute(small.clean, small))
    blind = FrameTarget(textured(0), np.zeros((192, 224), bool))
    assert np.isnan(niqe.compute(blind.clean, blind))
