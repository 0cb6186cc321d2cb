"""Tiles of scans as FID and KID take them."""

import numpy as np

from rbs.evaluation.scans import images
from rbs.evaluation.scans.images import TILE, ScanSet, body_tiles
from rbs.evaluation.scans.metrics import Target


def a_scan(seed=0):
    """A body of 4 counts a pixel in the upper left tile of a view of 200 x 150 pixels, nothing elsewhere."""
    expectation = np.zeros((1, 200, 150))
    expectation[:, 30:100, 30:100] = 4
    counts = np.random.default_rng(seed).poisson(expectation)
    return counts, Target(counts, 1.0, (2.3, 2.3), expectation)


def test_tiles_are_8_bit_inverse_grey_and_hold_body():
    counts, target = a_scan()
    tiles = body_tiles(counts, target)
    assert tiles.shape == (1, TILE, TILE)
    assert tiles.dtype == np.uint8
    expected = 255 - np.rint(255 * np.minimum(counts[0, :TILE, :TILE] / target.peak, 1))
    assert np.abs(tiles[0] - expected).max() <= 1  # a half is rounded either way
    # The same tiles for every estimate, whatever it holds.
    assert body_tiles(np.full(counts.shape, 99.0), target).shape == tiles.shape
    assert (body_tiles(np.full(counts.shape, 1e9), target) == 0).all()


def test_the_network_is_given_three_equal_channels():
    counts, target = a_scan()
    pictures = ScanSet.tiles(None, counts, target)
    assert pictures.shape == (1, 3, TILE, TILE)
    np.testing.assert_array_equal(pictures, np.repeat(body_tiles(counts, target)[:, None], 3, axis=1))


def test_tiles_lie_as_in_the_view():
    counts = np.zeros((2, 2 * TILE, 2 * TILE))
    counts[1, TILE:, :TILE] = 1
    tiles = images._tiles(counts, 0)
    assert tiles.shape == (8, TILE, TILE)
    np.testing.assert_array_equal(tiles.mean(axis=(1, 2)), [0, 0, 0, 0, 0, 0, 1, 0])
