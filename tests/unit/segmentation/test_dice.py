import csv

import numpy as np
import pytest
import torch
from torchmetrics.functional.segmentation import dice_score

from rbs.scans.scan import REGIONS
from rbs.segmentation.dice import DiceTally, regions_prompted, update_rows
from rbs.segmentation.sam import build_sam


def masks_of(labels):
    return torch.stack([labels == k + 1 for k in range(len(REGIONS))], dim=1)


def test_dice_agrees_with_torchmetrics():
    found, labels = torch.randint(0, 10, (2, 2, 30, 20))
    tally = DiceTally()
    tally.add(0, "a", "rapid", masks_of(found), labels)
    (row,) = tally.rows("lora", "val")
    # One picture of both views side by side: views are pooled.
    both = [torch.cat([*x], dim=1)[None] for x in (found, labels)]
    expected = dice_score(
        *both, num_classes=10, include_background=False, input_format="index", average="none"
    )
    assert np.allclose([float(row[region]) for region in REGIONS], expected[0], atol=1e-4)


def test_the_mean_is_over_patients_who_have_the_region():
    spine, nothing = torch.full((1, 4, 4), 2), torch.zeros(1, 4, 4, dtype=torch.int64)
    tally = DiceTally()
    tally.add(0, "a", "rapid", masks_of(spine), spine)
    tally.add(1, "a", "rapid", masks_of(nothing), spine)
    tally.add(2, "b", "rapid", masks_of(nothing), spine)
    tally.add(3, "c", "rapid", masks_of(nothing), nothing)
    (row,) = tally.rows("lora", "val")
    assert float(row["spine"]) == pytest.approx((2 / 3 + 0) / 2, abs=1e-4)
    assert row["skull"] == ""
    assert row["mean"] == row["spine"]


def test_rows_replace_their_like_and_keep_the_others(tmp_path):
    def rows(mode, dice):
        return [{"mode": mode, "split": "val", "level": "rapid", "skull": dice}]

    path = tmp_path / "dice.csv"
    for mode, dice in [("lora", "0.1"), ("full", "0.2"), ("lora", "0.3")]:
        update_rows(path, rows(mode, dice))
    with path.open(newline="") as file:
        assert [(row["mode"], row["skull"]) for row in csv.DictReader(file)] == [
            ("lora", "0.3"),
            ("full", "0.2"),
        ]


def test_prompted_masks_lie_on_the_packed_labels(base):
    labels = torch.zeros(2, 128, 32, dtype=torch.int64)
    labels[0, 70:90, 4:20] = 2
    found, truth = regions_prompted("vit_t", build_sam("vit_t", base), torch.rand(2, 128, 32) * 5, labels)
    assert found.shape == (2, 9, 64, 64)
    assert (truth == 2).sum() == 20 * 16
    assert (truth[0, 6:26, 36:52] == 2).all()
    assert not found[1].any()
    assert not found[0, [0, *range(2, 9)]].any()
