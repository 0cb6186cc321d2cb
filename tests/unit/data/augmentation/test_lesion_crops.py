"""Crops placed on hot spots and growth plates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_crops import training_batch

from rbs.data.augmentation.lesion_crops import place_on_lesion
from rbs.data.bone_scans import RBSDataModule
from rbs.errors import ManifestError, RbsError
from rbs.scans.regions import HOT, label_of

PLATES = label_of("growth plates")


def test_every_crop_holds_a_pixel_of_a_region_drawn_first() -> None:
    labels = np.zeros((2, 200, 88), np.uint8)
    labels[0, 100:140, 20:60] = PLATES
    labels[1, 180, 70] = HOT
    rng, hot, tops = np.random.default_rng(0), 0, set()
    for _ in range(400):
        top, left = place_on_lesion(labels, (96, 64), rng)
        assert top % 16 == left % 16 == 0
        assert 0 <= top <= 200 - 96
        assert 0 <= left <= 88 - 64
        shown = labels[:, top : top + 96, left : left + 64]
        assert shown.any()
        hot += (shown == HOT).any()
        tops.add(top)
    assert hot > 180  # one pixel against 1600
    assert len(tops) > 3, "the region lies anywhere in the crop"


def test_a_child_without_such_regions_and_pixels_that_no_crop_reaches() -> None:
    labels = np.ones((2, 200, 88), np.uint8)
    assert place_on_lesion(labels, (96, 64), np.random.default_rng(0)) is None
    labels[:, 199] = HOT  # crops end at row 192
    assert place_on_lesion(labels, (96, 64), np.random.default_rng(0)) is None


def share_with_plates(manifest: Path, lesion_crops: float) -> float:
    batch = training_batch(manifest, 128, crop=(16, 16), lesion_crops=lesion_crops)
    lesion = (batch["labels"] == PLATES) | (batch["labels"] == HOT)
    return float(lesion.flatten(1).any(dim=1).float().mean())


def test_training_crops_are_placed_as_often_as_said(tiny_cohort: Path) -> None:
    by_chance, half, all_of_them = (share_with_plates(tiny_cohort, share) for share in (0.0, 0.5, 1.0))
    assert all_of_them == 1
    assert half == pytest.approx((1 + by_chance) / 2, abs=0.12)
    assert by_chance < 0.6


def test_what_has_no_labels_is_refused(make_cohort, tmp_path: Path) -> None:
    data = RBSDataModule(make_cohort(tmp_path, truth=False), crop=(64, 64), lesion_crops=0.5)
    with pytest.raises(ManifestError, match="lesion_crops needs a truth or label file of every training"):
        data.setup("fit")
    for settings in ({"lesion_crops": 1.5}, {"lesion_crops": 0.5, "scenes": 0.5, "pairs": "expectation"}):
        with pytest.raises(RbsError, match="do not go together"):
            RBSDataModule("manifest.csv", **settings)
