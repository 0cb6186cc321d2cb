"""Hot spots and regional measures of phantom children against their truth, and against each other.

    python benchmarks/quantify.py                       # docs/results/quantify*.csv: four minutes
    python benchmarks/quantify.py tune                  # thresholds, on training and validation

Of each child five scans are labelled by the segmenter: the rapid one (40 cm/min), what the shipped
restorer makes of it at each strength, and the standard one, another Poisson draw. The truth is the
same index of the true labels; a lesion is one of `child.json` that is hot or a fracture. It is
found where a hot spot lies within 5 mm of its label in either view; a hot spot near no lesion is a
false one. The ideal observer (`rbs.evaluation.observers`) of a lesion knows the expectation of the
rapid scan with and without the lesions, the latter from the same child drawn again without them. It
knows the bone exactly; a lesion stands out of its bone as well where its mean is 1.5 times that of
the same bone around it (`rbs.evaluation.observers.lesions`).

Half of the test children have no lesion, and few have many: a second cohort has 0 to 20 lesions a
child, equally often.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from scipy.special import ndtr
from tqdm import tqdm

from rbs.data.anatomy import Focus
from rbs.data.loading import LoadedCase, load_case
from rbs.data.manifest import Manifest
from rbs.data.stream import loaded_patient
from rbs.evaluation.observers.lesions import score_foci
from rbs.evaluation.observers.observers import ideal_snr
from rbs.inference.load import load_for_scans
from rbs.inference.segmentation import load_segmenter_for
from rbs.inference.strengths import Strength, apply
from rbs.scans.regions import BONE_LABELS, HOT
from rbs.scans.scan import REGIONS, Array, align
from rbs.segmentation.measures import hot_spots
from rbs.segmentation.measures.bone_index import BoneIndex, bone_index
from rbs.segmentation.measures.hot_spots import HotSpot, find_hot_spots
from rbs.segmentation.measures.label_draws import likeliest
from rbs.segmentation.measures.regions import Measured, RegionRow, region_table
from rbs.synthetic.cohort import Acquisition, Patient, draw_patient, make_patient
from rbs.synthetic.skeleton import VIEWS, child

NEAR_MM = 5.0
SURE_AUC = 0.95
PLAIN = 0.5
"""Contrast, less 1, from which on a lesion stands out of the bone around it."""
MANY, CHILDREN, SEED = 20, 40, 2027
"""Most lesions, children and seed of the second cohort."""
RESAMPLES = 2000
RESTORED = {f"restored, {strength}": strength for strength in Strength}
SCANS = ("rapid", *RESTORED, "standard")


@dataclass(frozen=True)
class Lesion:
    """A hot lesion or a fracture.

    Attributes:
        region: Its bone.
        auc: Of the ideal observer on the rapid scan.
        contrast: Of the lesion to the bone around it in the expectation, less 1.
        label: Its pixels in both views, bool (V, H, W); empty where another lesion lies over it.
    """

    region: str
    auc: float
    contrast: float
    label: Array


@dataclass(frozen=True)
class Child:
    """A phantom with its lesions and the probabilities of each of its scans."""

    case: LoadedCase
    lesions: list[Lesion]
    counts: dict[str, Array]
    probabilities: dict[str, Array]


def main() -> None:
    """Measure and write, or tune and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", nargs="?", choices=("tables", "tune"), default="tables")
    parser.add_argument("--manifest", type=Path, default=Path("data/phantoms/manifest.csv"))
    parser.add_argument("--segmenter", default="shipped", metavar="FILE")
    parser.add_argument("--children", type=int, help="only so many of a split")
    parser.add_argument("--output", type=Path, default=Path("docs/results"), metavar="DIR")
    args = parser.parse_args()
    if args.step == "tune":
        tune(args)
        return
    children = list(read(args, "test", SCANS))
    many = list(with_many_lesions(args))
    rows = [{"cohort": "test children"} | row for row in index_rows(children)]
    rows += [{"cohort": f"0 to {MANY} lesions"} | row for row in index_rows(many)]
    write(args.output / "quantify.csv", rows)
    write(args.output / "quantify_coverage.csv", list(coverage_rows(children)))


def read(args: argparse.Namespace, split: str, scans: Sequence[str]) -> Iterator[Child]:
    """Children of a split, labelled."""
    label_scans = labeller(args, scans)
    for case in tqdm(Manifest.read(args.manifest).split(split)[: args.children], desc=split, file=sys.stderr):
        loaded = load_case(case)
        assert case.truth is not None
        told = json.loads(case.truth.with_name("child.json").read_text())
        made = told["made_from"]
        lesions = lesions_of(told["lesions"], loaded, partial(make_patient, made["patient"], made["seed"]))
        yield Child(loaded, lesions, *label_scans(loaded))


def with_many_lesions(args: argparse.Namespace) -> Iterator[Child]:
    """Phantom children of no cohort with 0 to `MANY` lesions each, labelled."""
    label_scans = labeller(args, SCANS)
    for number in tqdm(range(args.children or CHILDREN), desc="many lesions", file=sys.stderr):
        seeds = np.random.SeedSequence([SEED, number])
        lesions = int(np.random.default_rng(seeds).integers(MANY + 1))
        # A sequence that has spawned spawns others: each drawing has its own, equal one.
        again = partial(_drawn, number, lesions)
        loaded = loaded_patient(again())
        listed = [asdict(lesion) for lesion in again().phantom.lesions]
        yield Child(loaded, lesions_of(listed, loaded, again), *label_scans(loaded))


def _drawn(number: int, lesions: int) -> Patient:
    return draw_patient(np.random.SeedSequence([SEED, number]), Acquisition(), lesions)


def labeller(
    args: argparse.Namespace, scans: Sequence[str]
) -> Callable[[LoadedCase], tuple[dict[str, Array], dict[str, Array]]]:
    """Function from a case to the counts of its scans, and the probabilities of their regions."""
    segmenter = load_segmenter_for(args.segmenter)
    strengths = {name: strength for name, strength in RESTORED.items() if name in scans}
    restorer = load_for_scans() if strengths else None

    def label_scans(loaded: LoadedCase) -> tuple[dict[str, Array], dict[str, Array]]:
        assert loaded.rapid is not None
        assert loaded.exposure is not None
        counts, exposures = {"rapid": loaded.rapid, "standard": loaded.standard}, {"rapid": loaded.exposure}
        if restorer:
            given = loaded.rapid, loaded.exposure
            own = restorer.restore(*given)
            counts |= {n: apply(s, own, *given, loaded.spacing_mm) for n, s in strengths.items()}
        return counts, {
            name: segmenter.probabilities(counts[name], exposures.get(name, 1.0), loaded.spacing_mm)
            for name in scans
        }

    return label_scans


def lesions_of(
    told: Sequence[dict[str, Any]], loaded: LoadedCase, again: Callable[[], Patient]
) -> list[Lesion]:
    """Hot lesions and fractures of a phantom with the AUC of the ideal observer.

    Args:
        told: All its lesions.
        loaded: Its scans.
        again: Draws the same child.
    """
    assert loaded.expectation is not None
    assert loaded.labels is not None
    assert loaded.exposure is not None
    listed = [lesion for lesion in told if lesion["kind"] != "cold"]
    if not listed:
        return []
    expected = loaded.expectation.astype(np.float64)
    bare = without_lesions(again)
    # Both are scaled to the same counts of the whole body.
    seen = bare > 0.05
    bare = np.maximum(bare * np.median(expected[seen] / bare[seen]), 1e-6)
    signal = np.maximum(expected - bare, 0)
    numbers = np.stack([label(view == HOT, np.ones((3, 3)))[0] for view in loaded.labels])
    rows, columns = np.ogrid[: bare.shape[1], : bare.shape[2]]
    lesions = []
    for one in listed:
        away = np.hypot(
            (rows - one["row"]) * loaded.spacing_mm[0], (columns - one["column"]) * loaded.spacing_mm[1]
        )
        window = away <= 0.9 * math.hypot(one["length_mm"], 9.0) + 4.0
        snr = ideal_snr(loaded.exposure * bare[:, window], loaded.exposure * signal[:, window])
        own = numbers[:, one["row"], one["column"]]
        mask = np.stack([(view == n) & (n > 0) for view, n in zip(numbers, own, strict=True)])
        focus = Focus(one["region"], one["row"], one["column"], one["fwhm_mm"], one["contrast"])
        seen_by = score_foci(expected, expected, loaded.labels, [focus], loaded.spacing_mm)
        contrast = max((score.truth for score in seen_by), default=0.0)
        lesions.append(Lesion(one["region"], float(ndtr(snr / math.sqrt(2))), contrast, mask))
    return lesions


def without_lesions(again: Callable[[], Patient]) -> Array:
    """The expectation of a patient drawn without hot foci in its bones, aligned."""
    original = child.draw_lesions

    def drawn(canvas: Any, *rest: Any) -> Any:
        with patch.object(type(canvas), "hot", lambda *_: None):
            return original(canvas, *rest)

    with patch.object(child, "draw_lesions", drawn):
        return align(again().phantom.expectation, VIEWS).astype(np.float64)


def true_index(one: Child) -> BoneIndex:
    """The index of the true labels, of its lesions alone."""
    labels = one.case.labels
    assert labels is not None
    pixel_cm2 = float(np.prod(one.case.spacing_mm)) / 100
    spots, taken = [], np.zeros(labels.shape, bool)
    for focus, lesion in enumerate(one.lesions, start=1):
        for view, name in enumerate(one.case.views):
            pixels = np.nonzero(lesion.label[view] & ~taken[view])
            taken[view] |= lesion.label[view]
            if pixels[0].size:
                area = pixels[0].size * pixel_cm2
                spots.append(
                    HotSpot(name, lesion.region, focus, "", 0, 0, 1.0, area, 0.0, Measured(), pixels)
                )
    return bone_index(certain(labels), spots, one.case.views, one.case.spacing_mm, draws=0)


def certain(labels: Array) -> Array:
    """Probabilities 0 and 1 of labels."""
    return np.stack([labels == k for k in range(1 + len(REGIONS))], axis=1).astype(np.float32)


def compared(one: Child, spots: Sequence[HotSpot]) -> tuple[list[bool], int]:
    """For each lesion whether a hot spot that counts lies at it, and the number of false ones."""
    everything = np.zeros(one.counts["rapid"].shape, np.int64)
    for number, lesion in enumerate(one.lesions, start=1):
        everything[lesion.label] = number
    found, false = set(), 0
    near = []
    for view in everything:
        if view.any():
            away, at = distance_transform_edt(view == 0, sampling=one.case.spacing_mm, return_indices=True)
            near.append(np.where(away <= NEAR_MM, view[tuple(at)], 0))
        else:
            near.append(view)
    for spot in spots:
        if spot.focus:
            numbers = set(near[one.case.views.index(spot.view)][spot.pixels]) - {0}
            found |= numbers
            false += not numbers
    # Lesions that share a label are found together.
    same = [
        any(bool((lesion.label & one.lesions[n - 1].label).any()) for n in found) for lesion in one.lesions
    ]
    return same, false


def index_rows(children: list[Child]) -> Iterator[dict[str, Any]]:
    """Rows of quantify.csv, one a kind of scan."""
    truth = np.array([true_index(one).area_percent.value for one in children])
    measured: dict[str, Array] = {}
    foci: dict[str, Array] = {}
    detected: dict[str, tuple[list[bool], list[bool], float]] = {}
    for scan in SCANS:
        indices, sure, plain, false = [], [], [], 0
        for one in children:
            spots = spots_of(one, scan)
            indices.append(
                bone_index(one.probabilities[scan], spots, one.case.views, one.case.spacing_mm, draws=0)
            )
            same, more = compared(one, spots)
            for hit, lesion in zip(same, one.lesions, strict=True):
                if lesion.auc > SURE_AUC:
                    sure.append(hit)
                    if lesion.contrast >= PLAIN:
                        plain.append(hit)
            false += more
        measured[scan] = np.array([index.area_percent.value for index in indices])
        foci[scan] = np.array([float(index.foci) for index in indices])
        views = sum(len(one.case.views) for one in children)
        detected[scan] = (sure, plain, false / views)
    for scan in SCANS:
        index = measured[scan]
        difference = index - truth
        spread = 1.96 * difference.std(ddof=1)
        sure, plain, false_ones = detected[scan]
        row = {
            "scan": scan,
            "children": len(children),
            "index_percent": f"{index.mean():.3f}",
            "true_index_percent": f"{truth.mean():.3f}",
            "r": interval(lambda pick, i=index: np.corrcoef(i[pick], truth[pick])[0, 1], len(index), 3),
            "difference_to_truth": interval(lambda pick, d=difference: d[pick].mean(), len(index), 3),
            "limits_of_agreement": f"{difference.mean() - spread:.3f} to {difference.mean() + spread:.3f}",
            "to_standard_percent": interval(
                lambda pick, i=index: 100 * (i[pick].mean() / measured["standard"][pick].mean() - 1),
                len(index),
                1,
            ),
            "foci": f"{foci[scan].mean():.2f}",
            "foci_to_standard": interval(
                lambda pick, f=foci[scan]: (f[pick] - foci["standard"][pick]).mean(), len(index), 2
            ),
            "found_sure": f"{sum(sure)} of {len(sure)}",
            "found_plain": f"{sum(plain)} of {len(plain)}",
            "false_per_view": f"{false_ones:.2f}",
        }
        if scan == "standard":
            row |= {"to_standard_percent": "", "foci_to_standard": ""}
        yield row


def spots_of(one: Child, scan: str, **options: float) -> list[HotSpot]:
    """Hot spots of one of its scans."""
    case = one.case
    return find_hot_spots(one.counts[scan], one.probabilities[scan], case.spacing_mm, case.views, **options)


MEASURES: dict[str, Callable[[RegionRow], Measured]] = {
    "counts of a region": lambda row: Measured() if row.plate else row.counts,
    "share of all counts": lambda row: Measured() if row.plate else row.share_percent,
    "counts a pixel": lambda row: Measured() if row.plate else row.counts_per_pixel,
    "left : right of a region": lambda row: Measured() if row.plate else row.left_over_right,
    "growth plate : shaft": lambda row: row.peak_over_shaft,
    "left : right of a growth plate": lambda row: row.left_over_right if row.plate else Measured(),
}
"""Measures whose intervals are checked; hot spots are left to the other table."""


def coverage_rows(children: list[Child]) -> Iterator[dict[str, Any]]:
    """Rows of quantify_coverage.csv: errors of the rapid scans beside their stated deviations."""
    pairs: dict[str, list[tuple[int, Measured, float]]] = {name: [] for name in MEASURES}
    for number, one in enumerate(children):
        case = one.case
        assert case.expectation is not None
        assert case.labels is not None
        assert case.exposure is not None
        expected = case.expectation * case.exposure
        truth = region_table(expected, certain(case.labels), case.spacing_mm, case.views, draws=0)
        found = region_table(one.counts["rapid"], one.probabilities["rapid"], case.spacing_mm, case.views)
        known = {(row.view, row.region, row.plate, row.side): row for row in truth}
        for row in found:
            true = known.get((row.view, row.region, row.plate, row.side))
            if true is None or row.region == "hot spots":
                continue
            for name, of in MEASURES.items():
                measured, value = of(row), of(true).value
                if math.isfinite(measured.value) and math.isfinite(value):
                    pairs[name].append((number, measured, value))
    for name, those in pairs.items():
        owner = np.array([number for number, _, _ in those])
        error = np.array([measured.value / value - 1 for _, measured, value in those])
        poisson = np.array([measured.poisson / value for _, measured, value in those])
        borders = np.array([measured.segmentation / value for _, measured, value in those])
        inside = np.abs(error) <= 1.96 * np.hypot(poisson, borders)
        by_child = [np.flatnonzero(owner == n) for n in range(len(children))]
        yield {
            "measure": name,
            "values": len(those),
            "median_error_percent": f"{100 * np.median(np.abs(error)):.1f}",
            "median_bias_percent": f"{100 * np.median(error):+.1f}",
            "poisson_sd_percent": f"{100 * np.median(poisson):.1f}",
            "segmentation_sd_percent": f"{100 * np.nanmedian(borders):.1f}",
            "covered_percent": interval(
                lambda pick, inside=inside, by=by_child: (
                    100 * inside[np.concatenate([by[n] for n in pick])].mean()
                ),
                len(children),
                0,
            ),
        }


def tune(args: argparse.Namespace) -> None:
    """Print lesions found and false ones, of the segmenter and of a matched filter."""
    for split in ("train", "val"):
        children = list(read(args, split, ("rapid",)))
        detectors: list[tuple[str, Callable[[Child], list[HotSpot]]]] = []
        for edge in (0.15, 0.25, 0.35):
            for threshold in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
                detectors.append((f"segmenter {edge} {threshold}", segmented(edge, threshold)))
        detectors += [(f"matched filter {z:g}", filtered(z)) for z in (1, 1.5, 2, 2.5, 3, 4, 5, 6)]
        for name, detector in detectors:
            hits: list[bool] = []
            false = 0
            for one in children:
                spots = detector(one)
                same, more = compared(one, spots)
                hits += [hit for hit, lesion in zip(same, one.lesions, strict=True) if lesion.auc > SURE_AUC]
                false += more
            views = sum(len(one.case.views) for one in children)
            print(f"{split} {name}: {100 * np.mean(hits):.0f} % of {len(hits)}, {false / views:.2f} a view")


def segmented(edge: float, threshold: float) -> Callable[[Child], list[HotSpot]]:
    """The detector of `rbs quantify` with other thresholds."""

    def detect(one: Child) -> list[HotSpot]:
        with patch.object(hot_spots, "EDGE", edge):
            return spots_of(one, "rapid", threshold=threshold)

    return detect


def filtered(least: float) -> Callable[[Child], list[HotSpot]]:
    """Local contrast against the bone around it: the statistical detector, for comparison.

    In each bone, away from growth plates and urinary tract, the mean within a Gaussian of 4 mm
    less that within one of 14 mm, over the standard deviation of its Poisson noise and of a quarter
    of the latter mean, by which healthy bone varies.
    """

    def detect(one: Child) -> list[HotSpot]:
        spacing, labels = one.case.spacing_mm, likeliest(one.probabilities["rapid"])
        spots = []
        for view, name in enumerate(one.case.views):
            bone = np.isin(labels[view], BONE_LABELS)
            nearest = distance_transform_edt(~bone, return_distances=False, return_indices=True)
            region = np.where(labels[view] == HOT, labels[view][tuple(nearest)], labels[view])
            beside = np.isin(labels[view], [REGIONS.index(n) + 1 for n in ("growth plates", "urinary tract")])
            clear = distance_transform_edt(~beside, sampling=spacing) > 5
            score = np.zeros(bone.shape)
            for number in BONE_LABELS:
                mask = (region == number) & clear
                near, around = (
                    _mean(one.counts["rapid"][view], mask, sigma, spacing) for sigma in (4.0, 14.0)
                )
                noise = around * np.prod(spacing) / (4 * np.pi * 4.0**2) + (0.25 * around) ** 2
                score = np.where(
                    mask & (noise > 0), (near - around) / np.sqrt(np.maximum(noise, 1e-9)), score
                )
            numbers, count = label(score > least / 2)
            for n in range(1, count + 1):
                pixels = np.nonzero(numbers == n)
                if score[pixels].max() > least:
                    spots.append(HotSpot(name, "", 1, "", 0, 0, 1, 0, 0, Measured(), pixels))
        return spots

    return detect


def _mean(counts: Array, mask: Array, sigma_mm: float, spacing_mm: tuple[float, float]) -> Array:
    """Mean of the counts under a mask within a Gaussian."""
    sigma = [sigma_mm / mm for mm in spacing_mm]
    weight = gaussian_filter(mask.astype(np.float64), sigma)
    return gaussian_filter(np.where(mask, counts, 0).astype(np.float64), sigma) / np.maximum(weight, 1e-3)


def interval(of: Callable[[Array], float], children: int, digits: int) -> str:
    """A number and its 95 % percentile interval over resampled children, as text."""
    rng = np.random.default_rng(0)
    drawn = [of(rng.integers(0, children, children)) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return f"{of(np.arange(children)):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a table, and print it."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
