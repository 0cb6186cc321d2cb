"""Scores of frames; those of scans are tested with the task that logs them."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from rbs.tasks.validation import frame_scores


def frames(seed=0):
    rng = np.random.default_rng(seed)
    clean = rng.random((3, 48, 40))
    return clean, np.clip(clean + 0.1 * rng.normal(size=clean.shape), 0, 1)


def batch(clean, valid=None):
    valid = np.ones(clean.shape[1:], bool) if valid is None else valid
    return {"target": torch.from_numpy(clean)[None], "valid": torch.from_numpy(valid)[None, None]}


def scores(restored, clean, valid=None):
    return frame_scores(torch.from_numpy(restored)[None], batch(clean, valid))


def test_they_are_those_of_scikit_image():
    clean, restored = frames()
    found = scores(restored, clean)
    assert list(found) == ["psnr", "ssim"]
    assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(clean, restored, data_range=1), abs=1e-3)
    _, whole = structural_similarity(
        clean,
        restored,
        channel_axis=0,
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    # Its map differs where the window hangs over the edge.
    inner = np.zeros(clean.shape[1:], bool)
    inner[6:-6, 6:-6] = True
    assert scores(restored, clean, inner)["ssim"] == pytest.approx(whole[:, inner].mean(), abs=1e-4)


def test_what_is_not_valid_does_not_count():
    clean, restored = frames()
    valid = np.zeros(clean.shape[1:], bool)
    valid[:20] = True
    spoilt = restored.copy()
    spoilt[:, 30:] = 0  # farther from the valid rows than SSIM's window reaches
    assert scores(restored, clean, valid) == scores(spoilt, clean, valid)
    assert scores(restored, clean)["psnr"] > scores(spoilt, clean)["psnr"] + 3
    clean_there = restored[:, :20]
    wanted = peak_signal_noise_ratio(clean[:, :20], clean_there, data_range=1)
    assert scores(restored, clean, valid)["psnr"] == pytest.approx(wanted, abs=1e-3)


def test_a_perfect_frame_scores_a_number():
    clean, _ = frames()
    found = scores(clean, clean)
    assert 100 < found["psnr"] < np.inf
    assert found["ssim"] == pytest.approx(1)
