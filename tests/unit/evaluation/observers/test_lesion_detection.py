"""Foci made up and lost, and the detector's noise, against simulation."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from rbs.evaluation.observers import lesion_detection as foci
from rbs.evaluation.observers.lesion_detection import compare_foci

SPACING = (2.26, 2.26)


@pytest.fixture(scope="module")
def truth():
    """Soft tissue of 1 count a pixel with a long bone of 4 and a focus in it."""
    image = np.ones((2, 160, 120))
    image[:, :, 50:60] = 4
    image[:, 40:44, 53:57] += 30
    return gaussian_filter(image, (0, 2, 2))


def add(image, row, column, peak, sigma=2.5):
    y, x = np.ogrid[: image.shape[1], : image.shape[2]]
    return image + peak * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * sigma**2))


def test_the_detectors_noise_is_that_of_simulated_scans(truth):
    rng = np.random.default_rng(0)
    variance = np.var([foci.detect(rng.poisson(truth), SPACING) for _ in range(40)], axis=0, ddof=1)
    ratio = variance / foci.detector_noise(truth, SPACING) ** 2
    assert ratio.mean() == pytest.approx(1, abs=0.04)
    assert ratio.std() < 0.3  # that of 40 draws is 0.22


def test_the_truth_itself_makes_up_and_loses_nothing(truth):
    found = compare_foci(truth, truth, SPACING)
    assert found.hallucinated == found.lost == []
    assert found.true_foci >= 2  # the focus, in both views


def test_a_focus_too_many_is_found_where_it_is(truth):
    ((view, row, column, excess),) = compare_foci(
        add(truth, 100, 90, 3.0)[[0, 0]] * 1.0, truth, SPACING
    ).hallucinated[:1]
    assert (view, row, column) == (0, 100, 90)
    assert excess > foci.THRESHOLD
    one = truth.copy()
    one[1] = add(truth, 110, 30, 3.0)[1]
    (only,) = compare_foci(one, truth, SPACING).hallucinated
    assert only[:3] == (1, 110, 30)


def test_a_lost_focus_is_found_where_it_was(truth):
    flat = truth.copy()
    flat[0, 25:60] = truth[0, 90:125]
    (lost,) = compare_foci(flat, truth, SPACING).lost
    assert lost[0] == 0
    assert abs(lost[1] - 42) <= 1
    assert abs(lost[2] - 55) <= 1


def test_a_focus_moved_by_a_pixel_is_neither(truth):
    shifted = np.roll(truth, 1, axis=1)
    found = compare_foci(shifted, truth, SPACING)
    assert found.hallucinated == found.lost == []


def test_a_scans_own_noise_rarely_passes_and_a_quarter_of_its_counts_often(truth):
    rng = np.random.default_rng(1)
    standard = [len(compare_foci(rng.poisson(truth), truth, SPACING).hallucinated) for _ in range(10)]
    poor = [len(compare_foci(rng.poisson(truth / 4) * 4, truth, SPACING).hallucinated) for _ in range(10)]
    assert np.mean(standard) < 0.5
    assert np.mean(poor) > np.mean(standard) + 2


def test_a_few_counts_in_nothing_are_no_focus():
    empty = np.full((1, 64, 64), 1e-6)
    single = empty.copy()
    single[0, 30, 30:32] += 1
    assert compare_foci(single, empty, SPACING).hallucinated == []
    single[0, 30, 30:32] += 6
    assert len(compare_foci(single, empty, SPACING).hallucinated) == 1
