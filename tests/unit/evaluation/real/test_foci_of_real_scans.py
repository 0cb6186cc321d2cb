"""Contrast of foci in real scans, against a closed form and against the truth."""

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from rbs.evaluation.observers.lesion_detection import INNER_MM
from rbs.evaluation.real.foci import FLANK_MM, SUMS, focus_contrasts
from rbs.evaluation.real.tables import FEWEST, summarise
from rbs.evaluation.scans.metrics import Target
from rbs.evaluation.scans.pairs import ScanPair

SPACING = (2.0, 2.0)
WIDTH_MM = 5.0
CAMERA_MM = 4.0
FAINT = 0.3


def patient(excess: float, level: float = 40.0) -> np.ndarray:
    """Expected counts of two views with 24 Gaussian foci each, `excess` times the uptake about them."""
    y, x = np.mgrid[:640, :320]
    view = (((y - 320) / 300) ** 4 + ((x - 160) / 145) ** 4 < 1).astype(float)
    for row in range(120, 560, 80):
        for column in range(64, 300, 64):
            square = (y - row) ** 2 + (x - column) ** 2
            view += excess * np.exp(-square / 2 / (WIDTH_MM / SPACING[0]) ** 2)
    blurred = gaussian_filter(view, [CAMERA_MM / mm for mm in SPACING])
    return level * np.stack([blurred, blurred])


def scanned(expected: np.ndarray, seed: int = 0) -> ScanPair:
    """Half of the counts as the rapid scan, and as many as a whole standard scan to judge by."""
    rng = np.random.default_rng(seed)
    target = Target(rng.poisson(expected), 1.0, SPACING)
    return ScanPair("one", rng.poisson(0.5 * expected), 0.5, target)


def kept(estimate: np.ndarray, pairs: list[ScanPair], kind: str) -> tuple[float, float]:
    """Foci a scan, and the contrast kept of them."""
    rows = [row for pair in pairs for row in focus_contrasts(estimate, pair)]
    total = {name: sum(row[f"{kind}_{name}"] for row in rows) for name in SUMS}
    return total["foci"] / len(pairs), total["restored"] / total["rapid"]


@pytest.mark.parametrize(
    ("kind", "blur_mm", "tolerance"),
    [
        ("bright", 0.0, 0.03),
        ("bright", 3.5, 0.03),
        ("bright", 6.0, 0.03),
        ("faint", 0.0, 0.08),
        ("faint", 6.0, 0.08),
    ],
)
def test_a_gaussian_filter_keeps_what_the_closed_form_says(kind, blur_mm, tolerance):
    """A Gaussian of mass m and variance v has the contrast m / 2πv (1 - exp(-d²/2v))."""
    excess, scans = (1.5, 1) if kind == "bright" else (FAINT, 6)
    expected = patient(excess)
    blurred = gaussian_filter(expected, (0, blur_mm / 2, blur_mm / 2), mode="nearest")

    def contrast(variance: float) -> float:
        variance += CAMERA_MM**2 + INNER_MM**2
        return (1 - np.exp(-(FLANK_MM**2) / 2 / variance)) / variance

    foci, share = kept(blurred, [scanned(expected, seed) for seed in range(scans)], kind)
    assert foci > 40
    closed_form = contrast(WIDTH_MM**2 + blur_mm**2) / contrast(WIDTH_MM**2)
    # Noise moves faint maxima off the middle, where a wide blur loses less than the closed form says.
    moved = 0.1 if (kind, blur_mm) == ("faint", 6.0) else 0.0
    assert share == pytest.approx(closed_form + moved, abs=tolerance)


def test_outlines_and_noise_are_no_foci():
    """Places that noise alone makes brightest have no contrast to speak of without the noise."""
    rows = focus_contrasts(patient(0.0), scanned(patient(0.0)))
    assert sum(row["bright_foci"] for row in rows) == 0
    assert abs(sum(row["faint_restored"] for row in rows)) < 0.005 * sum(row["faint_foci"] for row in rows)


def test_contrasts_are_pooled_over_a_scan_and_averaged_over_scans():
    rows = [
        {"scan": scan, "view": view, "speed": "40 cm/min", "draw": draw, "method": "m", "nc_psnr": 30.0}
        | {"count_bias": 0.0, "faint_foci": 0, "faint_restored": 0.0, "faint_rapid": 0.0}
        | {"bright_foci": foci, "bright_restored": restored + 0.1 * draw, "bright_rapid": rapid}
        for scan, view, foci, restored, rapid in [
            ("a", "anterior", 30, 8.0, 10.0),
            ("a", "posterior", 2, 0.1, 1.0),
            ("b", "anterior", FEWEST, 5.0, 5.0),
            ("too few", "anterior", FEWEST - 1, 0.0, 5.0),
        ]
        for draw in (1, 2)
    ]
    (row,) = summarise(pd.DataFrame(rows), {"m": "M"}, "m").to_dict("records")
    a, b = (8.1 + 8.2 + 0.2 + 0.3) / 22, (5.1 + 5.2) / 10
    assert row["bright_kept"] == pytest.approx((a + b) / 2)
    assert row["bright_kept_low"] < row["bright_kept"] < row["bright_kept_high"]
    assert row["bright_foci"] == (32 + FEWEST) / 2
    assert np.isnan(row["faint_kept"])
