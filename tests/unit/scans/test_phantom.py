"""Phantom children against the published facts they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import shift
from scipy.optimize import curve_fit

from rbs.errors import RbsError
from rbs.scans.phantom import COLUMNS, ROWS, SPACING_MM, Phantom, make_child, make_passes
from rbs.scans.phantom.body import draw_body
from rbs.scans.phantom.canvas import Canvas, Site
from rbs.scans.phantom.growth import dose_mbq, draw_child, expected_counts, head_fraction, physis_ratio
from rbs.scans.phantom.organs import draw_lesions
from rbs.scans.phantom.projection import Camera, project, resolution_mm
from rbs.scans.scan import REGIONS

AGES = (0.5, 1, 2, 3.5, 5, 7, 9, 11, 12, 13, 14, 16)


@pytest.fixture(scope="module")
def children() -> list[Phantom]:
    return [make_child(age, "FM"[i % 2], np.random.default_rng(i)) for i, age in enumerate(AGES)]


def label(name: str) -> int:
    return REGIONS.index(name) + 1


def median(phantom: Phantom, region: str) -> float:
    return float(np.median(phantom.density[phantom.labels[0] == label(region)]))


def pixel(phantom: Phantom, mark: str) -> tuple[int, int]:
    row, column = phantom.marks[mark]
    return round(row), round(column)


def at(phantom: Phantom, mark: str) -> float:
    """Mean density at a landmark of both legs."""
    return float(np.mean([phantom.density[pixel(phantom, f"{mark} {side}")] for side in ("-1", "+1")]))


def test_shapes_types_and_a_positive_expectation(children: list[Phantom]) -> None:
    for phantom in children:
        assert phantom.expectation.shape == phantom.labels.shape == (2, ROWS, COLUMNS)
        assert phantom.expectation.dtype == np.float32
        assert phantom.labels.dtype == np.uint8
        assert phantom.expectation.min() > 0


def test_counts_follow_weight_within_a_factor_of_two(children: list[Phantom]) -> None:
    kg, counts = np.log([10, 20, 30, 50, 70]), np.log([0.23e6, 0.36e6, 0.45e6, 0.60e6, 0.84e6])
    for phantom in children:
        if phantom.child.weight_kg >= 10:
            stated = np.exp(np.interp(np.log(phantom.child.weight_kg), kg, counts))
            ratios = phantom.expectation.sum(axis=(1, 2)) / stated
            assert (ratios > 0.5).all(), phantom.child
            assert (ratios < 2).all(), phantom.child


def test_counts_go_on_falling_below_the_table() -> None:
    assert expected_counts(5) < expected_counts(8) < expected_counts(10) == pytest.approx(0.23e6)


def test_heights_weights_and_doses_are_those_of_children() -> None:
    rng = np.random.default_rng(0)
    for age, height, weight in ((0.33, 64, 7), (2, 91, 13), (6, 118, 22), (11, 147, 40), (16, 174, 64)):
        drawn = [draw_child(age, "M", rng) for _ in range(200)]
        assert np.mean([c.height_cm for c in drawn]) == pytest.approx(height, rel=0.03)
        assert np.mean([c.weight_kg for c in drawn]) == pytest.approx(weight, rel=0.06)
    assert [dose_mbq(kg) for kg in (3.5, 10, 20, 30, 40, 50)] == [40, 95, 170, 240, 310, 375]


def test_head_is_the_stated_share_of_height(children: list[Phantom]) -> None:
    assert [head_fraction(a) for a in (0.5, 2, 6, 12)] == pytest.approx([0.24, 0.20, 0.17, 0.14])
    for phantom in children:
        rows = np.flatnonzero((phantom.labels[0] == label("skull")).any(axis=1))
        drawn = (rows[-1] - rows[0]) * SPACING_MM / (phantom.child.height_cm * 10)
        assert drawn == pytest.approx(head_fraction(phantom.child.age_y), rel=0.12)


def test_uptake_lies_in_its_ranges(children: list[Phantom]) -> None:
    diaphysis = np.array([at(p, "femoral diaphysis") for p in children])
    assert diaphysis.mean() == pytest.approx(1, abs=0.1)
    spine = np.mean([median(p, "spine") for p in children])
    pelvis = np.mean([median(p, "pelvis") for p in children])
    skull = np.mean([median(p, "skull") for p in children])
    ribs = np.mean([median(p, "thorax") for p in children])
    metaphysis = np.mean([at(p, "femoral metaphysis") for p in children])
    assert 1.4 < spine < 2.5
    assert 1.2 < pelvis < 3.0
    assert 0.7 < skull < 1.3  # the face lies in it
    assert 0.6 < ribs < 1.2  # ribs cross shoulder blades
    assert 1.5 < metaphysis < 2.5


def test_soft_tissue_is_a_fraction_of_bone_in_the_image(children: list[Phantom]) -> None:
    ratios = []
    for phantom in children:
        bone = (phantom.labels[0] > 0) & (phantom.labels[0] < label("growth plates"))
        soft = (phantom.labels[0] == 0) & (phantom.soft > 0)
        ratios.append(phantom.expectation[0][bone].mean() / phantom.expectation[0][soft].mean())
    assert 3.0 - 1.1 < np.mean(ratios) < 3.0 + 1.1


def test_growth_plates_peak_at_the_published_ages_and_fade() -> None:
    ages = np.arange(0.5, 18.1, 0.25)
    for sex, peak_age, peak in (("F", 11, 8.3), ("M", 13, 8.2)):
        curve = np.array([physis_ratio(float(a), sex) for a in ages])  # type: ignore[arg-type]
        assert ages[curve.argmax()] == peak_age
        assert curve.max() == pytest.approx(peak)
        assert (np.diff(curve[ages >= 16]) < 0).all()
        assert physis_ratio(18, sex) < 0.5 * physis_ratio(16, sex)  # type: ignore[arg-type]


def test_drawn_growth_plates_follow_the_curve() -> None:
    for age, sex in ((2.0, "F"), (6.0, "M"), (11.0, "F"), (13.0, "M"), (18.0, "F")):
        drawn = [make_child(age, sex, np.random.default_rng(seed)) for seed in range(6)]  # type: ignore[arg-type]
        ratio = np.mean([at(p, "distal femoral physis") / at(p, "femoral diaphysis") for p in drawn])
        assert ratio == pytest.approx(physis_ratio(age, sex), rel=0.2)  # type: ignore[arg-type]


def test_growth_plates_are_thick_enough_to_be_seen(children: list[Phantom]) -> None:
    for phantom in children:
        row, column = pixel(phantom, "distal femoral physis +1")
        run = phantom.labels[0][row - 5 : row + 6, column] == label("growth plates")
        assert run.sum() >= 2


def test_every_region_occurs_in_a_cohort_and_most_in_everyone(children: list[Phantom]) -> None:
    for phantom in children:
        assert set(range(1, 9)) <= set(np.unique(phantom.labels[0]))
    assert any((p.labels == label("hot spots")).any() for p in children)


def test_hot_lesions_are_labelled_and_brighter_than_their_bone(children: list[Phantom]) -> None:
    lesions = [(p, lesion) for p in children for lesion in p.lesions]
    assert lesions
    assert any(not p.lesions for p in children)
    for phantom, lesion in lesions:
        assert 4 <= lesion.fwhm_mm <= 25
        if lesion.contrast > 1:
            assert 1.3 <= lesion.contrast <= 6
            assert phantom.labels[0, lesion.row, lesion.column] == label("hot spots")
            assert phantom.labels[1, lesion.row, COLUMNS - 1 - lesion.column] == label("hot spots")


def test_cold_lesions_are_recorded_as_they_are_drawn(children: list[Phantom]) -> None:
    body = draw_body(children[4].child, np.random.default_rng(0))
    cold = []
    for seed in range(1000):
        canvas = Canvas((160, 160), 0.5, (40.0, 40.0), np.array([0.0, 50.0]), np.ones((160, 160), np.float32))
        canvas.planes += np.array([1.5, 0.5], np.float32)[:, None, None]  # the lesion lies in the first plane
        canvas.sites.append(Site("spine", 0.0, 0.0, 0.0, 2.0))
        lesions, _ = draw_lesions(canvas, body, np.random.default_rng(seed))
        if len(lesions) == 1 and lesions[0].contrast < 1:
            lost = 2 - canvas.planes.sum(axis=0)
            cold.append((lesions[0], lost))
    assert len(cold) > 4
    assert min(lesion.fwhm_mm for lesion, _ in cold) == 8
    for lesion, lost in cold:
        row = lost[lesion.row]
        assert lesion.contrast == pytest.approx(1 - row[lesion.column] / 2)
        assert 0.5 * (row > row.max() / 2).sum() == pytest.approx(lesion.fwhm_mm, abs=0.5)


def test_posterior_view_is_mirrored_and_sees_the_spine_better(children: list[Phantom]) -> None:
    for phantom in children[3:]:
        row, column = pixel(phantom, "L3")
        anterior, posterior = phantom.expectation
        front = anterior[row - 4 : row + 5, column - 3 : column + 4].mean()
        back = posterior[row - 4 : row + 5, COLUMNS - 1 - column - 3 : COLUMNS - 1 - column + 4].mean()
        assert back > front


def test_a_point_is_weakened_and_blurred_as_the_closed_form_says() -> None:
    """A point 30 mm deep in 100 mm of water, 100 mm from the collimator: exp(-0.36), FWHM 7.0 mm."""
    spacing, shape = 1.0, (65, 65)
    planes = np.zeros((1, *shape), np.float32)
    planes[0, 32, 32] = 1000
    front, back = np.full(shape, 30, np.float32), np.full(shape, -70, np.float32)
    camera = Camera(spacing, front_mm=100, back_mm=-150, scatter=0.0)
    seen = project(planes, np.array([0.0]), np.zeros(shape, np.float32), front, back, camera)
    assert seen.sum(axis=(1, 2)) == pytest.approx([1000 * np.exp(-0.36), 1000 * np.exp(-0.84)], rel=1e-3)
    x = np.arange(65) - 32.0
    for view, fwhm in enumerate((7.0, 9.1)):
        (_, sigma), _ = curve_fit(
            lambda x, a, s: a * np.exp(-(x**2) / (2 * s**2)), x, seen[view, 32], (20, 3)
        )
        assert abs(sigma) * 2.3548 == pytest.approx(fwhm, rel=0.02)


def test_scatter_is_the_stated_fraction_and_soft_tissue_integrates_attenuation() -> None:
    shape = (256, 256)
    soft = np.zeros(shape, np.float32)
    soft[96:160, 96:160] = 0.01
    front, back = np.full(shape, 100, np.float32), np.full(shape, -100, np.float32)
    none = np.zeros((1, *shape), np.float32)
    clean = project(none, np.array([0.0]), soft, front, back, Camera(2.26, 120, -120, scatter=0.0))
    assert clean[0].sum() == pytest.approx(64 * 64 * 0.01 * (1 - np.exp(-2.4)) / 0.012, rel=1e-3)
    dirty = project(none, np.array([0.0]), soft, front, back, Camera(2.26, 120, -120, scatter=0.3))
    assert (dirty[0].sum() - clean[0].sum()) / dirty[0].sum() == pytest.approx(0.3, rel=0.02)


def test_resolution_is_that_of_the_collimator() -> None:
    assert [resolution_mm(d) for d in (50, 100, 150, 200)] == pytest.approx([5.2, 7.0, 9.1, 11.2])


def test_equal_generators_make_equal_children() -> None:
    one, two, other = (make_child(4, "F", np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert one.expectation.tobytes() == two.expectation.tobytes()
    assert one.labels.tobytes() == two.labels.tobytes()
    assert one.lesions == two.lesions
    assert one.expectation.tobytes() != other.expectation.tobytes()


@pytest.mark.parametrize(("age", "sex"), [(0.1, "F"), (40, "M"), (5, "X")])
def test_impossible_children_are_refused(age: float, sex: str) -> None:
    with pytest.raises(RbsError):
        make_child(age, sex, np.random.default_rng(0))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def passes() -> list[tuple[Phantom, Phantom]]:
    """Children of several ages, each before and after it moved."""
    drawn = []
    for seed, age in enumerate((0.8, 3, 6, 9, 12, 15)):
        rng, moves = np.random.default_rng(seed), np.random.default_rng([seed, 1])
        drawn.append(make_passes(age, "FM"[seed % 2], rng, moves))  # type: ignore[arg-type]
    return drawn


def test_the_first_pass_is_the_child_that_lies_still(passes: list[tuple[Phantom, Phantom]]) -> None:
    assert np.array_equal(passes[2][0].expectation, make_child(6, "F", np.random.default_rng(2)).expectation)


def test_a_moved_child_is_the_same_child_a_few_millimetres_away(
    passes: list[tuple[Phantom, Phantom]],
) -> None:
    furthest = []
    for first, second in passes:
        assert first.child == second.child
        assert first.injected == second.injected
        assert [(s.region, s.fwhm_mm) for s in first.lesions] == [
            (s.region, s.fwhm_mm) for s in second.lesions
        ]
        way = {
            name: SPACING_MM * np.hypot(*np.subtract(second.marks[name], first.marks[name]))
            for name in first.marks
        }
        furthest.append(max(way.values()))
        assert furthest[-1] <= 6.01
        trunk = np.hypot(*second.motion.shift_mm)  # the spine goes where the whole child goes
        assert way["L3"] == pytest.approx(trunk, abs=0.01)
        grown = second.expectation.sum(dtype=float) / first.expectation.sum(dtype=float)
        assert 0.98 < grown < 1.12  # by what the bladder gained
    assert max(furthest) > 2


def test_the_picture_moves_by_what_is_written_down(passes: list[tuple[Phantom, Phantom]]) -> None:
    """The trunk of the first pass, shifted by the motion, is that of the second; by 0.5 mm more it is not."""
    for first, second in passes:
        trunk = np.s_[pixel(first, "shoulder +1")[0] : pixel(first, "L3")[0], 60:196]
        a, b = first.expectation[0].astype(float), second.expectation[0].astype(float)

        def left(more_x: float, more_z: float, a: np.ndarray = a, b: np.ndarray = b) -> float:
            x, z = second.motion.shift_mm  # noqa: B023
            moved = shift(a, ((z + more_z) / SPACING_MM, (x + more_x) / SPACING_MM), order=3)
            return float(((moved - b)[trunk] ** 2).sum() / ((a - b)[trunk] ** 2).sum())  # noqa: B023

        assert left(0, 0) < 0.05
        assert left(0, 0) < min(left(0.5, 0), left(-0.5, 0), left(0, 0.5), left(0, -0.5))


def test_bladders_fill(passes: list[tuple[Phantom, Phantom]]) -> None:
    for first, second in passes:
        row, column = pixel(first, "hip +1")[0], COLUMNS // 2

        def held(phantom: Phantom, row: int = row, column: int = column) -> float:
            window = slice(row - 25, row + 25), slice(column - 30, column + 30)
            bladder = phantom.labels[0][window] == label("urinary tract")
            return float(phantom.density[window][bladder].sum())

        assert held(second) / held(first) == pytest.approx(second.motion.filling, rel=0.12)
