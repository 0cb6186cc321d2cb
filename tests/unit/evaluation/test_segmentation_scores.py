"""Dice and surface distances of regions: closed forms, MONAI, and means over patients."""

import csv

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance

from rbs.evaluation.segmentation import (
    MEAN,
    score_regions,
    summarise_regions,
    surface_distance,
    write_scores,
)
from rbs.scans.scan import REGIONS

SPACING = (2.0, 3.0)
ONE = {"patient": "P1", "views": ("anterior",), "spacing_mm": SPACING}


def square(top, left, height=20, width=20, shape=(80, 80)):
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


@pytest.mark.parametrize(("down", "right", "far"), [(0, 0, 0), (3, 0, 6.0), (0, 5, 15.0), (40, 0, 40 * 2.0)])
def test_shifted_squares(down, right, far):
    """A side of a square lies as far from the nearest side of the other as the square is shifted."""
    a, b = square(10, 10), square(10 + down, 10 + right)
    assert surface_distance(a, b, SPACING) == pytest.approx(far)
    assert surface_distance(a, b, SPACING) == surface_distance(b, a, SPACING)


def test_a_grown_square():
    """Each side moved out by four pixels: 80 of 108 pixels lie 4 pixels away, those of corners more."""
    a, b = square(20, 20), square(16, 16, 28, 28)
    corner = [np.hypot(4, k) for k in (1, 1, 2, 2, 3, 3, 4)]
    expected = np.percentile([4.0] * 80 + corner * 4, 95)
    assert surface_distance(a, b, (1.0, 1.0)) == pytest.approx(expected)
    assert surface_distance(a, b, (1.0, 1.0), percentile=100) == pytest.approx(np.hypot(4, 4))


def test_a_few_pixels_far_away_hardly_count():
    a = square(10, 10)
    b = a.copy()
    b[70, 70] = True
    assert surface_distance(a, b, SPACING) == 0
    assert surface_distance(a, b, SPACING, percentile=100) > 100


@pytest.mark.parametrize("seed", range(4))
def test_the_distance_is_that_of_monai(seed):
    rng = np.random.default_rng(seed)
    a, b = (square(*rng.integers(2, 30, 2), *rng.integers(5, 40, 2)) for _ in range(2))
    a[rng.integers(2, 70, 8), rng.integers(2, 70, 8)] = True
    theirs = compute_hausdorff_distance(
        *(torch.tensor(mask)[None, None] for mask in (a, b)),
        include_background=True,
        percentile=95,
        spacing=SPACING,
    )
    assert surface_distance(a, b, SPACING) == pytest.approx(float(theirs), rel=1e-5)


def test_masks_at_the_edge_of_the_frame_have_a_surface_there():
    whole = np.ones((8, 8), bool)
    assert surface_distance(whole, whole, SPACING) == 0


def test_scores_of_regions():
    truth, found = np.zeros((1, 80, 80), np.uint8), np.zeros((1, 80, 80), np.uint8)
    truth[0][square(10, 10)], found[0][square(15, 10)] = 1, 1
    truth[0][square(50, 50, 5, 5)] = 2
    found[0][square(60, 20, 4, 4)] = 9
    skull, spine, spots = score_regions(found, truth, **ONE)
    assert (skull.region, spine.region, spots.region) == ("skull", "spine", "hot spots")
    assert skull.dice == pytest.approx(2 * 300 / 800)
    assert skull.hd95_mm == 10.0
    assert (skull.found_pixels, skull.true_pixels, skull.shared_pixels) == (400, 400, 300)
    assert (spine.dice, spots.dice) == (0, 0)
    assert np.isnan([spine.hd95_mm, spots.hd95_mm]).all()


def test_the_table(tmp_path):
    truth, found = np.zeros((1, 80, 80), np.uint8), np.zeros((1, 80, 80), np.uint8)
    truth[0][square(10, 10)], found[0][square(15, 10)] = 1, 1
    truth[0][square(50, 50, 5, 5)] = 2
    write_scores(tmp_path / "dice.csv", score_regions(found, truth, **ONE))
    with (tmp_path / "dice.csv").open() as file:
        first, second = csv.DictReader(file)
    assert list(first)[:5] == ["patient", "view", "region", "dice", "hd95_mm"]
    assert [first[name] for name in ("patient", "view", "region", "dice", "hd95_mm")] == [
        "P1",
        "anterior",
        "skull",
        "0.7500",
        "10.0000",
    ]
    assert (second["dice"], second["hd95_mm"]) == ("0.0000", "")


def scores_of(patient, truth, found, views=("anterior", "posterior")):
    return score_regions(found, truth, patient=patient, views=views, spacing_mm=(1.0, 1.0))


def test_views_of_a_patient_are_pooled_and_patients_without_a_region_left_out():
    empty = np.zeros((2, 80, 80), np.uint8)
    truth, found = empty.copy(), empty.copy()
    truth[0][square(10, 10)], found[0][square(10, 10)] = 1, 1
    truth[1][square(10, 10, 10, 10)] = 1  # missed in the posterior view
    other = empty.copy()
    other[0][square(30, 30)] = 2
    scores = scores_of("P1", truth, found) + scores_of("P2", other, other) + scores_of("P3", empty, other)
    skull, spine, mean = summarise_regions(scores)
    assert (skull.region, spine.region, mean.region) == ("skull", "spine", MEAN)
    assert skull.dice == pytest.approx(2 * 400 / (500 + 400))
    assert (skull.patients, spine.patients, mean.patients) == (1, 1, 2)
    assert spine.dice == 1
    assert mean.dice == pytest.approx((skull.dice + 1) / 2)
    assert np.isnan(skull.dice_low)
    assert "skull" in str(skull)


def test_the_mean_is_that_of_training_tables():
    """The mean over regions of `rbs.segmentation.dice.DiceTally`."""
    from rbs.segmentation.dice import DiceTally
    from rbs.segmentation.labels import LABELLED

    rng = np.random.default_rng(0)
    tally, scores = DiceTally(), []
    for n in range(3):
        truth = rng.integers(0, 10 - n, (2, 30, 20))
        found = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, 10, truth.shape))
        masks = LABELLED["scans"].labels.masks(torch.tensor(found))
        tally.add(n, f"P{n}", "rapid", masks, torch.tensor(truth))
        scores += scores_of(f"P{n}", truth, found)
    (row,) = tally.rows("segmenter", "test")
    summaries = summarise_regions(scores)
    assert [summary.region for summary in summaries] == [*REGIONS, MEAN]
    for summary in summaries:
        assert summary.dice == pytest.approx(float(row[summary.region]), abs=1e-4)
        if summary.patients > 1:
            assert summary.dice_low < summary.dice < summary.dice_high


def test_nothing_to_summarise():
    assert summarise_regions([]) == []
