"""What is put back of a residual."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from rbs.inference.residual import SIGMA_MM, put_back

SPACING = (2.0, 2.5)


@pytest.fixture
def rapid():
    return np.random.default_rng(5).poisson(2.0, (2, 60, 50))


def filtered(counts):
    return gaussian_filter(counts.astype(float), (0, SIGMA_MM / 2.0, SIGMA_MM / 2.5), mode="reflect")


def test_it_is_the_smooth_part(rapid):
    nothing = np.zeros(rapid.shape)
    np.testing.assert_allclose(put_back(nothing, rapid, 0.5, SPACING), filtered(rapid / 0.5))
    np.testing.assert_allclose(put_back(nothing, rapid, 0.5, SPACING, 0.3), 0.3 * filtered(rapid / 0.5))


def test_what_explains_the_scan_is_left_alone(rapid):
    np.testing.assert_allclose(put_back(rapid / 0.5, rapid, 0.5, SPACING), rapid / 0.5)


def test_nothing_is_below_zero(rapid):
    assert put_back(np.full(rapid.shape, 9.0), np.zeros_like(rapid), 0.5, SPACING, 2.0).min() == 0
