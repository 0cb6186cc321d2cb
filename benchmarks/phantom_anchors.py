"""Phantom children beside published values, and beside a real scan at equal counts.

    python benchmarks/phantom_anchors.py OUT [--real scan.dcm --view anterior]

Prints the table of anchors as Markdown and writes phantoms.png and varieties.png. With a real raw
scan also beside_real.png and the distance of the power spectra. Nothing of the real scan leaves
OUT.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.optimize import curve_fit

from rbs.scans.counts import dispersion_index
from rbs.scans.dicom.reader import read_nm
from rbs.scans.scan import REGIONS, View
from rbs.synthetic.skeleton import COLUMNS, ROWS, SPACING_MM, Phantom, make_child
from rbs.synthetic.skeleton.growth import Sex, expected_counts
from rbs.synthetic.skeleton.projection import Camera, project

COUNTS = 0.45e6
"""Of every picture and spectrum: one view of a standard scan."""
BANDS = np.array([0.004, 0.008, 0.016, 0.032, 0.064])
"""Edges of octaves of spatial frequency, cycles/mm; beyond the last one no camera resolves."""


def main() -> None:
    """Print the table, draw the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--view", choices=["anterior", "posterior"], default="anterior")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    children = draw(np.linspace(0.5, 16, 40), args.seed)
    print("| quantity | published | phantoms |\n|---|---|---|")
    for row in anchors(children, args.seed):
        print("| " + " | ".join(row) + " |")
    shown = [
        healthy(age, sex, args.seed + 5, i)
        for i, (age, sex) in enumerate(((1, "F"), (5, "M"), (10, "F"), (15, "M")))
    ]
    picture(shown, None, args.out / "phantoms.png", args.seed)
    varieties(args.out / "varieties.png", args.seed)
    if args.real is not None:
        scan = read_nm(args.real, views=(View(args.view),))
        picture(shown, scan.counts[0], args.out / "beside_real.png", args.seed)
        spectra(scan.counts[0], scan.spacing_mm[0], args.view, args.seed)


def draw(ages: np.ndarray, seed: int) -> list[Phantom]:
    """Children of these ages, girls and boys in turn."""
    sexes: tuple[Sex, Sex] = ("F", "M")
    return [healthy(float(age), sexes[i % 2], seed, i) for i, age in enumerate(ages)]


def healthy(age: float, sex: Sex, seed: int, number: int) -> Phantom:
    """The first child of a row that is scanned from head to toe, without disease of whole bones.

    It may have foci.
    """
    for attempt in itertools.count():
        phantom = make_child(age, sex, np.random.default_rng([seed, number, attempt]))
        if not phantom.partial and not phantom.disease.name:
            return phantom
    raise AssertionError


def anchors(children: list[Phantom], seed: int) -> list[tuple[str, str, str]]:
    """Quantity, published value and that of the phantoms: the median and the range of 90 %."""

    def spread(values: list[float], digits: int = 2) -> str:
        low, middle, high = np.percentile(values, (5, 50, 95))
        return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"

    def region(name: str) -> list[float]:
        number = REGIONS.index(name) + 1
        return [float(np.median(p.density[p.labels[0] == number])) for p in children]

    def mark(phantom: Phantom, name: str) -> float:
        places = [phantom.marks[f"{name} {side}"] for side in ("-1", "+1")]
        return float(np.mean([phantom.density[round(row), round(column)] for row, column in places]))

    rows = []
    ratios = [
        float(view.sum()) / expected_counts(p.child.weight_kg) for p in children for view in p.expectation
    ]
    rows.append(("counts of a view at 20 cm/min over those expected at its weight", "0.5–2", spread(ratios)))
    bone_to_soft = []
    for p in children:
        bone = (p.labels[0] > 0) & (p.labels[0] < REGIONS.index("growth plates") + 1)
        soft = (p.labels[0] == 0) & (p.soft > 0)
        bone_to_soft.append(float(p.expectation[0][bone].mean() / p.expectation[0][soft].mean()))
    rows.append(("bone over soft tissue in the image", "3.0 ± 1.1", spread(bone_to_soft)))
    for sex, age, value in (("F", 11, "8.3"), ("M", 13, "8.2")):
        plates = [healthy(age, sex, seed + 9, i) for i in range(12)]
        found = [mark(p, "distal femoral physis") / mark(p, "femoral diaphysis") for p in plates]
        rows.append((f"distal femoral physis over diaphysis, {sex} {age} y", value, spread(found, 1)))
    for name, published in (
        ("spine", "1.5–2.5"),
        ("pelvis", "1.5–3"),
        ("thorax", "0.6–1"),
        ("skull", "0.7–1.2"),
    ):
        rows.append((f"density of the {name} over the femoral diaphysis", published, spread(region(name))))
    metaphyses = [mark(p, "femoral metaphysis") / mark(p, "femoral diaphysis") for p in children]
    rows.append(("femoral metaphysis over diaphysis", "1.5–2.5", spread(metaphyses)))
    skull = REGIONS.index("skull") + 1
    for age, published in ((0.5, 0.24), (2, 0.20), (6, 0.17), (12, 0.14)):
        found = []
        for p in draw(np.full(6, age), seed + 1):
            high = np.flatnonzero((p.labels[0] == skull).any(axis=1))
            found.append((high[-1] - high[0] + 1) * SPACING_MM / (10 * p.child.height_cm))
        rows.append((f"head over height at {age:g} y", f"{published:.2f}", spread(found)))
    for depth, published in ((50, 5.2), (100, 7.0), (150, 9.1), (200, 11.2)):
        rows.append(
            (f"FWHM of a line source {depth // 10} cm deep, mm", f"{published}", f"{line_fwhm_mm(depth):.2f}")
        )
    rng = np.random.default_rng(seed)
    noise = [dispersion_index(rng.poisson(p.expectation)) for p in children]
    rows.append(("variance over mean of the counts", "1", spread(noise)))
    return rows


def line_fwhm_mm(depth_mm: float) -> float:
    """Width of a line source this far from the collimator, in air, by a Gaussian fit."""
    spacing, size = 0.5, 257
    planes = np.zeros((1, size, size), np.float32)
    planes[0, :, size // 2] = 1
    nothing = np.zeros((size, size), np.float32)
    camera = Camera(spacing, front_mm=depth_mm, back_mm=-400, scatter=0.0)
    seen = project(planes, np.array([0.0]), nothing, nothing, nothing, camera)[0, size // 2]
    x = (np.arange(size) - size // 2) * spacing
    (_, sigma), _ = curve_fit(lambda x, a, s: a * np.exp(-(x**2) / (2 * s**2)), x, seen, (seen.max(), 3))
    return 2.3548 * abs(float(sigma))


def equal_counts(view: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A Poisson draw of an expectation, or a thinned raw view, of `COUNTS` counts."""
    if np.issubdtype(view.dtype, np.integer):
        return rng.binomial(view, min(1.0, COUNTS / view.sum()))
    return rng.poisson(view.astype(float) * (COUNTS / view.sum()))


def picture(children: list[Phantom], real: np.ndarray | None, path: Path, seed: int) -> None:
    """Both views of each child, and the real view, at equal counts in inverse grey."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rng = np.random.default_rng(seed)
    tiles = [
        (f"{p.child.age_y:g} y, {name}", equal_counts(view, rng))
        for p in children
        for name, view in zip(("anterior", "posterior"), p.expectation, strict=True)
    ]
    if real is not None:
        tiles.append(("real adult", equal_counts(real.astype(np.int64), rng)))
    figure, axes = plt.subplots(1, len(tiles), figsize=(1.75 * len(tiles), 7.2))
    for axis, (title, counts) in zip(axes, tiles, strict=True):
        lit = np.flatnonzero(counts.sum(axis=1) > 0.002 * counts.sum(axis=1).max())
        middle = (
            int(np.clip((lit[0] + lit[-1]) // 2, 430, ROWS - 430))
            if len(counts) == ROWS
            else len(counts) // 2
        )
        shown = counts[max(middle - 430, 0) : middle + 430]
        axis.imshow(shown, cmap="gray_r", vmin=0, vmax=np.percentile(counts[counts > 0], 98.5))
        axis.set_title(title, fontsize=8)
        axis.axis("off")
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def varieties(path: Path, seed: int) -> None:
    """Children with disease, with metal, or scanned in part, one of each; expected counts."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    wanted: dict[str, tuple[int, Callable[[Phantom], bool]]] = {
        "metastases": (1, lambda p: len(p.lesions) > 11),
        "fracture": (0, lambda p: any(one.kind == "fracture" and one.contrast > 4 for one in p.lesions)),
        "superscan": (1, lambda p: p.disease.name == "superscan"),
        "metaphyses": (0, lambda p: p.disease.name == "metaphyses"),
        "left leg": (0, lambda p: p.disease.name == "limb" and p.disease.limb == ("legs", 1)),
        "growth plates": (0, lambda p: p.disease.name == "growth plates" and p.disease.limb == ("legs", 1)),
        "buckle": (
            0,
            lambda p: any(one.name == "buckle" and one.transmission.min() < 0.45 for one in p.attenuators),
        ),
        "rods": (1, lambda p: any(one.name == "rods" for one in p.attenuators)),
        "not whole": (0, lambda p: p.partial),
    }
    found: dict[str, Phantom] = {}
    for number in itertools.count():
        rng = np.random.default_rng([seed, 1, number])
        phantom = make_child(float(rng.uniform(4, 15)), ("F", "M")[number % 2], rng)
        for name, (_, fits) in wanted.items():
            if name not in found and fits(phantom):
                found[name] = phantom
                break
        if len(found) == len(wanted):
            break
    bottom = 10 + max(int(np.flatnonzero(phantom.labels[0].any(axis=1))[-1]) for phantom in found.values())
    figure, axes = plt.subplots(1, len(wanted), figsize=(1.75 * len(wanted), 1.75 * bottom / COLUMNS + 0.3))
    for axis, (name, (view, _)) in zip(axes, wanted.items(), strict=True):
        image = found[name].expectation[view, :bottom]
        axis.imshow(image, cmap="gray_r", vmin=0, vmax=np.percentile(image[image > 0.1], 98.5))
        axis.set_title(f"{name}, {('anterior', 'posterior')[view]}", fontsize=7)
        axis.axis("off")
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def spectrum_db(counts: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Power of the signal in each of `BANDS`, dB relative to all of them.

    The counts' own Poisson noise is white with the power of their sum, and is taken off.
    """
    power = np.abs(np.fft.fft2(counts)) ** 2 - counts.sum()
    f = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n, spacing_mm) for n in counts.shape), indexing="ij"))
    bands = np.array([power[(f >= low) & (f < high)].mean() for low, high in pairwise(BANDS)])
    return 10 * np.log10(np.maximum(bands, 1e-9) / bands.mean())


def spectra(real: np.ndarray, spacing_mm: float, view: str, seed: int) -> None:
    """Print the spectrum of the real view and of grown phantoms, and how far they are apart."""
    rng = np.random.default_rng(seed)
    target = spectrum_db(equal_counts(real.astype(np.int64), rng), spacing_mm)
    frame = ("anterior", "posterior").index(view)
    grown = draw(np.linspace(14, 16, 12), seed + 2)
    found = np.array([spectrum_db(equal_counts(p.expectation[frame], rng), SPACING_MM) for p in grown])
    print("\n| cycles/mm | real, dB | phantoms of 14–16 years, dB |\n|---|---|---|")
    for i, (low, high) in enumerate(pairwise(BANDS)):
        print(
            f"| {low:.3f}–{high:.3f} | {target[i]:.1f} | {found[:, i].mean():.1f} ± {found[:, i].std():.1f} |"
        )
    distance = np.sqrt(((found - target) ** 2).mean(axis=1))
    among = np.sqrt(((found - found.mean(axis=0)) ** 2).mean(axis=1))
    apart, usual = distance.mean(), among.mean()
    print(
        f"\nspectra are apart by {apart:.1f} dB (rms over bands), phantoms from their mean by {usual:.1f} dB"
    )


if __name__ == "__main__":
    main()
