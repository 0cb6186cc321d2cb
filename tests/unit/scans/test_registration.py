"""Registration against motion known in closed form: a body of Gaussians that moved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from moving_body import LEVEL, MIDDLE, SHAPE, SPACING, Field, expectation, legs_apart, passes, rigid, still

from rbs.degradation.thinning import split
from rbs.errors import ScanError
from rbs.scans.dicom.reader import read_nm
from rbs.scans.registration import Motion, estimate_motion, residual_misalignment, warp, whole_pixel_shift
from rbs.scans.scan import View


def errors(motion: Motion, u: Field) -> np.ndarray:
    """Length of the error of the displacement in every pixel of the body, mm."""
    z, x = np.meshgrid(*(np.arange(n) * s for n, s in zip(SHAPE, SPACING, strict=True)), indexing="ij")
    body = expectation(u)[0] > 0.5 * LEVEL
    return np.hypot(*(motion.field(SHAPE, SPACING) - np.stack(u(z, x))))[body]


@pytest.mark.parametrize("u", [rigid(0.7, -0.5), rigid(-1.5, 2.26), rigid(6, 0, 0.6), rigid(3, -4, -1.0)])
def test_the_motion_of_the_whole_body_is_found_to_a_tenth_of_a_pixel(u: Field) -> None:
    motion = estimate_motion(*passes(u), SPACING)
    assert motion.kind == "rigid"
    assert np.percentile(errors(motion, u), 95) < 0.25
    assert motion.sd_mm < 0.25


def test_shift_and_angle_are_named_in_the_terms_they_are_documented_in() -> None:
    u = rigid(3, -4, 1.0)
    motion = estimate_motion(*passes(u), SPACING)
    down, across = u(*(np.array([[c]]) for c in motion.centre_mm))
    assert motion.shift_mm == pytest.approx((down.item(), across.item()), abs=0.2)
    assert np.rad2deg(motion.angle) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bladder", [1.0, 1.5])
def test_two_passes_over_a_still_child_show_no_motion(seed: int, bladder: float) -> None:
    motion = estimate_motion(*passes(still, seed=seed, bladder=bladder), SPACING)
    assert motion.kind == "none"
    assert not motion.field(SHAPE, SPACING).any()


def test_what_moves_by_itself_is_found_where_that_pays() -> None:
    fixed, moving = passes(legs_apart)
    whole = estimate_motion(fixed, moving, SPACING, segments=False)
    motion = estimate_motion(fixed, moving, SPACING)
    assert (whole.kind, motion.kind) == ("rigid", "segments")
    assert np.median(errors(motion, legs_apart)) < 0.5
    assert np.percentile(errors(motion, legs_apart), 95) < 0.7 * np.percentile(errors(whole, legs_apart), 95)


@pytest.mark.parametrize(("exposure", "views"), [(0.25, 2), (0.8, 2), (0.5, 1)])
def test_exposure_and_number_of_views_are_free(exposure: float, views: int) -> None:
    u = rigid(2, -3)
    fixed, moving = passes(u, exposure=exposure)
    assert np.percentile(errors(estimate_motion(fixed[:views], moving[:views], SPACING), u), 95) < 0.35


def test_a_child_that_lies_elsewhere_is_found() -> None:
    u = rigid(70, 25)
    assert np.percentile(errors(estimate_motion(*passes(u), SPACING), u), 95) < 0.4


def test_a_real_scan_moved_by_whole_pixels(real_scan: Path) -> None:
    scan = read_nm(real_scan, views=(View.ANTERIOR,))
    rng = np.random.default_rng(0)
    fixed, moving = split(scan.aligned().astype(np.int64), (0.5, 0.25), rng)
    assert estimate_motion(fixed, moving, scan.spacing_mm).kind == "none"
    motion = estimate_motion(np.roll(fixed, (-2, 1), (1, 2)), moving, scan.spacing_mm)
    moved = motion.field(fixed.shape[1:], scan.spacing_mm) / np.reshape(scan.spacing_mm, (2, 1, 1))
    np.testing.assert_allclose(moved[0], 2, atol=0.1)
    np.testing.assert_allclose(moved[1], -1, atol=0.1)


def test_a_smooth_image_is_laid_on_the_other_scan() -> None:
    u = rigid(-2.7, 3.3, 0.5)
    z, x = (np.arange(n) * s for n, s in zip(SHAPE, SPACING, strict=True))
    motion = Motion("rigid", (-2.7, 3.3), np.deg2rad(0.5), MIDDLE, np.zeros((2, 0, 0)), 0.1, (9.0, 0.0))
    np.testing.assert_allclose(motion.field(SHAPE, SPACING), np.stack(u(z[:, None], x[None])), atol=1e-9)
    found, wanted = warp(expectation(), motion, SPACING), expectation(u)
    inner = np.s_[:, 4:-4, 4:-4]
    np.testing.assert_allclose(found[inner], wanted[inner], atol=0.02)
    assert np.abs(expectation()[inner] - wanted[inner]).max() > 1
    motion = Motion("none", (0.0, 0.0), 0.0, MIDDLE, np.zeros((2, 0, 0)), 0.1, (0.0, 0.0))
    image = expectation()
    assert warp(image, motion, SPACING) is image


def test_a_part_of_the_field_is_a_part_of_the_whole_field() -> None:
    motion = estimate_motion(*passes(legs_apart), SPACING)
    whole = motion.field(SHAPE, SPACING)
    np.testing.assert_allclose(motion.field((64, 32), SPACING, 48, 16), whole[:, 48:112, 16:48])
    np.testing.assert_allclose(motion.field((30, 20), SPACING, 3, 5, 2), whole[:, 3:63:2, 5:45:2])


def test_counts_move_by_whole_pixels_and_stay_counts() -> None:
    counts = np.random.default_rng(0).poisson(3.0, (2, *SHAPE)).astype(np.uint16)
    shift = (2.2 * SPACING[0], -3.4 * SPACING[1])  # by 2 and -3 pixels
    motion = Motion("rigid", shift, 0.002, MIDDLE, np.zeros((2, 0, 0)), 0.1, (9.0, 0.0))
    moved, known = whole_pixel_shift(counts, motion, SPACING)
    assert moved.dtype == counts.dtype
    np.testing.assert_array_equal(moved[:, known], np.roll(counts, (-2, 3), (1, 2))[:, known])
    assert not moved[:, ~known].any()
    assert not known[-2:].any()
    assert not known[:, :3].any()
    assert known[:-2, 3:].all()
    # Further than the image is wide: nothing is known.
    far = Motion("rigid", (0.0, 1e4), 0.0, MIDDLE, np.zeros((2, 0, 0)), 0.1, (9.0, 0.0))
    moved, known = whole_pixel_shift(counts, far, SPACING)
    assert not moved.any()
    assert not known.any()


def test_the_residual_tells_motion_from_noise() -> None:
    u = rigid(2.5, -2.0)
    fixed, moving = passes(u)
    before = residual_misalignment(fixed, moving, SPACING)
    after = residual_misalignment(fixed, moving, SPACING, estimate_motion(fixed, moving, SPACING))
    assert before.median_mm == pytest.approx(np.hypot(2.5, 2.0), abs=0.4)
    np.testing.assert_allclose(np.median(before.left_mm, axis=0), (2.5, -2.0), atol=0.4)
    assert after.median_mm < 1.3 * after.floor_median_mm < 0.8
    assert len(before.blocks_mm) == len(before.left_mm) == len(before.sd_mm) > 5


def test_its_floor_is_what_still_passes_show() -> None:
    found = [residual_misalignment(*passes(still, seed=seed), SPACING) for seed in range(6)]
    for shown, floor in (("median_mm", "floor_median_mm"), ("p95_mm", "floor_p95_mm")):
        ratio = np.mean([getattr(r, shown) for r in found]) / np.mean([getattr(r, floor) for r in found])
        assert 0.4 < ratio < 1.2, shown


def test_scans_that_cannot_be_registered_are_refused() -> None:
    fixed, moving = passes(still)
    with pytest.raises(ScanError, match="have shapes"):
        estimate_motion(fixed, moving[:, 1:], SPACING)
    with pytest.raises(ScanError, match="fewer than 1000 counts"):
        residual_misalignment(fixed, 0 * moving, SPACING)
