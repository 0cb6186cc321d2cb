"""Label maps drawn from probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from labelled_body import SPACING, body, certain

from rbs.segmentation.measures.label_draws import CORRELATION_MM, label_draws


def field(shares: tuple[float, ...], shape: tuple[int, int] = (60, 50)) -> np.ndarray:
    """Probabilities that are the same in every pixel, (1, classes, H, W)."""
    return np.broadcast_to(np.array(shares, np.float32)[None, :, None, None], (1, len(shares), *shape))


def test_labels_have_their_probabilities() -> None:
    shares = (0.6, 0.3, 0.1)
    drawn = np.stack(list(label_draws(field(shares), (6.0, 6.0), 300)))
    for label, share in enumerate(shares):
        assert (drawn == label).mean() == pytest.approx(share, abs=0.02)


def test_neighbours_are_wrong_together_and_distant_pixels_are_not() -> None:
    drawn = np.stack(list(label_draws(field((0.5, 0.5)), (4.0, 4.0), 300)))[:, 0].astype(float)
    row = drawn[:, 30]

    def correlation(apart: int) -> float:
        return float(np.corrcoef(row[:, 10], row[:, 10 + apart])[0, 1])

    assert correlation(1) > 0.8
    assert abs(correlation(round(3 * CORRELATION_MM / 4.0))) < 0.2


def test_certain_labels_stay() -> None:
    labels = body()
    for drawn in label_draws(certain(labels), SPACING, 3):
        np.testing.assert_array_equal(drawn, labels)


def test_a_seed_decides() -> None:
    one, same, other = (next(label_draws(field((0.5, 0.5)), SPACING, 1, seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
