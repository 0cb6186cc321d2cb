"""SAM's own prompts on frames, with the shipped small SAM on what it was trained to see: a bright shape."""

import numpy as np
import pytest

from rbs.segmentation.prompts import all_masks, mask_at
from rbs.segmentation.sam import build_sam

HEIGHT, WIDTH = 384, 512
LEFT, RIGHT = (80, 100, 140, 220), (300, 100, 360, 220)  # x0, y0, x1, y1


@pytest.fixture(scope="module")
def sam():
    return build_sam("vit_t")


@pytest.fixture(scope="module")
def bars():
    """A dark frame with two bright bars, and where they are."""
    where = np.zeros((2, HEIGHT, WIDTH), bool)
    for bar, (x0, y0, x1, y1) in zip(where, (LEFT, RIGHT), strict=True):
        bar[y0:y1, x0:x1] = True
    frame = np.full((3, HEIGHT, WIDTH), 0.1, np.float32)
    frame[:, where.any(axis=0)] = 0.5
    return frame, where


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_a_box_finds_what_is_in_it(sam, bars):
    frame, where = bars
    found = mask_at(sam, frame, boxes=[RIGHT])
    assert found.shape == (HEIGHT, WIDTH)
    assert found.dtype == bool
    assert dice(found, where[1]) > 0.65


def test_boxes_are_objects_of_their_own_and_are_joined(sam, bars):
    frame, where = bars
    one, other = (mask_at(sam, frame, boxes=[box]) for box in (LEFT, RIGHT))
    both = mask_at(sam, frame, boxes=[LEFT, RIGHT])
    np.testing.assert_array_equal(both, one | other)
    assert dice(both, where.any(axis=0)) > 0.5


def test_a_point_finds_what_lies_under_it(sam, bars):
    frame, where = bars
    found = mask_at(sam, frame, points=[(330, 160)], outside=[(200, 160)])
    assert found[160, 330]
    assert dice(found, where[1]) > 0.65


def test_a_grid_of_points_finds_both_bars(sam, bars):
    frame, where = bars
    found = all_masks(sam, frame, points_a_side=8, least_quality=0.4, least_stability=0.5)
    assert found.shape[1:] == (HEIGHT, WIDTH)
    areas = found.sum(axis=(1, 2))
    assert (np.diff(areas) <= 0).all()
    for bar in where:
        assert max(dice(mask, bar) for mask in found) > 0.5


def test_nothing_found_is_an_empty_stack(sam):
    found = all_masks(sam, np.full((3, 64, 96), 0.3, np.float32), points_a_side=2, least_quality=0.999)
    assert found.shape == (0, 64, 96)


@pytest.mark.parametrize(
    ("prompts", "fault"),
    [
        ({}, "a point or a box"),
        ({"outside": [(3, 3)]}, "a point or a box"),
        ({"points": [(WIDTH + 1, 3)]}, r"\(513, 3\) lies outside the frame of 512 x 384"),
        ({"boxes": [(0, -4, 9, 9)]}, r"\(0, -4\) lies outside"),
    ],
)
def test_prompts_that_make_no_sense(sam, bars, prompts, fault):
    with pytest.raises(ValueError, match=fault):
        mask_at(sam, bars[0], **prompts)
