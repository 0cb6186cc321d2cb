"""Classical peers of frames: each undoes the damage it was made for."""

import numpy as np
import pytest
from drawn_frames import textured
from scipy.ndimage import gaussian_filter

from rbs.degradation.optical import to_linear, to_srgb
from rbs.evaluation.endoscopy import classical
from rbs.evaluation.endoscopy.classical import (
    LUMINANCE,
    bm3d,
    clahe,
    exposure,
    gamma,
    gaussian,
    median,
    noise_of,
    non_local_means,
    peers,
    richardson_lucy,
    unsharp,
)
from rbs.evaluation.endoscopy.metrics import FrameTarget, psnr
from rbs.evaluation.endoscopy.pairs import FramePair
from rbs.evaluation.peers import best, tune

CLEAN = textured(0)


def pair_of(degraded, clean=CLEAN):
    target = FrameTarget(clean, np.ones(clean.shape[1:], bool))
    return FramePair("A", np.asarray(degraded, np.float32), target)


@pytest.fixture(scope="module")
def noisy():
    return pair_of(np.clip(CLEAN + 0.08 * np.random.default_rng(0).normal(size=CLEAN.shape), 0, 1))


@pytest.fixture(scope="module")
def blurred():
    """By a Gaussian of two pixels in linear light, with a little noise."""
    light = gaussian_filter(to_linear(CLEAN), (0, 2, 2), mode="nearest")
    return pair_of(to_srgb(light) + 0.002 * np.random.default_rng(0).normal(size=CLEAN.shape))


def gain(pair, estimate):
    return psnr(pair.to_target(estimate), pair.target) - psnr(pair.degraded, pair.target)


@pytest.mark.parametrize(
    ("restore", "value", "least"), [(gaussian, 1.0, 3), (median, 3, 2), (non_local_means, 0.8, 5)]
)
def test_denoisers_denoise(noisy, restore, value, least):
    assert gain(noisy, restore(noisy, value)) > least


def test_bm3d_denoises_colours(noisy, with_bm3d):
    part = np.s_[:, 32:160, 48:176]  # of all it takes ten seconds
    part = pair_of(noisy.degraded[part], CLEAN[part])
    assert gain(part, bm3d(part, 1.0)) > gain(part, non_local_means(part, 0.8))


def test_the_noise_is_estimated(noisy):
    assert noise_of(noisy.degraded) == pytest.approx(0.08, rel=0.15)


@pytest.mark.parametrize(("restore", "value", "least"), [(unsharp, 1.0, 0.5), (richardson_lucy, 2.0, 1)])
def test_sharpeners_sharpen(blurred, restore, value, least):
    assert gain(blurred, restore(blurred, value)) > least


def test_richardson_lucy_leaves_the_edges_of_the_frame_alone(blurred):
    """Without mirrored edges the frame's border would ring."""
    sharp = richardson_lucy(blurred, 2.0)
    error = np.abs(sharp - CLEAN).mean(axis=0)
    assert sharp.shape == CLEAN.shape
    assert error[:6].mean() < 2 * error[20:-20, 20:-20].mean()


def test_exposure_gives_the_mean_luminance_that_is_asked_for():
    """A frame a quarter as bright is brought back exactly, for its gain in linear light is one number."""
    dark = pair_of(to_srgb(0.25 * to_linear(CLEAN)))
    wanted = float(np.tensordot(LUMINANCE, to_linear(CLEAN), axes=1).mean())
    np.testing.assert_allclose(exposure(dark, wanted), CLEAN, atol=0.01)


def test_gamma_is_a_power_and_brightens():
    pair = pair_of(0.5 * CLEAN)
    np.testing.assert_allclose(gamma(pair, 0.5), np.sqrt(pair.degraded))


def test_clahe_raises_contrast_in_the_dark():
    dark = pair_of(0.2 * CLEAN)
    assert clahe(dark, 0.01).std() > 1.5 * dark.degraded.std()


def test_each_degradation_has_the_peers_made_for_it(monkeypatch):
    monkeypatch.setattr(classical, "has_bm3d", lambda: False)
    names = {
        preset: [peer.name for peer in peers(preset)] for preset in ("denoise", "deblur", "low-light", "x2")
    }
    assert names["denoise"] == ["gaussian", "median", "nlm"]
    assert names["deblur"] == names["x2"] == ["unsharp", "lucy"]
    assert names["low-light"] == ["gamma", "exposure", "clahe"]
    everything = [*names["denoise"], *names["low-light"], *names["deblur"]]
    assert [peer.name for peer in peers("mixed")] == [peer.name for peer in peers(None)] == everything
    monkeypatch.setattr(classical, "has_bm3d", lambda: True)
    assert "bm3d" in [peer.name for peer in peers("denoise")]


def test_peers_are_tuned_by_psnr(noisy):
    tables = tune(peers("denoise")[:2], [noisy])
    for peer, table in zip(peers("denoise")[:2], tables, strict=True):
        values = {value: gain(noisy, peer.restore(noisy, value)) for value in peer.candidates}
        assert best(table) == max(values, key=values.get)


def test_peers_keep_shape_and_do_not_break_on_extremes():
    for frame in (np.zeros_like(CLEAN), np.ones_like(CLEAN)):
        pair = pair_of(frame)
        for peer in peers("mixed"):
            if peer.name != "bm3d":
                estimate = pair.to_target(peer.restore(pair, peer.candidates[0]))
                assert estimate.shape == CLEAN.shape
                assert np.isfinite(estimate).all()
