"""Agreement of thin structures."""

import numpy as np
import pytest

from rbs.evaluation.topology import centreline_dice, parts_error


def ribs(rows, gap=()):
    masks = np.zeros((2, 40, 60), bool)
    for row in rows:
        masks[:, row : row + 3, 5:55] = True
    masks[:, :, list(gap)] = False
    return masks


def test_the_truth_itself_has_all_centrelines_and_all_parts():
    there = ribs([5, 20])
    assert centreline_dice(there, there) == 1
    assert parts_error(there, there) == 0


def test_a_broader_rib_keeps_its_centreline_and_a_shifted_one_loses_it():
    there = ribs([5, 20])
    broad = there | np.roll(there, 1, axis=1) | np.roll(there, -1, axis=1)
    assert 2 * (broad & there).sum() / (broad.sum() + there.sum()) < 0.8
    assert centreline_dice(broad, there) > 0.97
    assert centreline_dice(np.roll(there, 5, axis=1), there) == 0


def test_one_of_two_ribs_is_half_of_the_lines():
    assert centreline_dice(ribs([5]), ribs([5, 20])) == pytest.approx(2 / 3, abs=0.02)


def test_a_cut_of_a_pixel_costs_two_parts_and_nearly_no_line():
    there, cut = ribs([5, 20]), ribs([5, 20], gap=[30])
    assert centreline_dice(cut, there) > 0.97
    assert parts_error(cut, there) == 2
    cut[1] = there[1]
    assert parts_error(cut, there) == 1


def test_nothing_found_is_zero_and_nothing_there_is_no_number():
    there, nothing = ribs([5]), np.zeros((2, 40, 60), bool)
    assert centreline_dice(nothing, there) == 0
    assert np.isnan(centreline_dice(there, nothing))
    assert parts_error(nothing, there) == 1


def test_parts_that_touch_at_a_corner_are_one():
    corner = np.zeros((1, 4, 4), bool)
    corner[0, 0, 0] = corner[0, 1, 1] = True
    assert parts_error(corner, np.zeros_like(corner)) == 1
