"""Contrast of foci in real scans, against a closed form and against independent counts."""

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from rbs.evaluation.observers.lesion_detection import INNER_MM, OUTER_MM
from rbs.evaluation.real.foci import focus_contrasts
from rbs.evaluation.real.tables import FEWEST, summarise
from rbs.evaluation.scans.metrics import Target
from rbs.evaluation.scans.pairs import ScanPair

SPACING = (2.0, 2.0)
WIDTH_MM = 5.0


def patient(excess: float, level: float = 40.0) -> np.ndarray:
    """Expected counts of two views with 24 Gaussian foci each, `excess` times the uptake about them."""
    y, x = np.mgrid[:640, :320]
    # The body fades into air: a sharp edge is a bright place, too.
    view = np.exp(-(((y - 320) / 290) ** 20)) * np.exp(-(((x - 160) / 140) ** 20))
    for row in range(120, 560, 80):
        for column in range(64, 300, 64):
            square = (y - row) ** 2 + (x - column) ** 2
            view += excess * np.exp(-square / 2 / (WIDTH_MM / SPACING[0]) ** 2)
    return level * np.stack([view, view])


def scanned(expected: np.ndarray) -> ScanPair:
    """Half of the counts as the rapid scan, and as many as a whole standard scan to judge by."""
    rng = np.random.default_rng(3)
    target = Target(rng.poisson(expected), 1.0, SPACING)
    return ScanPair("one", rng.poisson(0.5 * expected), 0.5, target)


def kept(estimate: np.ndarray, pair: ScanPair, kind: str) -> tuple[float, float]:
    rows = focus_contrasts(estimate, pair)
    total = {name: sum(row[f"{kind}_{name}"] for row in rows) for name in ("foci", "shown", "counted")}
    return total["foci"], total["shown"] / total["counted"]


@pytest.mark.parametrize("blur_mm", [0.0, 3.5, 6.0])
def test_a_gaussian_filter_keeps_what_the_closed_form_says(blur_mm):
    """A Gaussian of variance v and any mass has D = 1/(v + s²) - 1/(v + S²) of it at its middle."""
    expected = patient(1.0)
    blurred = gaussian_filter(expected, (0, blur_mm / 2, blur_mm / 2), mode="nearest")

    def height(variance: float) -> float:
        return 1 / (variance + INNER_MM**2) - 1 / (variance + OUTER_MM**2)

    foci, share = kept(blurred, scanned(expected), "bright")
    assert foci == 48
    assert share == pytest.approx(height(WIDTH_MM**2 + blur_mm**2) / height(WIDTH_MM**2), abs=0.02)


@pytest.mark.parametrize(("excess", "kind"), [(1.0, "bright"), (0.14, "faint")])
def test_the_rapid_scan_keeps_all(excess, kind):
    """Foci are found in counts that neither judge nor are judged: chance favours nobody."""
    pair = scanned(patient(excess))
    foci, share = kept(pair.rapid / pair.exposure, pair, kind)
    assert foci > 20
    assert share == pytest.approx(1, abs=0.02 if kind == "bright" else 0.12)
    _, half = kept(0.5 * pair.rapid / pair.exposure, pair, kind)
    assert half == pytest.approx(share / 2)


def test_contrasts_are_pooled_over_a_scan_and_averaged_over_scans():
    rows = [
        {"scan": scan, "view": view, "speed": "40 cm/min", "draw": draw, "method": "m", "nc_psnr": 30.0}
        | {"count_bias": 0.0, "faint_foci": 0, "faint_shown": 0.0, "faint_counted": 0.0}
        | {"bright_foci": foci, "bright_shown": shown + 0.1 * draw, "bright_counted": counted}
        for scan, view, foci, shown, counted in [
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
