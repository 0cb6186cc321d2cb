"""One focus by size and method: the contrast that is kept, and a picture.

    pip install '.[bm3d]'
    python benchmarks/focus_sizes.py data/phantoms/manifest.csv docs/results focus_sizes.png

Foci of 5, 7, 10 and 15 mm, blurred by the camera's 7 mm, are put at the same places in the bones of
one test child, each as bright as its surroundings (contrast 1 at its peak). Kept is how much
brighter the restoration is with the focus than without it at that place, over what was put in: the
same counts of the child in both, mean of all places and draws. The picture shows the first place in
one draw; Anscombe + BM3D sees 96 x 96 pixels around it, and is not in the table.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from rbs.data.manifest import Manifest
from rbs.evaluation.observers.simulation import CAMERA_FWHM_MM, bone_places
from rbs.evaluation.scans.classical import BM3D, GAUSSIAN
from rbs.evaluation.scans.pairs import ScanPair, load_pair
from rbs.inference.strengths import Strength, apply
from rbs.restorers.checkpoint import LoadedRestorer, load_restorer
from rbs.scans.body import smooth

Array = npt.NDArray[np.floating]

SIZES_MM = (5.0, 7.0, 10.0, 15.0)
DRAWS = 4
SEED = 1
SHOWN, AROUND = 16, 48
"""Half the sides of a picture, and of what BM3D sees, pixels."""


def main() -> None:
    """Draw, restore, write table and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    pair = load_pair(Manifest.read(args.manifest).split("test")[0])
    expectation = np.maximum(pair.target.expectation.astype(np.float64), 1e-6)
    rng = np.random.default_rng(SEED)
    places = [
        place
        for place in bone_places(expectation, pair.target.labels, rng)
        if all(AROUND <= at < side - AROUND for at, side in zip(place, expectation.shape[1:], strict=True))
    ]
    loaded = load_restorer()
    methods = restoring()
    kept = {(size, name): [] for size in SIZES_MM for name in ("rapid scan", *methods)}
    rows = []
    for draw in tqdm(range(DRAWS), unit="draw"):
        counts = rng.poisson(pair.exposure * expectation)
        without = images(replace(pair, rapid=counts), loaded, methods)
        for size in SIZES_MM:
            added = foci(expectation, places, size, pair.spacing_mm)
            more = replace(pair, rapid=counts + rng.poisson(pair.exposure * added))
            found = images(more, loaded, methods)
            for name, image in found.items():
                kept[size, name] += [responses(image - without[name], added, places)]
            if draw == 0:
                rows.append(shown(more, found, expectation + added, places[0]))
    table = pd.DataFrame(
        [
            {"method": name, **{f"kept_{size:g}mm": f"{np.mean(kept[size, name]):.2f}" for size in SIZES_MM}}
            for name in ("rapid scan", *methods)
        ]
    )
    table.to_csv(args.results / "focus_sizes.csv", index=False)
    print(f"{len(places)} places\n{table.to_string(index=False)}")
    draw_picture(rows, args.picture)


def restoring() -> dict[str, Callable[[ScanPair, Array], Array]]:
    """By name, from a scan and the restorer's own answer to an image."""
    gaussian = GAUSSIAN.method(GAUSSIAN.on_phantoms)

    def at(strength: Strength) -> Callable[[ScanPair, Array], Array]:
        return lambda pair, own: apply(strength, own, pair.rapid, pair.exposure, pair.spacing_mm)

    of_strengths = {f"restored, {strength}": at(strength) for strength in reversed(Strength)}
    return {gaussian.label: lambda pair, own: gaussian.restore(pair), **of_strengths}


def images(
    pair: ScanPair, loaded: LoadedRestorer, methods: dict[str, Callable[[ScanPair, Array], Array]]
) -> dict[str, Array]:
    """The scaled rapid scan and all restorations of it, standard counts (V, H, W)."""
    own = pair.restored(loaded)
    return {
        "rapid scan": pair.rapid / pair.exposure,
        **{name: np.asarray(restore(pair, own), np.float64) for name, restore in methods.items()},
    }


def foci(
    expectation: Array, places: list[tuple[int, int]], size_mm: float, spacing_mm: tuple[float, float]
) -> Array:
    """Expected standard counts (V, H, W) of foci of contrast 1 at all places."""
    local = smooth(expectation, 6.0, spacing_mm)
    y, x = (np.arange(side) * mm for side, mm in zip(expectation.shape[1:], spacing_mm, strict=True))
    width = np.hypot(size_mm, CAMERA_FWHM_MM)
    added = np.zeros_like(expectation)
    for row, column in places:
        far = (y[:, None] - y[row]) ** 2 + (x - x[column]) ** 2
        added += local[:, row, column][:, None, None] * np.exp(-4 * np.log(2) * far / width**2)
    return added


def responses(change: Array, added: Array, places: list[tuple[int, int]]) -> float:
    """What was added at the peaks that an image shows, mean over places and views."""
    rows, columns = np.transpose(places)
    near = [(dr, dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1)]
    seen = sum(change[:, rows + dr, columns + dc] for dr, dc in near)
    known = sum(added[:, rows + dr, columns + dc] for dr, dc in near)
    return float(np.mean(seen / known))


def shown(pair: ScanPair, found: dict[str, Array], truth: Array, place: tuple[int, int]) -> dict[str, Array]:
    """The squares of the first view about a place, by column of the picture."""
    row, column = place
    near = np.s_[:1, row - AROUND : row + AROUND, column - AROUND : column + AROUND]
    peer = BM3D.method(BM3D.on_phantoms)
    bm3d = peer.restore(replace(pair, rapid=pair.rapid[near]))
    middle = np.s_[0, AROUND - SHOWN : AROUND + SHOWN, AROUND - SHOWN : AROUND + SHOWN]
    squares = {name: image[near][middle] for name, image in found.items()}
    first = {"truth": truth[near][middle], "rapid scan": squares.pop("rapid scan")}
    return first | {peer.label: bm3d[middle]} | squares


def draw_picture(rows: list[dict[str, Array]], file: Path) -> None:
    """A row a size, all in the window of its truth."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(rows), len(rows[0]), figsize=(1.7 * len(rows[0]), 1.9 * len(rows)), layout="constrained"
    )
    for size, line, squares in zip(SIZES_MM, axes, rows, strict=True):
        for axis, (name, square) in zip(line, squares.items(), strict=True):
            black = 1.2 * squares["truth"].max()
            axis.imshow(square, cmap="gray_r", vmin=0, vmax=black, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if size == SIZES_MM[0]:
                axis.set_title(name, fontsize=8)
        line[0].set_ylabel(f"{size:g} mm")
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
