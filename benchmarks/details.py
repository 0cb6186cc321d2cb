"""Growth plates, ribs and a lesion by each restorer, beside the truth: docs/figures/details.png.

    pip install '.[bm3d]'
    python benchmarks/details.py data/phantoms/manifest.csv docs/figures/details.png
    python benchmarks/details.py data/phantoms/manifest.csv docs/figures/semantics.png \
        --runs "f2, true masks=runs/ablation/semantics/many_expect/f2_truth/seed_1" ...

Test children alone. Columns: the truth, the rapid scan, the tuned Gaussian, Anscombe + BM3D
(non-local means where the package of BM3D is missing), the shipped restorer at each strength, and
fitted to the scan; and the acquired standard scan. With `--runs`, trainings of an ablation take
the places between the rapid and the standard scan: f2 of those that have one, f1 of the others.
Each row has one window of grey for all columns. Stated under a picture is the contrast that is left
of the lesion, or the peak that is left of the growth plates.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rbs.data.manifest import Manifest
from rbs.evaluation.observers.growth_plates import compare_plates, measure_plates
from rbs.evaluation.observers.lesions import FocusScore, score_foci
from rbs.evaluation.scans.classical import BM3D, GAUSSIAN, NON_LOCAL_MEANS, available
from rbs.evaluation.scans.pairs import ScanPair, load_pair
from rbs.inference.strengths import Strength, apply
from rbs.inference.test_time_adaptation import AdaptingRestorer
from rbs.multirun.ablation.networks import networks_of
from rbs.restorers.checkpoint import LoadedRestorer, load_restorer

Array = npt.NDArray[np.floating]
Restore = Callable[[ScanPair], Array]

SIDE_MM = 130.0
FAINTEST, STRONGEST = 0.3, 1.0
"""Of the lesion that is shown: its contrast in the expectation, one that is neither plain nor
hopeless."""


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--runs", nargs="+", metavar="LABEL=FOLDER", default=[])
    args = parser.parse_args()
    import matplotlib.pyplot as plt

    runs = dict(run.split("=", 1) for run in args.runs)
    methods = {label: of_run(Path(folder)) for label, folder in runs.items()} or shipped_beside_peers()
    columns: dict[str, Restore] = {
        "expectation (truth)": lambda p: p.target.expectation,
        "rapid scan, scaled": lambda p: p.rapid / p.exposure,
        **methods,
        "standard scan": lambda p: p.target.counts,
    }
    pairs = [load_pair(case) for case in Manifest.read(args.manifest).split("test")]
    child = next(
        pair
        for pair in pairs
        if pair.target.anatomy and pair.target.anatomy.landmarks and pair.motion is None
    )
    lesioned, lesion = next(found for found in map(shown_lesion, pairs) if found is not None)
    rows = [
        ("growth plates", child, 0, knee(child), lambda image: f"peak {peak_left(image, child):.2f}"),
        ("ribs", child, 1, ribs(child), lambda image: ""),
        (
            f"{lesion.focus.fwhm_mm:.0f} mm focus, {lesion.focus.region}",
            lesioned,
            lesion.view,
            (lesion.focus.row, lesion.focus.column),
            lambda image: f"contrast {contrast_left(image, lesioned, lesion):.2f}",
        ),
    ]
    restored = {
        pair.patient: [np.asarray(restore(pair), np.float64) for restore in columns.values()]
        for pair in (child, lesioned)
    }
    figure, axes = plt.subplots(
        len(rows), len(columns), figsize=(2 * len(columns), 2.35 * len(rows)), layout="constrained"
    )
    for axis, label in zip(axes[0], columns, strict=True):
        axis.set_title(label, fontsize=9)
    for line, (name, pair, view, centre, figure_of_merit) in zip(axes, rows, strict=True):
        black = None
        for axis, image in zip(line, restored[pair.patient], strict=True):
            cut = around(image[view], centre, pair.target.spacing_mm)
            black = black or 1.1 * float(np.quantile(cut, 0.995))
            axis.imshow(cut, cmap="gray_r", vmin=0, vmax=black, interpolation="nearest")
            axis.set(xticks=[], yticks=[], xlabel=figure_of_merit(image))
        line[0].set_ylabel(name)
    figure.savefig(args.output, dpi=110)


def shipped_beside_peers() -> dict[str, Restore]:
    """Two classical methods, and the shipped restorer at each strength and adapted."""
    loaded = load_restorer()
    adapting = AdaptingRestorer.of(loaded)
    peers = (GAUSSIAN, BM3D if BM3D in available() else NON_LOCAL_MEANS)
    gaussian, classical = (peer.method(peer.on_phantoms) for peer in peers)
    return {
        gaussian.label: gaussian.restore,
        classical.label: classical.restore,
        **{f"restored, {strength}": partial(of_strength, strength, loaded) for strength in Strength},
        "restored, fitted": lambda p: p.restored(adapting),
    }


def of_run(folder: Path) -> Restore:
    """The second restorer of a training, or the first where it has no other."""
    restore = networks_of(folder)

    def last(pair: ScanPair) -> Array:
        found = restore(pair, lambda: None)
        return found.get("f2", found.get("f1"))

    return last


def of_strength(strength: Strength, loaded: LoadedRestorer, pair: ScanPair) -> Array:
    """The restoration of a scan at a strength."""
    return apply(strength, pair.restored(loaded), pair.rapid, pair.exposure, pair.target.spacing_mm)


def around(image: Array, centre: tuple[float, float], spacing_mm: tuple[float, float]) -> Array:
    """The square of `SIDE_MM` about a place, moved to lie within the image."""
    starts = []
    for place, mm, whole in zip(centre, spacing_mm, image.shape, strict=True):
        side = round(SIDE_MM / mm)
        starts.append((int(np.clip(round(place) - side // 2, 0, whole - side)), side))
    (top, rows), (left, columns) = starts
    return image[top : top + rows, left : left + columns]


def shown_lesion(pair: ScanPair) -> tuple[ScanPair, FocusScore] | None:
    """The first focus of a child that is neither plain nor hopeless."""
    target = pair.target
    if target.anatomy is None or target.expectation is None or pair.motion is not None:
        return None
    scores = score_foci(
        target.expectation, target.expectation, target.labels, target.anatomy.foci, target.spacing_mm
    )
    fitting = (
        s
        for s in scores
        if FAINTEST < s.truth < STRONGEST and s.focus.region in ("thorax", "spine", "pelvis")
    )
    return next(((pair, score) for score in fitting), None)


def knee(pair: ScanPair) -> tuple[float, float]:
    """The growth plate of one thigh."""
    return pair.target.anatomy.landmarks["distal femoral physis -1"]


def ribs(pair: ScanPair) -> tuple[float, float]:
    """The middle of the thorax, by its labels."""
    from rbs.scans.scan import REGIONS

    places = np.argwhere(pair.target.labels[1] == REGIONS.index("thorax") + 1)
    return tuple(places.mean(axis=0))


def peak_left(image: Array, pair: ScanPair) -> float:
    """Recovery of the peak of the growth plates."""
    target = pair.target
    found, true = (
        measure_plates(counts, target.anatomy.landmarks, target.spacing_mm)
        for counts in (image, target.expectation)
    )
    return compare_plates(found, true).peak


def contrast_left(image: Array, pair: ScanPair, lesion: FocusScore) -> float:
    """Recovery of the contrast of a focus."""
    target = pair.target
    (score,) = score_foci(image, target.expectation, target.labels, [lesion.focus], target.spacing_mm)
    return score.recovery


if __name__ == "__main__":
    main()
