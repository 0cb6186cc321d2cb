"""Registration of two passes over phantoms of known motion: errors in mm, and their cost in dB.

    python benchmarks/register.py --phantoms 21

The rapid scan of every phantom is one Poisson draw of half its expectation. For every motion the
standard scan is drawn from the expectation resampled (splines of order 5) where the body moved to,
its bladder and kidneys filled by a factor of 1 to 1.5, all else decayed by 1.5 %. "whole" motions
shift and turn the whole body; "segments" move head, trunk, arms and legs by themselves as well.
Their size is the median displacement inside the body. Prints, as medians over phantoms of the
median and 95th percentile over the body: the error without registration, after the whole-pixel
shift, after rigid registration and as rbs registers, and the residual it reports; then the PSNR of
the rapid scan's expectation, and of the restored scan, against the moved expectation. Last, judged
by landmarks: children who were drawn anew where they moved to (`rbs simulate --moving`), which no
resampling and no blended field took part in.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from tqdm import tqdm

from rbs.restorers.checkpoint import load_restorer
from rbs.scans.body import body_mask
from rbs.scans.fidelity import peak_counts, psnr_between
from rbs.scans.registration import Motion, estimate_motion, residual_misalignment, warp
from rbs.scans.scan import REGIONS, Array, align
from rbs.synthetic.cohort import Acquisition, make_patient
from rbs.synthetic.skeleton import SPACING_MM, VIEWS
from rbs.synthetic.skeleton.child import UNSCANNED

SEED = 11  # the shipped weights were trained on another
SPACING = (SPACING_MM, SPACING_MM)
MOTIONS = [("still", 0.0), *((kind, mm) for kind in ("whole", "segments") for mm in (1.0, 2.26, 4.0, 6.0))]
LIGHT_KG = 20.0


def segments(labels: Array) -> Array:
    """Weights of head, trunk, arms and legs in every pixel, (6, rows, columns), blended."""
    region = {name: number for number, name in enumerate(REGIONS, start=1)}
    trunk = np.isin(labels, [region[name] for name in ("spine", "thorax", "pelvis", "urinary tract")])
    left = np.arange(labels.shape[1]) < np.nonzero(trunk)[1].mean()
    part = np.zeros_like(labels)
    for number, of in enumerate(
        (
            labels == region["skull"],
            trunk,
            *((labels == region[name]) & side for name in ("arms", "legs") for side in (left, ~left)),
        ),
        start=1,
    ):
        part[of] = number
    row, column = distance_transform_edt(part == 0, return_distances=False, return_indices=True)
    near = part[row, column]
    shares = np.stack([gaussian_filter((near == k).astype(np.float64), 15 / SPACING_MM) for k in range(1, 7)])
    return shares / shares.sum(axis=0)


def rigid(shape: tuple[int, int], middle: Array, shift: Array, angle: float) -> Array:
    """Displacement (2, rows, columns), mm."""
    z, x = np.indices(shape) * SPACING_MM - np.reshape(middle, (2, 1, 1))
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * z - sin * x - z + shift[0], sin * z + cos * x - x + shift[1]])


def displacement(labels: Array, body: Array, kind: str, mm: float, rng: np.random.Generator) -> Array:
    """A random motion whose median over the body is `mm`, (2, rows, columns) mm."""
    shape = labels.shape
    if kind == "still":
        return np.zeros((2, *shape))
    towards = rng.uniform(0, 2 * np.pi)
    u = rigid(
        shape,
        np.argwhere(body).mean(axis=0) * SPACING_MM,
        3 * np.array([np.sin(towards), np.cos(towards)]),
        rng.normal(0, 0.003),
    )
    if kind == "segments":
        for share in segments(labels):
            middle = (np.indices(shape) * share).sum(axis=(1, 2)) / share.sum() * SPACING_MM
            u += share * rigid(shape, middle, rng.normal(0, 1.2, 2), rng.normal(0, 0.006))
    return u * mm / np.median(np.hypot(*u)[body])


def resample(view: Array, u: Array) -> Array:
    """An expectation at x + u(x) within the scanned rows; the edge of the field does not move."""
    scanned = np.argwhere(view > 2 * UNSCANNED)
    (top, left), (bottom, right) = scanned.min(axis=0), scanned.max(axis=0) + 1
    box = np.s_[top:bottom, left:right]
    at = np.indices(view[box].shape) + u[(slice(None), *box)] / SPACING_MM
    moved = view.copy()
    moved[box] = np.maximum(map_coordinates(view[box], at, order=5, mode="nearest"), UNSCANNED)
    return moved


def shifted(image: Array, motion: Motion) -> tuple[Array, Array]:
    """The whole-pixel shift of an image, as a displacement field and as the image."""
    pixels = [round(shift / SPACING_MM) for shift in motion.shift_mm]
    u = np.reshape(pixels, (2, 1, 1)) * SPACING_MM * np.ones((2, *image.shape[1:]))
    return u, np.roll(image, [-n for n in pixels], axis=(1, 2))


def measure(number: int) -> Iterator[dict[str, Any]]:
    """One row a motion of one phantom."""
    phantom = make_patient(number, SEED).phantom
    still = np.stack([phantom.expectation[0], phantom.expectation[1][:, ::-1]]).astype(np.float64)
    labels = phantom.labels[0]
    body = body_mask(still, SPACING).any(axis=0)
    rng = np.random.default_rng((SEED, number))
    rapid = rng.poisson(still / 2)
    with torch.inference_mode():
        x = torch.from_numpy(rapid.astype(np.float32))[None] / 0.5
        restored = load_restorer().restorer(x, torch.tensor([0.5]))[0].numpy()
    organs = gaussian_filter((labels == REGIONS.index("urinary tract") + 1).astype(np.float64), 2)
    for kind, mm in MOTIONS:
        u = displacement(labels, body, kind, mm, rng)
        moved = np.stack([resample(view, u) for view in still])
        filled = 1 + (rng.uniform(1, 1.5) - 1) * np.clip(resample(organs + 1e-4, u), 0, 1)
        standard = rng.poisson(0.985 * filled * moved)
        started = time.perf_counter()
        motion = estimate_motion(standard, rapid, SPACING)
        seconds = time.perf_counter() - started
        whole = estimate_motion(standard, rapid, SPACING, segments=False)
        row: dict[str, Any] = {
            "phantom": number,
            "weight_kg": phantom.child.weight_kg,
            "kcounts": standard.sum() / 1000,
            "motion": kind,
            "mm": mm,
            "found": motion.kind,
            "seconds": seconds,
            "expected": motion.sd_mm,
        }
        pixels, rolled = shifted(still, whole)
        mask, peak = body_mask(moved, SPACING), peak_counts(moved, SPACING)
        for name, field, of_still, of_restored in (
            ("none", 0 * u, still, restored),
            ("pixels", pixels, rolled, shifted(restored, whole)[1]),
            (
                "rigid",
                whole.field(labels.shape, SPACING),
                warp(still, whole, SPACING),
                warp(restored, whole, SPACING),
            ),
            (
                "rbs",
                motion.field(labels.shape, SPACING),
                warp(still, motion, SPACING),
                warp(restored, motion, SPACING),
            ),
        ):
            error = np.hypot(*(field - u))[mask.any(axis=0)]
            row |= {f"{name}_50": np.median(error), f"{name}_95": np.percentile(error, 95)}
            row[f"{name}_dB"] = psnr_between(of_still, moved, mask, peak)
            row[f"{name}_restored_dB"] = psnr_between(of_restored, moved, mask, peak)
        left = residual_misalignment(standard, rapid, SPACING, motion)
        row |= {"left_50": left.median_mm, "left_95": left.p95_mm}
        row |= {"noise_50": left.floor_median_mm, "noise_95": left.floor_p95_mm}
        yield row


def landmarks(number: int) -> dict[str, Any]:
    """Displacement of the landmarks of a child drawn anew, and its residual."""
    patient = make_patient(number, SEED, Acquisition(moving=True))
    standard, rapid = (align(counts, VIEWS) for counts in (patient.standard, patient.rapid))
    before, after = patient.phantom_rapid.marks, patient.phantom.marks
    places = np.array([after[name] for name in after if name in before])
    moved = SPACING_MM * (np.array([before[name] for name in after if name in before]) - places)
    row: dict[str, Any] = {"phantom": number}
    rows, columns = np.rint(places).astype(int).T
    found = {"rigid": estimate_motion(standard, rapid, SPACING, segments=False)}
    found["rbs"] = estimate_motion(standard, rapid, SPACING)
    fields = {name: motion.field(standard.shape[1:], SPACING) for name, motion in found.items()}
    for name, field in {"none": np.zeros_like(fields["rbs"]), **fields}.items():
        error = np.hypot(*(field[:, rows, columns] - moved.T))
        row |= {f"{name}_50": np.median(error), f"{name}_95": np.percentile(error, 95)}
    return row | {"found": found["rbs"].kind}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phantoms", type=int, default=21)
    parser.add_argument("--csv", help="also write a row for every phantom and motion")
    args = parser.parse_args()
    numbers = range(1, args.phantoms + 1)
    rows = [row for number in tqdm(numbers, unit="child") for row in measure(number)]
    table = pd.DataFrame(rows)
    redrawn = pd.DataFrame([landmarks(number) for number in tqdm(numbers, unit="child, drawn anew")])
    if args.csv:
        table.to_csv(args.csv, index=False, float_format="%.5g")
    methods = ("none", "pixels", "rigid", "rbs")
    lengths = [f"{m}_{q}" for m in methods for q in (50, 95)]
    lengths += ["expected", "left_50", "noise_50", "left_95", "noise_95"]
    decibels = [f"{m}{of}_dB" for of in ("", "_restored") for m in methods]
    table["child"] = np.where(table["weight_kg"] < LIGHT_KG, f"< {LIGHT_KG:g} kg", f">= {LIGHT_KG:g} kg")
    with pd.option_context("display.width", 250, "display.max_columns", 30):
        for keys in (["motion", "mm"], ["child", "motion", "mm"]):
            print(table.groupby(keys, sort=False)[lengths].median().round(2))
        print(table.groupby(["motion", "mm"], sort=False)[decibels].median().round(1))
        print(pd.crosstab([table["motion"], table["mm"]], table["found"]))
        once = table.drop_duplicates("phantom").groupby("child")["kcounts"]
        print(once.agg(["count", "min", "max"]).round())
        print(f"{table['seconds'].median():.2f} s a pair")
        print("Drawn anew, at landmarks:")
        print(redrawn.drop(columns=["phantom", "found"]).median().round(2).to_string())
        print(redrawn["found"].value_counts().to_string())


if __name__ == "__main__":
    main()
