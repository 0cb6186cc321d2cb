"""Counts and labels on other pixels."""

import numpy as np
import pytest

from rbs.scans.resampling import resample_expectation, resample_labels, same_spacing


@pytest.mark.parametrize("onto", [(2.97, 2.97), (1.8, 3.1), (2.26, 2.26)])
def test_counts_are_kept_and_stay_where_they_were(onto):
    image = np.random.default_rng(0).uniform(0, 5, (2, 60, 40)).astype(np.float32)
    image[:, 20:24, 10:14] = 80
    found = resample_expectation(image, (2.26, 2.26), onto)
    np.testing.assert_allclose(found.sum(axis=(1, 2)), image.sum(axis=(1, 2)), rtol=1e-5)
    assert (found >= 0).all()
    row, column = np.unravel_index(found[0].argmax(), found[0].shape)
    assert (row + 0.5) * onto[0] == pytest.approx(22 * 2.26, abs=6)
    assert (column + 0.5) * onto[1] == pytest.approx(12 * 2.26, abs=6)
    labels = resample_labels((image > 50).astype(np.uint8), (2.26, 2.26), onto)
    assert labels.shape == found.shape
    assert labels[0, row, column] == 1
    if onto == (2.26, 2.26):
        np.testing.assert_allclose(found, image, atol=1e-3)


def test_headers_round_pixel_sizes():
    assert same_spacing((2.26, 2.26), (2.2601, 2.26))
    assert not same_spacing((2.26, 2.26), (2.3, 2.26))
