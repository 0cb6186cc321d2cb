"""Growth plates of known height, width and tilt."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from rbs.evaluation.observers.growth_plates import asymmetry_percent, compare_plates, measure_plates, width_at

SPACING = (2.26, 2.26)
KNEES = {"-1": (150.0, 40.0), "+1": (150.0, 90.0)}
TILT = math.radians(8)


def landmarks():
    marks = {}
    for side, (row, column) in KNEES.items():
        lean = TILT * int(side)
        marks[f"distal femoral physis {side}"] = (row, column)
        marks[f"femoral diaphysis {side}"] = (row - 40 * math.cos(lean), column - 40 * math.sin(lean))
    return marks


def legs(heights=(20.0, 20.0), fwhm_mm=8.0, base=4.0):
    """Ridges across either leg, Gaussian along its axis."""
    y, x = np.mgrid[:220, :130]
    image = np.full((220, 130), base)
    for (side, (row, column)), height in zip(KNEES.items(), heights, strict=True):
        lean = TILT * int(side)
        along = ((y - row) * math.cos(lean) + (x - column) * math.sin(lean)) * 2.26
        near = np.abs(x - column) < 20
        image += near * height * np.exp(-4 * math.log(2) * (along / fwhm_mm) ** 2)
    return np.stack([image, 0.8 * image])


def test_height_and_width_of_a_tilted_plate():
    plates = measure_plates(legs(), landmarks(), SPACING)
    assert [(p.view, p.side) for p in plates] == [(0, "-1"), (1, "-1"), (0, "+1"), (1, "+1")]
    for plate in plates:
        assert plate.peak == pytest.approx(20 * (1 if plate.view == 0 else 0.8), rel=0.04)
        assert plate.fwhm_mm == pytest.approx(8, rel=0.04)


def test_a_blurred_plate_is_lower_and_wider_as_gaussians_are():
    truth = measure_plates(legs(), landmarks(), SPACING)
    blurred = gaussian_filter(legs(), (0, 6 / 2.3548 / 2.26, 0))
    found = compare_plates(measure_plates(blurred, landmarks(), SPACING), truth)
    wider = math.hypot(8, 6) / 8
    assert found.fwhm == pytest.approx(wider, rel=0.03)
    assert found.peak == pytest.approx(1 / wider, rel=0.03)
    assert found.asymmetry_error == pytest.approx(0, abs=0.5)


def test_asymmetry_made_up():
    truth = measure_plates(legs(), landmarks(), SPACING)
    found = measure_plates(legs((24.0, 20.0)), landmarks(), SPACING)
    assert asymmetry_percent(found, 0) == pytest.approx(200 * 4 / 44, rel=0.03)
    assert compare_plates(found, truth).asymmetry_error == pytest.approx(200 * 4 / 44, rel=0.03)


def test_asymmetry_that_is_there_is_no_error():
    truth = measure_plates(legs((30.0, 20.0)), landmarks(), SPACING)
    assert compare_plates(truth, truth).asymmetry_error == 0


def test_without_landmarks_there_is_nothing():
    assert measure_plates(legs(), {}, SPACING) == []
    scores = compare_plates([], [])
    assert all(math.isnan(value) for value in vars(scores).values())


def test_one_leg_has_no_symmetry():
    marks = {name: place for name, place in landmarks().items() if name.endswith("-1")}
    plates = measure_plates(legs(), marks, SPACING)
    assert compare_plates(plates, plates).peak == 1
    assert math.isnan(compare_plates(plates, plates).asymmetry_error)


def test_a_ramp_has_no_width():
    assert math.isnan(width_at(np.arange(5.0), np.arange(5.0), 4, 2.0))
    assert width_at(np.arange(5.0), np.array([0, 0, 4.0, 0, 0]), 2, 2.0) == pytest.approx(1.0)
