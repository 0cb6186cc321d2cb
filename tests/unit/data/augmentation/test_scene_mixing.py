"""Scenes: other expectations than phantoms have, whose counts are exactly Poisson all the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_crops import assert_poisson, training_batch

from rbs.data.augmentation import scene_mixing as module
from rbs.data.augmentation.scene_mixing import draw_scene
from rbs.data.bone_scans import RBSDataModule
from rbs.errors import RbsError

CROP = (64, 48)


@pytest.fixture
def expectation() -> np.ndarray:
    y, x = np.mgrid[:160, :96]
    bone = 20 * np.exp(-((x - 40) ** 2) / 18) + 12 * np.exp(-((y - 80) ** 2) / 30)
    return np.stack([bone + 1, 0.7 * bone + 2]).astype(np.float32)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No overlay, and neither contrast nor activity changed."""
    monkeypatch.setattr(module, "OVERLAID", 0.0)
    monkeypatch.setattr(module, "CONTRAST", (1.0, 1.0))
    monkeypatch.setattr(module, "ACTIVITY", (1.0, 1.0))
    return monkeypatch


def test_scenes_are_expectations_of_the_size_asked_for(expectation: np.ndarray) -> None:
    for seed in range(30):
        scene = draw_scene(expectation, CROP, np.random.default_rng(seed))
        assert scene.shape == (2, *CROP)
        assert scene.dtype == np.float32
        assert np.isfinite(scene).all()
        assert scene.min() >= 0
        again = draw_scene(expectation, CROP, np.random.default_rng(seed))
        np.testing.assert_array_equal(scene, again)


def test_unmagnified_a_scene_is_a_place_of_the_scan(expectation: np.ndarray, plain) -> None:
    plain.setattr(module, "MAGNIFICATION", (1.0, 1.0))
    scene = draw_scene(expectation, CROP, np.random.default_rng(3))
    places = np.lib.stride_tricks.sliding_window_view(expectation, CROP, axis=(1, 2))
    distance = np.abs(places - scene[:, None, None]).max(axis=(0, 3, 4))
    assert distance.min() < 1e-4


def test_magnified_bones_are_as_bright_and_as_much_wider(plain) -> None:
    only = np.tile(20 * np.exp(-((np.arange(96, dtype=np.float32) - 40) ** 2) / 18), (2, 160, 1))
    for factor in (0.7, 1.5):
        plain.setattr(module, "MAGNIFICATION", (factor, factor))
        bones = [draw_scene(only, CROP, np.random.default_rng(seed))[0, 5] for seed in range(40)]
        whole = [bone for bone in bones if bone.max() > 0 and 14 < bone.argmax() < 34]
        assert whole
        for bone in whole:
            assert bone.max() == pytest.approx(20, rel=0.03)
            width = bone.sum() / bone.max()  # of a Gaussian: sqrt(2 pi) sigma
            assert width == pytest.approx(np.sqrt(2 * np.pi) * 3 * factor, rel=0.08)


def test_contrast_keeps_the_mean_and_activity_scales_it(expectation: np.ndarray, plain) -> None:
    rng = np.random.default_rng
    before = draw_scene(expectation, CROP, rng(5))
    plain.setattr(module, "CONTRAST", (1.3, 1.3))
    steeper = draw_scene(expectation, CROP, rng(5))
    assert steeper.mean() == pytest.approx(before.mean(), rel=1e-4)
    assert steeper.max() / steeper.mean() > 1.1 * before.max() / before.mean()
    plain.setattr(module, "ACTIVITY", (2.0, 2.0))
    assert draw_scene(expectation, CROP, rng(5)) == pytest.approx(2 * steeper, rel=1e-4)


def test_what_holds_nothing_stays_empty() -> None:
    assert not draw_scene(np.zeros((1, 80, 80), np.float32), CROP, np.random.default_rng(0)).any()


def test_crops_show_them_and_their_counts_are_poisson(tiny_cohort) -> None:
    known = {"pairs": "expectation", "exposures": (0.5, 0.5)}
    plain, scenes = (training_batch(tiny_cohort, 48, scenes=share, **known) for share in (0.0, 1.0))
    assert "labels" in plain
    assert "labels" not in scenes  # of the phantom, not of the scene
    assert not torch.equal(scenes["target"], plain["target"])
    assert_poisson(scenes["rapid"], 0.5 * scenes["target"])


@pytest.mark.parametrize(
    "settings",
    [
        {"scenes": -0.1},
        {"scenes": 1.1},
        {"scenes": 0.5, "pairs": "split"},
        {"scenes": 0.5, "realisations": 4},
    ],
)
def test_where_they_cannot_go_they_are_refused(settings) -> None:
    with pytest.raises(RbsError, match="do not go together"):
        RBSDataModule("manifest.csv", **{"pairs": "expectation"} | settings)
