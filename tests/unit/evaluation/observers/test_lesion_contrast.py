"""Contrast and noise of foci against closed forms."""

import math

import numpy as np
import pytest

from rbs.data.anatomy import Focus
from rbs.evaluation.observers.lesions import score_foci
from rbs.scans.scan import REGIONS

SPACING = (2.26, 2.26)


def disc(row, column, radius_mm):
    y, x = np.ogrid[:120, :120]
    return np.hypot((y - row) * 2.26, (x - column) * 2.26) <= radius_mm


@pytest.fixture
def spine():
    """A hot disc of 3 times the bone's 5 counts, seen fully in view 0 and half in view 1."""
    focus = Focus("spine", 60, 60, 10.0, 3.0)
    truth = np.full((2, 120, 120), 5.0)
    inside = disc(60, 60, math.hypot(10, 7) / 2)
    truth[0][inside], truth[1][inside] = 15.0, 10.0
    return focus, truth


def score(estimate, truth, focus, labels=None):
    return score_foci(estimate, truth, labels, [focus], SPACING)[0]


def test_contrast_and_its_recovery(spine):
    focus, truth = spine
    estimate = 5 + 0.6 * (truth - 5)
    found = score(estimate, truth, focus)
    assert found.view == 0
    assert found.truth == pytest.approx(2)
    assert found.contrast == pytest.approx(1.2)
    assert found.recovery == pytest.approx(0.6)
    assert score(3 * estimate, truth, focus).recovery == pytest.approx(
        0.6
    )  # a matter of contrast, not of scale


def test_cold_foci_too(spine):
    focus, truth = spine
    cold = np.where(truth > 5, 2.0, 5.0)
    found = score(np.where(truth > 5, 3.5, 5.0), cold, focus)
    assert found.truth == pytest.approx(-0.6)
    assert found.recovery == pytest.approx(0.5)
    assert found.cnr < 0


def test_cnr_is_the_difference_over_the_noise(spine):
    focus, truth = spine
    rng = np.random.default_rng(0)
    found = [score(truth + rng.normal(0, 2, truth.shape), truth, focus).cnr for _ in range(30)]
    assert np.mean(found) == pytest.approx(10 / 2, rel=0.05)
    assert math.isinf(score(truth, truth, focus).cnr)


def test_the_background_is_the_same_bone(spine):
    focus, truth = spine
    labels = np.full(truth.shape, REGIONS.index("thorax") + 1, np.uint8)
    labels[:, :, 50:71] = REGIONS.index("spine") + 1
    estimate = truth.copy()
    estimate[labels != REGIONS.index("spine") + 1] += 20  # beside the bone
    assert score(estimate, truth, focus, labels).recovery == pytest.approx(1)
    assert score(estimate, truth, focus).recovery < 0.9
    labels[:] = 1  # none of the spine is left: the whole ring
    assert score(estimate, truth, focus, labels).recovery < 0.9


def test_a_focus_nobody_can_see_is_left_out(spine):
    focus, truth = spine
    assert score_foci(truth, np.full_like(truth, 5.0), None, [focus], SPACING) == []


@pytest.mark.parametrize(
    ("fwhm", "contrast", "size", "strength"),
    [
        (5, 0.5, "small (under 8 mm)", "cold"),
        (8, 1.5, "medium (8-14 mm)", "faint (under 2)"),
        (20, 5.0, "large (over 14 mm)", "strong (over 4)"),
    ],
)
def test_classes(spine, fwhm, contrast, size, strength):
    found = score(spine[1], spine[1], Focus("spine", 60, 60, fwhm, contrast))
    assert (found.size_class, found.contrast_class) == (size, strength)


def test_fractures_are_a_class_of_their_own(spine):
    found = score(spine[1], spine[1], Focus("spine", 60, 60, 5.0, 3.0, "fracture"))
    assert found.contrast_class == "fracture"
