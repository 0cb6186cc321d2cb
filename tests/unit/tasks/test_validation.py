"""Scores of whole scans and frames in training's validation."""

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from rbs.data.bone_scans import RBSDataModule
from rbs.evaluation.scans import metrics
from rbs.evaluation.statistics.summary import by_patient, summarise
from rbs.scans.body import smooth
from rbs.tasks.validation import frame_scores, pooled, scan_scores

# --- scans


@pytest.mark.parametrize("rapid", [True, False], ids=["acquired", "simulated"])
def test_scores_of_a_scan_are_those_of_rbs_evaluate(make_cohort, tmp_path, rapid):
    """NC-PSNR, PSNR against the truth and count bias of one phantom: one definition each."""
    manifest = make_cohort(tmp_path, splits=("train", "val", "val"), rapid=rapid)
    data = RBSDataModule(manifest, crop=(64, 48), num_workers=0)
    data.setup("validate")
    ours, theirs = [], []
    for batch in data.val_dataloader():
        spacing = tuple(batch["spacing_mm"][0].tolist())
        estimate = smooth(batch["rapid"][0].numpy(), 6.0, spacing) / float(batch["exposure"][0])
        ours.append(scan_scores(torch.from_numpy(estimate)[None], batch))
        target = metrics.Target(
            batch["target"][0].numpy(),
            float(batch["target_exposure"][0]),
            (9.6, 9.6),
            batch["expectation"][0].numpy(),
        )
        found = {m.name: m.compute(estimate, target) for m in metrics.METRICS}
        theirs.append({"patient": batch["patient"][0], "method": "x", **found})
        scored = pooled(ours[-1])
        for name in ("nc_psnr", "psnr_truth", "count_bias"):
            assert scored[name] == pytest.approx(found[name], abs=1e-3)
    means = pooled({name: np.mean([scores[name] for scores in ours]) for name in ("nc_nmse", "nmse_truth")})
    table = summarise(by_patient(pd.DataFrame(theirs), metrics.METRICS), metrics.METRICS)
    assert sorted(means) == ["nc_psnr", "psnr_truth"]
    for name, mean in means.items():
        assert mean == pytest.approx(table.set_index("metric").loc[name, "mean"], abs=1e-3)


def test_an_error_too_small_to_be_resolved_is_infinitely_good():
    assert pooled({"nc_nmse_f2": -1e-6, "count_bias": 2.0}) == {"nc_psnr_f2": np.inf, "count_bias": 2.0}


# --- frames


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
