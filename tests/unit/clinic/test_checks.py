"""Fitness of a scan and contradictions between a restoration and its scan."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import kstest

from rbs.clinic.checks import BLOCK, check, contradictions, poisson_z
from rbs.scans.counts import block_sums
from rbs.scans.scan import Scan, View


def body(views: int = 2, rows: int = 128, columns: int = 96) -> np.ndarray:
    y, x = np.mgrid[:rows, :columns]
    one = 8 * np.exp(-(((x - 48) / 30) ** 4) - ((y - 64) / 55) ** 6) + 0.1
    return np.stack([one] * views)


@pytest.fixture
def rapid() -> Scan:
    counts = np.random.default_rng(1).poisson(body())
    return Scan(counts, (View.ANTERIOR, View.POSTERIOR), (2.3, 2.3), velocity=40.0, duration_s=300.0)


def test_a_rapid_raw_scan_is_fit(rapid: Scan) -> None:
    report = check(rapid)
    assert report.restoring.fit
    assert report.training.fit
    assert report.counts == tuple(rapid.counts.sum(axis=(1, 2)))
    assert report.counts_per_pixel[0] == pytest.approx(rapid.counts[0].mean())
    assert report.dispersion == pytest.approx((1, 1), abs=0.1)
    assert json.loads(json.dumps(report.as_dict()))["restoring"]["fit"] is True
    assert "40.0 cm/min" in str(report)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: replace(s, velocity=None), "velocity is unknown"),
        (lambda s: s.with_counts(gaussian_filter(1.0 * s.counts, (0, 1, 1))), "no raw counts"),
        (lambda s: s.with_counts(2 * s.counts), "no raw counts"),
        (lambda s: s.with_counts(s.counts // 40), "too few counts"),
    ],
    ids=["velocity", "smoothed", "doubled", "few"],
)
def test_a_fault_stops_both_purposes(rapid: Scan, change, reason: str) -> None:
    report = check(change(rapid))
    for verdict in (report.restoring, report.training):
        assert not verdict.fit
        assert any(reason in found.fault and found.remedy for found in verdict.reasons)


def test_one_frame_as_both_views_is_doubted(rapid: Scan) -> None:
    assert not check(rapid).restoring.warnings
    front = rapid.counts[0]
    for back in (front, front[:, ::-1]):
        report = check(rapid.with_counts(np.stack([front, back])))
        for verdict in (report.restoring, report.training):
            assert [text for text in verdict.warnings if "both views hold the same counts" in text]
    assert not check(Scan(front[None], (View.ANTERIOR,), (2.3, 2.3), velocity=40.0)).restoring.warnings


def test_a_steep_source_is_a_warning(rapid: Scan) -> None:
    counts = rapid.counts.copy()
    counts[1, 60, 20] = 200
    report = check(rapid.with_counts(counts))
    assert report.restoring.fit
    assert report.training.fit
    (warning,) = report.restoring.warnings
    assert "the posterior view has a hot pixel" in warning
    assert "rows 59-61, columns 19-21" in warning


def test_each_view_is_checked_for_itself(rapid: Scan) -> None:
    report = check(rapid.with_counts(rapid.counts * np.array([[[1]], [[2]]])))
    assert report.dispersion == pytest.approx((1, 2), rel=0.1)
    (reason,) = report.restoring.reasons
    assert "the posterior view holds no raw counts" in reason.fault


@pytest.mark.parametrize(("velocity", "fit"), [(10.0, False), (20.06, False), (26.0, True), (40.0, True)])
def test_only_scans_faster_than_the_standard_can_be_restored(rapid: Scan, velocity: float, fit: bool) -> None:
    report = check(replace(rapid, velocity=velocity))
    assert report.restoring.fit is fit
    assert report.training.fit


def test_the_standard_is_what_the_hospital_calls_standard(rapid: Scan) -> None:
    assert check(replace(rapid, velocity=20.0), standard_velocity=10).restoring.fit


def test_the_range_of_the_weights_warns(rapid: Scan) -> None:
    inside = {"spacing_mm": [2.2, 2.4], "counts_per_pixel": [0.3, 9.0], "exposure": [0.25, 0.75]}
    assert check(rapid, trained_on=inside).restoring.warnings == ()
    assert check(rapid, trained_on={"licence": "x"}).restoring.warnings == ()
    others = {"spacing_mm": [4.0, 5.0], "counts_per_pixel": [90, 99], "exposure": [0.2, 0.3]}
    for key, limits in others.items():
        warnings = check(rapid, trained_on={**inside, key: limits}).restoring.warnings
        assert len(warnings) == 1, key
        assert "outside what the weights were trained on" in warnings[0]
    assert check(rapid, trained_on={"spacing_mm": [4.0, 5.0]}).restoring.fit


def test_weights_trained_on_filtered_scans_warn(rapid: Scan) -> None:
    assert check(rapid, trained_on={"noise_filter": None}).restoring.warnings == ()
    filtered = {"noise_filter": {"cutoff_per_mm": 0.08, "order": 6.0}}
    (warning,) = check(rapid, trained_on=filtered).restoring.warnings
    assert "trained on scans filtered before export" in warning


def test_a_scan_of_fine_pixels_is_not_enlarged(rapid: Scan) -> None:
    fine, coarse = (replace(rapid, spacing_mm=(mm, mm)) for mm in (2.26, 4.52))
    assert check(coarse, scale=2).restoring.fit
    assert check(fine, scale=1).restoring.fit
    (reason,) = check(fine, scale=2).restoring.reasons
    assert str(reason) == (
        "its pixels of 2.26 x 2.26 mm are fine already, and --scale 2 is for those of 3.5 mm and more;"
        " restore it without --scale 2"
    )


def test_a_restoration_on_finer_pixels_is_compared_by_its_sums(rapid: Scan) -> None:
    even = rapid.with_counts(rapid.counts[:, : rapid.shape[0] // 2 * 2, : rapid.shape[1] // 2 * 2])
    sums = even.with_counts(block_sums(even.counts, 2, 2))
    standard = even.with_counts(2.0 * even.counts)
    assert contradictions(sums, standard, 0.5) == []
    assert contradictions(sums, standard.with_counts(3 * standard.counts), 0.5)


def test_one_view_is_noted(rapid: Scan) -> None:
    report = check(Scan(rapid.counts[:1], (View.ANTERIOR,), (2.3, 2.3), velocity=40.0))
    assert report.restoring.fit
    assert "one view only" in report.restoring.notes[0]


def test_poisson_z_is_standard_normal_for_poisson_counts() -> None:
    mean = np.full(5_000, 10_000.0)
    z = poisson_z(np.random.default_rng(0).poisson(mean), mean)
    assert kstest(z, "norm").pvalue > 1e-3
    assert poisson_z(np.zeros(1), np.full(1, 8.0))[0] == pytest.approx(-4.0)


def test_the_truth_is_not_contradicted(rapid: Scan) -> None:
    truth = rapid.with_counts(2 * body(), velocity=20.0)
    assert contradictions(rapid, truth, 0.5) == []


def test_an_invented_and_a_lost_focus_are_found_where_they_are(rapid: Scan) -> None:
    estimate = 2 * body()
    estimate[1, 40:44, 50:54] += 60.0
    estimate[0, 100:112, 40:52] *= 0.3
    invented_or_lost = contradictions(rapid, rapid.with_counts(estimate, velocity=20.0), 0.5)
    places = {(found.view, found.z > 0): found for found in invented_or_lost}
    assert set(places) == {("posterior", False), ("anterior", True)}
    lost = places[("anterior", True)]
    assert lost.rows[0] <= 100 < 112 <= lost.rows[1]
    assert lost.columns[0] <= 40 < 52 <= lost.columns[1]
    assert "posterior rows 32-47, columns 48-63: restored more counts" in str(places[("posterior", False)])


def test_blocks_at_the_edge_are_checked(rapid: Scan) -> None:
    cut = rapid.with_counts(rapid.counts[:, : 4 * BLOCK + 5, : 5 * BLOCK + 3])
    estimate = 2 * body()[:, : 4 * BLOCK + 5, : 5 * BLOCK + 3]
    assert contradictions(cut, cut.with_counts(estimate), 0.5) == []
    estimate[0, 66:, 40:60] *= 5
    (found,) = contradictions(cut, cut.with_counts(estimate), 0.5)
    assert found.rows == (64, 69)
