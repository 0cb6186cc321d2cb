"""The body is found whatever the exposure, and whatever is hot in it."""

import numpy as np
import pytest

from rbs.scans.body import body_mask

SPACING = (2.3, 2.3)


@pytest.fixture
def body():
    """A disc of 5 standard counts with a hot spot, on an empty ground, (2, 96, 64)."""
    y, x = np.mgrid[0:96, 0:64]
    disc = np.where((y - 48) ** 2 + (x - 32) ** 2 < 24**2, 5.0, 0.0)
    disc[44:48, 30:34] = 100
    return np.stack([disc, disc])


def test_body_mask_finds_the_body_at_any_exposure(body):
    disc = body > 0
    for exposure in (0.5, 1.0, 4.0):
        counts = np.random.default_rng(1).poisson(exposure * body)
        mask = body_mask(counts, SPACING)
        overlap = 2 * (mask & disc).sum() / (mask.sum() + disc.sum())
        assert overlap > 0.85
        assert mask[disc].mean() > 0.95


def test_body_mask_ignores_a_hot_bladder(body):
    hotter = body.copy()
    hotter[:, 44:48, 30:34] = 400
    agree = body_mask(body, SPACING) == body_mask(hotter, SPACING)
    assert agree.mean() > 0.97


def test_body_mask_of_nothing_is_empty():
    assert not body_mask(np.zeros((1, 32, 32)), SPACING).any()
