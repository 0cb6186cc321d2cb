"""Draw a phantom child on coarse and on fine pixels: docs/figures/enlarge.png.

    python scripts/picture_x2.py

The restorers are those that ship. Same seed, same picture.
"""

from pathlib import Path

import numpy as np
from scipy.ndimage import zoom

from rbs.report.figures import knees, overview_figure, png
from rbs.restorers.checkpoint import load_restorer
from rbs.scans.counts import block_sums
from rbs.scans.scan import Array, align
from rbs.synthetic.skeleton import SPACING_MM, VIEWS, make_child
from rbs.weights.shipped import ENLARGING

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "figures" / "enlarge.png"
SEED = 8
EXPOSURE = 0.5
DARKEST = 99.5
"""Percentile of the expected counts that is black: the bladder is not to dim the bones."""
PIXELS, WIDTH = 1700, 10.0
"""Width of the picture, pixels and inches."""


def main() -> None:
    """Draw it."""
    rng = np.random.default_rng(SEED)
    truth = align(make_child(8.0, "F", rng).expectation, VIEWS)
    rapid, standard = rng.poisson(EXPOSURE * truth), rng.poisson(truth)
    coarse = block_sums(rapid, 2, 2)
    smooth = load_restorer().restore(coarse, EXPOSURE)
    scans = {
        "coarse rapid scan": finer(coarse / EXPOSURE, order=0),
        "restored, bicubic": finer(smooth, order=3).clip(min=0),
        "restored x2": load_restorer(ENLARGING, scale=2).restore(coarse, EXPOSURE),
        "fine standard scan": standard,
        "truth": truth,
    }
    figure = overview_figure(
        scans,
        [knees(scans)],
        float(np.percentile(truth, DARKEST)),
        (SPACING_MM, SPACING_MM),
        [str(view) for view in VIEWS],
        width=WIDTH,
        note="A drawn phantom child of 8 years, anterior and posterior view. "
        f"Counts per {SPACING_MM:g} mm pixel at standard exposure.",
    )
    OUTPUT.write_bytes(png(figure, dpi=PIXELS / WIDTH))


def finer(counts: Array, order: int) -> Array:
    """Counts on pixels half as wide, a quarter each."""
    views = [zoom(view.astype(float), 2, order=order, grid_mode=True, mode="nearest") for view in counts]
    return np.stack(views) / 4


if __name__ == "__main__":
    main()
