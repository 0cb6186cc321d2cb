"""Each fault is found at a clear severity, and clean scans show none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from rbs.scans.counts import block_sums
from rbs.scans.dicom.reader import read_nm
from rbs.scans.quality.check import CHECKS, check_quality, suspicions
from rbs.scans.quality.clean import CLEAN
from rbs.scans.quality.findings import Kind
from rbs.scans.quality.seen import see
from rbs.scans.scan import Provenance, Scan, View
from rbs.synthetic import faults
from rbs.synthetic.skeleton import SPACING_MM, VIEWS, make_child

CHILDREN = ((3.0, "F", 1), (9.0, "M", 5), (14.0, "F", 0))


@pytest.fixture(scope="session")
def expected() -> list[Scan]:
    """Expected standard scans of three children without metal, contamination or missing parts."""
    scans = []
    for age, sex, seed in CHILDREN:
        phantom = make_child(age, sex, np.random.default_rng(seed))
        assert not (phantom.partial)
        assert not (phantom.contaminated)
        assert not (phantom.attenuators)
        scans.append(Scan(phantom.expectation, VIEWS, (SPACING_MM, SPACING_MM), 20.0))
    return scans


@pytest.mark.parametrize("number", range(len(CHILDREN)))
def test_clean_scans_of_coarse_pixels_show_none(expected: list[Scan], number: int) -> None:
    counts = np.random.default_rng(number).poisson(0.5 * expected[number].counts)
    coarse = block_sums(counts, 2, 2).astype(int)
    scan = replace(expected[number], counts=coarse, spacing_mm=(4.52, 4.52), velocity=40.0)
    assert kinds(scan) == []
    torn = np.concatenate([coarse[:, :200], coarse[:, 180:]], axis=1)
    assert Kind.ROWS in kinds(replace(scan, counts=torn))


def kinds(scan: Scan) -> list[Kind]:
    return [finding.kind for finding in check_quality(scan)]


def sign_of(scan: Scan, kind: Kind) -> float:
    seen = see(scan)
    assert seen is not None
    return next(sign.score for check in CHECKS if (sign := check(seen)) and sign.kind == kind)


def scores(scan: Scan) -> dict[Kind, float]:
    return {sign.kind: sign.score for sign in suspicions(scan)}


@pytest.mark.parametrize(("child", "views"), [(0, (0, 1)), (1, (0, 1)), (2, (0, 1)), (1, (0,)), (2, (1,))])
def test_a_clean_scan_shows_nothing(child: int, views: tuple[int, ...], expected: list[Scan]) -> None:
    scan = faults.draw(expected[child], np.random.default_rng(child))
    part = replace(scan, counts=scan.counts[list(views)], views=tuple(VIEWS[v] for v in views))
    assert check_quality(part) == []


def test_every_kind_has_a_check_a_fault_and_a_tail(expected: list[Scan]) -> None:
    scan = faults.draw(expected[1], np.random.default_rng(0))
    assert len(CHECKS) == len(Kind) >= 12
    assert set(scores(scan)) | {Kind.CONTAMINATION} == set(Kind) == set(CLEAN) == set(faults.FAULTS)


OFTEN_MISSED = (faults.motion_under_way, faults.rows_left_out)
"""Of these, some are too small for the counts of a child: see docs/results/check.csv."""

FOUND = [
    (kind, fault) for kind, those in faults.FAULTS.items() for fault in those if fault not in OFTEN_MISSED
]


@pytest.mark.parametrize(("number", "kind", "fault"), [(n, *pair) for n, pair in enumerate(FOUND)])
def test_a_fault_is_found(
    number: int, kind: Kind, fault: Callable[[Scan, np.random.Generator], Scan], expected: list[Scan]
) -> None:
    scan = fault(expected[number % len(expected)], np.random.default_rng(SEEDS.get(fault, 1)))
    assert kind in kinds(scan)


SEEDS: dict[object, int] = {faults.window: 2, faults.metal: 2}
"""Other draws of the severity, where that of seed 1 is a mild one."""


@pytest.mark.parametrize("fault", OFTEN_MISSED)
def test_a_fault_raises_the_score(fault: Callable[..., Scan], expected: list[Scan]) -> None:
    kind = next(kind for kind, those in faults.FAULTS.items() if fault in those)
    clean = np.mean([sign_of(faults.draw(scan, np.random.default_rng(1)), kind) for scan in expected])
    faulty = np.mean([sign_of(fault(scan, np.random.default_rng(1)), kind) for scan in expected])
    assert faulty > 1.1 * clean


def test_places_are_in_pixels_of_the_frame_as_stored(expected: list[Scan]) -> None:
    counts = expected[1].counts.copy()
    y, x = np.indices(counts.shape[1:])
    counts[1] += 12 * np.exp(-((y - 100) ** 2 + (x - 40) ** 2) / 40)  # beside the head, in one view
    found = check_quality(faults.draw(expected[1].with_counts(counts), np.random.default_rng(0)))
    (spot,) = (finding for finding in found if finding.kind == Kind.CONTAMINATION)
    assert spot.view == "posterior"
    assert spot.place is not None
    (top, bottom), (left, right) = spot.place.rows, spot.place.columns
    assert top < 100 < bottom
    assert left < 40 < right
    assert bottom - top < 40
    assert right - left < 40
    assert f"posterior view, rows {top}-{bottom - 1}" in str(spot)
    assert spot.as_dict()["kind"] == "contamination"


def test_one_fault_is_not_reported_as_another(expected: list[Scan]) -> None:
    assert kinds(faults.mirrored(expected[2], np.random.default_rng(0))) == [Kind.MIRRORED]
    assert kinds(faults.swapped(expected[2], np.random.default_rng(0))) == [Kind.SWAPPED]
    assert kinds(faults.rows_twice(expected[2], np.random.default_rng(0))) == [Kind.ROWS]


def header(**changes: object) -> Dataset:
    """Times of three hours after the injection, and a window on the peak."""
    drug, limits, window, ds = Dataset(), Dataset(), Dataset(), Dataset()
    drug.RadionuclideTotalDose = changes.pop("activity", "300")
    drug.RadiopharmaceuticalStartTime = "090000"
    limits.EnergyWindowLowerLimit, limits.EnergyWindowUpperLimit = changes.pop("window", ("126", "154"))
    window.EnergyWindowRangeSequence = [limits]
    ds.RadiopharmaceuticalInformationSequence, ds.EnergyWindowInformationSequence = [drug], [window]
    ds.AcquisitionTime = "120000"
    return ds


def with_header(scan: Scan, **changes: object) -> Scan:
    return replace(scan, provenance=Provenance(header=header(**changes)))


def test_the_window_in_the_header_is_read(expected: list[Scan]) -> None:
    scan = faults.draw(expected[1], np.random.default_rng(0))
    assert Kind.WINDOW not in kinds(with_header(scan))
    (found,) = (f for f in check_quality(with_header(scan, window=("145", "180"))) if f.kind == Kind.WINDOW)
    assert "145 to 180 keV" in found.fault


def test_the_activity_in_the_header_tells_what_to_expect(expected: list[Scan]) -> None:
    scan = faults.draw(expected[1], np.random.default_rng(0))
    child = 0.5 * scan.counts.sum() / 2000  # MBq of a usual child with so many counts
    fit, much = (scores(with_header(scan, activity=f"{a:.1f}"))[Kind.VELOCITY] for a in (child, 20 * child))
    assert fit < 0.7
    assert much > 2
    assert Kind.VELOCITY in kinds(with_header(scan, activity=f"{20 * child:.1f}"))
    # Zero stands for missing in some headers.
    assert scores(with_header(scan, activity="0")) == scores(scan)


@pytest.mark.parametrize(
    "counts",
    [
        np.zeros((2, 600, 128), np.int32),
        np.eye(600, 128, dtype=np.int32)[None].repeat(2, 0),
        np.ones((2, 600, 128), np.int32),
        np.full((2, 600, 3), 7, np.int32),
        np.stack([np.zeros((600, 128), np.int32), np.random.default_rng(0).poisson(3, (600, 128))]),
        np.random.default_rng(0).poisson(0.001, (2, 600, 128)),
        np.random.default_rng(0).integers(0, 65535, (2, 300, 40)),
        np.random.default_rng(0).poisson(3.0, (2, 60, 40)),
    ],
)
def test_what_is_no_body_is_no_fault_of_the_program(counts: np.ndarray) -> None:
    for views in ((View.ANTERIOR, View.POSTERIOR), (View.POSTERIOR,)):
        for finding in check_quality(Scan(counts[: len(views)], views, (2.3, 2.3), 40.0)):
            assert np.isfinite([finding.score, finding.p_value]).all()


def test_a_part_of_the_body_is_not_judged(expected: list[Scan]) -> None:
    part = expected[2].counts[:, 200:400]  # 45 cm
    assert check_quality(faults.draw(expected[2].with_counts(part), np.random.default_rng(0))) == []


def test_clean_scans_of_adults_show_nothing(real_scans: list[Path]) -> None:
    assert real_scans
    for file in real_scans:
        views = (View.ANTERIOR,) if "anterior" in file.name else None
        scan = read_nm(file, views=views)
        assert check_quality(scan) == []
        for counts, view in zip(scan.counts, scan.views, strict=True):
            assert check_quality(replace(scan, counts=counts[None], views=(view,))) == []
