"""Phantom children against the published facts they stand for."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import shift
from scipy.optimize import curve_fit

from rbs.errors import RbsError
from rbs.scans.scan import REGIONS
from rbs.synthetic.skeleton import COLUMNS, ROWS, SPACING_MM, Disease, Phantom, make_child, make_passes
from rbs.synthetic.skeleton import child as drawing
from rbs.synthetic.skeleton.body import draw_body
from rbs.synthetic.skeleton.canvas import Canvas, Site
from rbs.synthetic.skeleton.child import UNSCANNED
from rbs.synthetic.skeleton.disease import draw_disease, draw_lesions
from rbs.synthetic.skeleton.growth import (
    Sex,
    dose_mbq,
    draw_child,
    expected_counts,
    head_fraction,
    physis_ratio,
)
from rbs.synthetic.skeleton.projection import Attenuator, Camera, project, resolution_mm

UNLIKE = (0, 5, 8, 11, 12, 20, 21, 22, 23)
"""Seeds of children that differ in all that is drawn now and then: disease, foci, metal, drops, part."""

AGES = (0.5, 1, 2, 3.5, 5, 7, 9, 11, 12, 13, 14, 16)


def healthy(age: float, sex: Sex, seed: int) -> Phantom:
    """Scanned from head to toe, without disease of whole bones; there may be foci."""
    for attempt in range(100):
        rng = np.random.default_rng([seed, attempt])
        subject = drawing._draw_subject(age, sex, rng)  # all of a child takes a hundred times as long
        field = drawing._draw_field(subject, rng)
        if not subject.disease.name and field.scanned == slice(0, field.rows):
            phantom = make_child(age, sex, np.random.default_rng([seed, attempt]))
            assert not phantom.partial
            assert not phantom.disease.name
            return phantom
    raise AssertionError


@pytest.fixture(scope="module")
def children() -> list[Phantom]:
    return [healthy(age, ("F", "M")[i % 2], i) for i, age in enumerate(AGES)]


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
    assert 1.5 < spine < 2.5
    assert 1.5 < pelvis < 3.0
    assert 0.7 < skull < 1.2
    assert 0.6 < ribs < 1.0
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


@pytest.mark.parametrize(
    ("age", "sex", "projected"),
    [(2.0, "F", False), (6.0, "M", False), (11.0, "F", True), (13.0, "M", True), (18.0, "F", False)],
)
def test_drawn_growth_plates_follow_the_curve(
    age: float, sex: Sex, projected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not projected:  # a third of the time; the density that is measured lies in the child
        monkeypatch.setattr(drawing, "project", lambda planes, *_: np.stack([planes.sum(axis=0)] * 2))
    drawn = [healthy(age, sex, seed) for seed in range(6)]
    ratio = np.mean([at(p, "distal femoral physis") / at(p, "femoral diaphysis") for p in drawn])
    assert ratio == pytest.approx(physis_ratio(age, sex), rel=0.2)


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
        assert 4 <= lesion.fwhm_mm <= lesion.length_mm
        assert lesion.kind == "fracture" or lesion.length_mm == lesion.fwhm_mm <= 25
        assert (lesion.contrast < 1) == (lesion.kind == "cold")
        if lesion.kind != "cold":
            assert 1.3 <= lesion.contrast <= 6
            assert phantom.labels[0, lesion.row, lesion.column] == label("hot spots")
            assert phantom.labels[1, lesion.row, COLUMNS - 1 - lesion.column] == label("hot spots")


def test_cold_lesions_are_recorded_as_they_are_drawn(children: list[Phantom]) -> None:
    body = draw_body(children[4].child, np.random.default_rng(0))
    cold = []
    for seed in range(1000):
        canvas = Canvas((160, 160), 0.5, (40.0, 40.0), np.array([0.0, 50.0]), np.ones((160, 160), np.float32))
        canvas.planes += np.array([1.5, 0.5], np.float32)[:, None, None]  # the lesion lies in the first plane
        canvas.sites.append(Site("spine", 0.0, 0.0, 0.0))
        canvas.sites.append(Site("spine", 0.0, 0.0, 0.0, radius=5.0))
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


def test_fractures_are_lines_across_their_bone(children: list[Phantom]) -> None:
    """Second moments of what was added: FWHM² / (8 ln 2) along the line and across it."""
    body = draw_body(children[4].child, np.random.default_rng(0))
    bone = 0.3  # its direction, radians
    found = []
    for seed in range(400):
        canvas = Canvas((200, 200), 0.5, (50.0, 50.0), np.array([0.0, 50.0]), np.ones((200, 200), np.float32))
        canvas.planes += np.float32(0.5)
        canvas.sites.append(Site("legs", 0.0, 0.0, 0.0, radius=9.0, angle=bone))
        lesions, _ = draw_lesions(canvas, body, np.random.default_rng(seed))
        if len(lesions) == 1 and lesions[0].kind == "fracture":
            found.append((lesions[0], canvas.planes.sum(axis=0) - 1))
    assert len(found) > 3
    off = []
    for lesion, added in found:
        z, x = (0.5 * grid for grid in np.indices(added.shape))
        weights = added / added.sum()
        z, x = z - (z * weights).sum(), x - (x * weights).sum()
        along = x * np.cos(lesion.angle) + z * np.sin(lesion.angle)
        across = z * np.cos(lesion.angle) - x * np.sin(lesion.angle)
        for way, fwhm in ((along, lesion.length_mm), (across, lesion.fwhm_mm)):
            assert np.sqrt(8 * np.log(2) * (way**2 * weights).sum()) == pytest.approx(fwhm, rel=0.02)
        assert added.max() == pytest.approx(lesion.contrast - 1, rel=0.02)
        off.append(abs(np.cos(lesion.angle - bone)))
    assert np.median(off) < 0.35  # a right angle, give or take 0.25 radians


def with_disease(monkeypatch: pytest.MonkeyPatch, disease: Disease, seed: int = 3) -> Phantom:
    monkeypatch.setattr(drawing, "draw_disease", lambda rng: draw_disease(rng) and disease)
    return make_child(9, "M", np.random.default_rng(seed))


def test_disease_changes_the_bones_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    none = with_disease(monkeypatch, Disease())

    def ratio(phantom: Phantom, mark: str) -> float:
        return float(phantom.density[pixel(phantom, mark)] / none.density[pixel(none, mark)])

    leg = with_disease(monkeypatch, Disease("limb", limb=("legs", 1), lively=1.7))
    for mark in ("femoral diaphysis", "femoral metaphysis", "distal femoral physis"):
        assert ratio(leg, f"{mark} +1") == pytest.approx(1.7, rel=0.02)
        assert ratio(leg, f"{mark} -1") == pytest.approx(1, rel=0.01)
    plates = with_disease(monkeypatch, Disease("growth plates", limb=("legs", -1), plates=(1, 0.5, 1, 1)))
    assert ratio(plates, "distal femoral physis -1") == pytest.approx(0.5, rel=0.02)
    assert ratio(plates, "distal femoral physis +1") == pytest.approx(1, rel=0.01)
    assert ratio(plates, "femoral diaphysis -1") == pytest.approx(1, rel=0.01)
    scan = with_disease(monkeypatch, Disease("superscan", {"spine": 1.4, "soft": 0.5}))
    assert ratio(scan, "L3") > 1.2
    body = none.soft > 0
    assert np.median(scan.soft[body] / none.soft[body]) == pytest.approx(0.5, rel=1e-4)


def test_diseases_and_their_absence_are_as_frequent_as_stated() -> None:
    drawn = [draw_disease(np.random.default_rng(seed)) for seed in range(2000)]
    names = [disease.name for disease in drawn]
    assert names.count("") / 2000 == pytest.approx(0.8, abs=0.03)
    for name, share in (("superscan", 0.02), ("metaphyses", 0.03), ("limb", 0.05), ("growth plates", 0.1)):
        assert names.count(name) / 2000 == pytest.approx(share, abs=0.02)
    assert all((disease.limb is not None) == (disease.name in ("limb", "growth plates")) for disease in drawn)


def test_a_part_of_the_body_is_a_part_of_the_picture() -> None:
    """Nothing is expected, labelled, marked or listed outside the scanned rows."""
    children = (make_child(6, "F", np.random.default_rng(seed)) for seed in range(200))
    parts = list(itertools.islice((phantom for phantom in children if phantom.partial), 2))
    assert len(parts) == 2
    for phantom in parts:
        rows = np.flatnonzero((phantom.expectation > UNSCANNED).any(axis=(0, 2)))
        assert (rows[-1] - rows[0] + 1) * SPACING_MM == pytest.approx(phantom.scan_length_mm, abs=1e-3)
        assert phantom.scan_length_mm < 0.9 * 10 * phantom.child.height_cm
        outside = np.setdiff1d(np.arange(ROWS), rows)
        assert not phantom.labels[:, outside].any()
        places = [row for row, _ in phantom.marks.values()] + [one.row for one in phantom.lesions]
        assert all(rows[0] <= row < rows[-1] + 1 for row in places)


def test_metal_weakens_what_lies_behind_it_and_nothing_else() -> None:
    shape = (32, 32)
    planes = np.zeros((2, *shape), np.float32)
    planes[0, 8, 8] = planes[1, 24, 24] = 100.0  # seen from the front, behind the metal and before it
    air = np.zeros(shape, np.float32)
    whole = np.full(shape, 0.4, np.float32)
    metal = Attenuator("plate", 16, 16, 0.0, (slice(0, 32), slice(0, 32)), whole)
    camera = Camera(1.0, front_mm=50, back_mm=-50, scatter=0.0)
    seen = project(planes, np.array([-10.0, 10.0]), air, air, air, camera, [metal])
    behind, before = np.s_[:16, :16], np.s_[16:, 16:]
    assert [seen[0][behind].sum(), seen[0][before].sum()] == pytest.approx([40, 100], rel=2e-3)
    assert [seen[1][behind].sum(), seen[1][before].sum()] == pytest.approx([100, 40], rel=2e-3)


def test_columns_count_as_the_field_lets_them() -> None:
    shape = (16, 64)
    soft, front, back = np.full(shape, 0.01, np.float32), np.full(shape, 50.0), np.full(shape, -50.0)
    none, depth = np.zeros((1, *shape), np.float32), np.array([0.0])
    even = project(none, depth, soft, front, back, Camera(2.0, 100, -100))
    sensitivity = np.ones((2, 64), np.float32)
    sensitivity[1, 20:40] = 0.9
    table = project(none, depth, soft, front, back, Camera(2.0, 100, -100, sensitivity=sensitivity))
    np.testing.assert_allclose(table, even * sensitivity[:, None], rtol=1e-6)


def test_metal_is_seen_where_it_is_listed() -> None:
    """The same child without it is brighter there, by no more than the metal can take away."""
    seen = 0
    for seed in range(40):
        rng, again = np.random.default_rng([5, seed]), np.random.default_rng([5, seed])
        phantom = make_child(10, "M", rng)
        shown = [one for one in phantom.attenuators if one.name in ("pendant", "port", "button", "buckle")]
        if not shown:
            continue
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                drawing, "draw_attenuators", lambda *args, draw=drawing.draw_attenuators: draw(*args)[:0]
            )
            bare = make_child(10, "M", again)
        ratio = phantom.expectation / bare.expectation
        for one in shown:
            assert one.transmission.min() < ratio[0, one.row, one.column] < 0.97
            assert ratio[1, one.row, COLUMNS - 1 - one.column] == pytest.approx(1, abs=0.02)
        seen += 1
        if seen == 2:
            return
    raise AssertionError(f"{seen} of 40 children had metal on their front")


def test_posterior_view_is_mirrored_and_sees_the_spine_better(children: list[Phantom]) -> None:
    for phantom in children[3:]:
        row, column = pixel(phantom, "L3")
        anterior, posterior = phantom.expectation
        front = anterior[row - 4 : row + 5, column - 3 : column + 4].mean()
        back = posterior[row - 4 : row + 5, COLUMNS - 1 - column - 3 : COLUMNS - 1 - column + 4].mean()
        assert back > front


def test_a_point_is_weakened_and_blurred_as_the_closed_form_says() -> None:
    """A point 30 mm deep in 100 mm of water, 100 mm from the collimator."""
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
    drawn: list[tuple[Phantom, Phantom]] = []
    for seed, age in ((0, 0.8), (1, 3), (7, 6), (3, 9), (8, 12), (5, 15)):
        rng, moves = np.random.default_rng(seed), np.random.default_rng([seed, 1])
        drawn.append(make_passes(age, "FM"[seed % 2], rng, moves))  # type: ignore[arg-type]
    assert not any(first.partial for first, _ in drawn)
    return drawn


def test_the_first_pass_is_the_child_that_lies_still(passes: list[tuple[Phantom, Phantom]]) -> None:
    assert np.array_equal(passes[2][0].expectation, make_child(6, "M", np.random.default_rng(7)).expectation)


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
    """The trunk of the first pass, shifted by the motion, is that of the second."""
    for first, second in passes:
        trunk = np.s_[pixel(first, "shoulder +1")[0] : pixel(first, "L3")[0], 60:196]
        a, b = first.expectation[0].astype(float), second.expectation[0].astype(float)

        def left(more_x: float, more_z: float, a: np.ndarray = a, b: np.ndarray = b) -> float:
            x, z = second.motion.shift_mm  # noqa: B023
            moved = shift(a, ((z + more_z) / SPACING_MM, (x + more_x) / SPACING_MM), order=3)
            return float(((moved - b)[trunk] ** 2).sum() / ((a - b)[trunk] ** 2).sum())  # noqa: B023

        assert left(0, 0) < 0.05
        assert left(0, 0) < min(left(0.5, 0), left(-0.5, 0), left(0, 0.5), left(0, -0.5))


def test_a_second_pass_draws_the_same_child_in_the_same_field() -> None:
    """Drawing never depends on the motion: one draw more or less would make another child."""
    kinds: set[str] = set()
    for seed in UNLIKE:
        first, second = make_passes(7, "F", np.random.default_rng([8, seed]), np.random.default_rng(seed))
        assert second.scan_length_mm == first.scan_length_mm
        assert second.disease == first.disease
        assert [one.name for one in second.attenuators] == [one.name for one in first.attenuators]
        for name in first.marks.keys() & second.marks.keys():
            assert SPACING_MM * np.hypot(*np.subtract(second.marks[name], first.marks[name])) <= 6.01
        alike = np.corrcoef(*(np.sqrt(p.expectation[0]).ravel() for p in (first, second)))[0, 1]
        assert alike > 0.97
        kinds |= {first.disease.name, *(one.kind for one in first.lesions), *(["part"] * first.partial)}
        kinds |= {"metal"} if first.attenuators else set()
        kinds |= {name for name in ("injected", "contaminated") if getattr(first, name)}
    assert {"", "limb", "growth plates", "metaphyses"} <= kinds
    assert {"hot", "cold", "fracture", "metal", "part", "injected", "contaminated"} <= kinds


def test_bladders_fill(passes: list[tuple[Phantom, Phantom]]) -> None:
    for first, second in passes:
        row, column = pixel(first, "hip +1")[0], COLUMNS // 2

        def held(phantom: Phantom, row: int = row, column: int = column) -> float:
            window = slice(row - 25, row + 25), slice(column - 30, column + 30)
            bladder = phantom.labels[0][window] == label("urinary tract")
            return float(phantom.density[window][bladder].sum())

        assert held(second) / held(first) == pytest.approx(second.motion.filling, rel=0.12)


def test_another_camera_sees_the_same_child_with_as_many_counts() -> None:
    ours, blurred = (
        make_child(6.0, "F", np.random.default_rng(3), camera=change)
        for change in (None, lambda camera: replace(camera, blur=2.5, scatter=0.5))
    )
    assert ours.lesions == blurred.lesions
    np.testing.assert_array_equal(ours.labels, blurred.labels)
    assert blurred.expectation.sum() == pytest.approx(ours.expectation.sum(), rel=1e-4)
    assert blurred.expectation.max() < 0.8 * ours.expectation.max()
