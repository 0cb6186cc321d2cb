"""Foci in training crops: exact Poisson counts of an expectation that holds them."""

from __future__ import annotations

import numpy as np
import pytest
from training_crops import training_batch

from rbs.data.augmentation.lesions import Foci, draw_foci
from rbs.data.bone_scans import RBSDataModule
from rbs.errors import RbsError

SPACING = (2.26, 2.26)


@pytest.fixture
def image() -> np.ndarray:
    y, x = np.mgrid[:96, :64] / 64
    return np.stack([2 + 8 * x, 3 + 4 * y]).astype(np.float32)


def test_counts_are_poisson_of_what_is_expected(image: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    foci = draw_foci(image, SPACING, 30.0, rng)
    assert foci.added.any()
    assert foci.kept.min() < 0.9
    exposure, draws = 0.5, 800
    counts = np.stack([foci.count(rng.poisson(image * exposure), exposure, rng) for _ in range(draws)])
    expected = foci.expect(image) * exposure
    deviation = (counts.mean(axis=0) - expected) / np.sqrt(expected / draws)
    assert abs(deviation.mean()) < 0.05
    assert deviation.std() == pytest.approx(1, abs=0.03)
    assert (counts.var(axis=0) / expected).mean() == pytest.approx(1, abs=0.01)


def test_a_hot_focus_has_the_height_and_the_width_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbs.data.augmentation.lesions.COLD_SHARE", 0.0)
    monkeypatch.setattr("rbs.data.augmentation.lesions.FWHM_MM", (20.0, 20.001))
    monkeypatch.setattr("rbs.data.augmentation.lesions.CONTRAST", (0.5, 0.50001))
    flat = np.full((1, 121, 121), 4, np.float32)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        if np.random.default_rng(seed).poisson(1.0) != 1:
            continue
        added = draw_foci(flat, (2.0, 2.0), 1.0, rng).added[0]
        assert added.max() == pytest.approx(0.5 * 4, rel=1e-4)
        row, column = np.unravel_index(added.argmax(), added.shape)
        if 10 <= row < 111:
            assert added[row + 5, column] == pytest.approx(added.max() / 2, rel=1e-3)  # 10 mm from the peak
            return
    pytest.fail("no focus was drawn well inside")


def test_a_focus_lies_where_tracer_is_and_in_both_views(image: np.ndarray) -> None:
    image = image.copy()
    image[:, :, 32:] = 0
    columns, both = [], []
    for seed in range(60):
        foci = draw_foci(image, SPACING, 1.0, np.random.default_rng(seed))
        change = foci.added + 1 - foci.kept
        if change.any():
            columns.append(change.sum(axis=0).max(axis=0).argmax())
            both.append((change.max(axis=(1, 2)) > 0).all())
    assert len(columns) > 20
    assert np.quantile(columns, 0.9) < 40
    assert np.mean(both) > 0.9


def test_nothing_gets_no_focus() -> None:
    foci = draw_foci(np.zeros((2, 32, 32), np.float32), SPACING, 5.0, np.random.default_rng(0))
    assert isinstance(foci, Foci)
    assert not foci.expect(np.zeros((2, 32, 32))).any()


@pytest.mark.parametrize("pairs", ["split", "rapid", "expectation"])
def test_crops_hold_them_and_their_pairs_stay_what_they_were(tiny_cohort, pairs) -> None:
    sums = {}
    for foci in (0.0, 40.0):
        batch = training_batch(tiny_cohort, 16, pairs=pairs, foci=foci)
        rapid = (batch["rapid"] / batch["exposure"][:, None, None, None]).sum()
        target = (batch["target"] / batch["target_exposure"][:, None, None, None]).sum()
        assert float(rapid / target) == pytest.approx(1, abs=0.03)
        assert float(batch["expectation"].sum() / target) == pytest.approx(1, abs=0.03)
        sums[foci] = float(target)
    assert sums[40.0] > 1.02 * sums[0.0]


@pytest.mark.parametrize(
    "settings", [{"foci": -1}, {"foci": 1, "realisations": 2}, {"foci": 1, "pairs": "measured"}]
)
def test_where_they_cannot_go_they_are_refused(settings) -> None:
    with pytest.raises(RbsError, match="do not go together"):
        RBSDataModule("manifest.csv", **settings)
