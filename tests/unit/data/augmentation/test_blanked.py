"""Filling of areas that were painted black."""

import numpy as np
import pytest

from rbs.data.augmentation.blanked import fill_blanked


@pytest.mark.parametrize("cut", [0, 2])
def test_a_painted_area_gets_the_level_around_it(cut: int) -> None:
    level = np.repeat([8.0, 12.0], 48)
    counts = np.random.default_rng(0).poisson(level, (1, 64, 96))
    painted = counts.copy()
    painted[:, 20:44, 30:70] = 0
    filled = fill_blanked(painted, cut, np.random.default_rng(1))
    assert (filled[:, :18] == counts[:, :18]).all()
    left, right = filled[0, 22:42, 32:46], filled[0, 22:42, 50:68]
    assert left.mean() == pytest.approx(8, rel=0.15)
    assert right.mean() == pytest.approx(12, rel=0.15)
    assert left.var() == pytest.approx(8, rel=0.5)


def test_a_scan_without_blank_areas_stays_as_it_is() -> None:
    counts = np.random.default_rng(0).poisson(5.0, (2, 32, 32))
    assert (fill_blanked(counts, 1, np.random.default_rng(1)) == counts).all()
    empty = np.zeros((1, 32, 32), int)
    assert not fill_blanked(empty, 0, np.random.default_rng(1)).any()
