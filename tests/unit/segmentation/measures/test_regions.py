"""The table of the regions of a scan."""

from __future__ import annotations

import math

import numpy as np
import pytest
from labelled_body import LABEL, PLATES, SHAPE, SPACING, VIEWS, body, certain, limb, plate, unsure

from rbs.errors import ScanError
from rbs.scans.scan import REGIONS, View
from rbs.segmentation.measures.regions import Measured, RegionRow, region_table


def expected() -> np.ndarray:
    """Counts a pixel (2, H, W): 1 beside bones, 4 in bone, the left leg 5, the left distal femur 24."""
    labels = body()
    mean = np.where(labels > 0, 4.0, 1.0)
    mean[:, *limb("legs", "left")] = 5.0
    for name in PLATES:
        for side in ("right", "left"):
            mean[:, *plate(name, side)] = 16.0
    mean[:, *plate("distal femur", "left")] = 24.0
    return mean


def table(counts: np.ndarray, labels: np.ndarray | None = None, **options) -> dict[tuple, RegionRow]:
    """Rows by view, region or plate, and side."""
    options = {"draws": 0, "views": VIEWS[: len(counts)]} | options
    probabilities = certain(body()[: len(counts)] if labels is None else labels)
    probabilities = options.pop("probabilities", probabilities)
    rows = region_table(counts, probabilities, SPACING, **options)
    return {(str(row.view), row.plate or row.region, row.side): row for row in rows}


def test_counts_area_share_and_mean_of_a_region() -> None:
    counts = expected()
    row = table(counts)["anterior", "pelvis", ""]
    pixels = int((body()[0] == LABEL["pelvis"]).sum())
    assert row.area_cm2.value == pytest.approx(pixels * 0.09)
    assert row.counts.value == pytest.approx(4 * pixels)
    assert row.share_percent.value == pytest.approx(100 * 4 * pixels / counts[0].sum())
    assert row.counts_per_pixel.value == pytest.approx(4)
    assert row.counts_per_cm2.value == pytest.approx(4 / 0.09)
    assert row.counts.poisson == pytest.approx(math.sqrt(4 * pixels))


def test_left_over_right_is_the_patients() -> None:
    rows = table(expected())
    assert rows["anterior", "legs", ""].left_over_right.value == pytest.approx(5 / 4)
    assert rows["posterior", "legs", ""].left_over_right.value == pytest.approx(5 / 4)
    assert rows["anterior", "distal femur", ""].left_over_right.value == pytest.approx(24 / 16)
    assert rows["anterior", "arms", ""].left_over_right.value == pytest.approx(1)
    assert math.isnan(rows["anterior", "legs", ""].peak_over_shaft.value)


def test_a_mirrored_body_has_the_inverse_ratios() -> None:
    rows = table(expected()[..., ::-1])
    assert rows["anterior", "legs", ""].left_over_right.value == pytest.approx(4 / 5)
    assert rows["posterior", "distal femur", ""].left_over_right.value == pytest.approx(16 / 24)


@pytest.mark.parametrize("slope", [-0.08, 0.08])
def test_a_body_askew_keeps_its_sides(slope: float) -> None:
    def askew(image: np.ndarray) -> np.ndarray:
        shifts = np.rint(slope * (np.arange(SHAPE[0]) - 125)).astype(int)
        return np.stack([np.stack([np.roll(r, s) for r, s in zip(v, shifts, strict=True)]) for v in image])

    rows = table(askew(expected()), askew(body()))
    assert rows["anterior", "legs", ""].left_over_right.value == pytest.approx(5 / 4, rel=0.01)


def test_plates_are_named_and_measured_against_their_shafts() -> None:
    rows = table(expected())
    for name, (of, _) in PLATES.items():
        for side in ("right", "left"):
            peak = 24 if (name, side) == ("distal femur", "left") else 16
            shaft = 5 if (of, side) == ("legs", "left") else 4
            found = rows["posterior", name, side]
            assert found.region == "growth plates"
            assert found.peak_over_shaft.value == pytest.approx(peak / shaft), (name, side)


def test_a_limb_that_the_scan_cuts_off_has_no_plates() -> None:
    counts, labels = expected()[:, :200], body()[:, :200]
    rows = region_table(counts, certain(labels), SPACING, VIEWS, draws=0)
    assert {row.plate for row in rows if row.plate} == {"proximal humerus", "wrist"}


def test_poisson_errors_are_those_of_repeated_scans() -> None:
    mean, rng = expected()[:1] / 2, np.random.default_rng(0)
    mean[0, ::2] = 0  # fewer counts
    keys = {
        "counts": ("pelvis", ""),
        "share_percent": ("pelvis", ""),
        "counts_per_pixel": ("arms", ""),
        "left_over_right": ("legs", ""),
        "peak_over_shaft": ("distal femur", "left"),
    }
    scans = [table(rng.poisson(mean).astype(np.float32)) for _ in range(250)]
    truth = table(mean)
    for name, key in keys.items():
        values = [getattr(rows["anterior", *key], name).value for rows in scans]
        stated = getattr(truth["anterior", *key], name).poisson
        assert np.std(values, ddof=1) == pytest.approx(stated, rel=0.15), name


def test_counts_at_standard_scale_keep_the_errors_of_those_counted() -> None:
    raw, scaled = table(expected()), table(expected() / 0.5, exposure=0.5)
    for name in ("counts", "share_percent", "counts_per_cm2", "left_over_right"):
        one, other = (getattr(rows["anterior", "legs", ""], name) for rows in (raw, scaled))
        assert other.poisson / other.value == pytest.approx(one.poisson / one.value), name


def test_certain_borders_add_nothing_and_unsure_ones_do() -> None:
    counts = expected()
    sure = table(counts, draws=8)["anterior", "pelvis", ""].counts
    doubtful = table(counts, draws=8, probabilities=unsure(body()))["anterior", "pelvis", ""].counts
    assert sure.segmentation == 0
    assert 0.02 < doubtful.segmentation / doubtful.value < 0.3
    assert doubtful.sd == pytest.approx(math.hypot(doubtful.poisson, doubtful.segmentation))


def test_one_view() -> None:
    rows = table(expected()[1:], body()[1:], views=(View.POSTERIOR,))
    assert {view for view, _, _ in rows} == {"posterior"}
    assert rows["posterior", "legs", ""].left_over_right.value == pytest.approx(5 / 4)


def test_a_row_becomes_columns() -> None:
    row = RegionRow(View.ANTERIOR, "legs", "", "", counts=Measured(4.0, 3.0, 4.0)).as_dict()
    assert (row["view"], row["counts"], row["counts_poisson_sd"]) == ("anterior", 4.0, 3.0)
    assert row["counts_segmentation_sd"] == 4.0


@pytest.mark.parametrize(
    ("counts", "labels", "sentence"),
    [
        (np.zeros((2, *SHAPE)), body(), "it holds no counts"),
        (expected(), np.zeros((2, *SHAPE), np.uint8), "no bone was found in it"),
    ],
)
def test_nothing_to_measure_is_said_in_a_sentence(
    counts: np.ndarray, labels: np.ndarray, sentence: str
) -> None:
    with pytest.raises(ScanError, match=sentence) as caught:
        region_table(counts, certain(labels), SPACING, VIEWS)
    assert caught.value.remedy


def test_all_regions_have_a_row() -> None:
    rows = table(expected())
    missing = {"urinary tract", "hot spots"}
    assert {region for view, region, side in rows if view == "anterior" and not side} >= {*REGIONS} - missing
