"""Draw a phantom child on coarse and on fine pixels: docs/figures/enlarge.png.

    python scripts/picture_x2.py

The restorers are those that ship. Same seed, same picture.
"""

import numpy as np
from picture import EXPOSURE, FIGURES, draw, scans_of_a_child
from scipy.ndimage import zoom

from rbs.restorers.checkpoint import load_restorer
from rbs.scans.counts import block_sums
from rbs.scans.scan import Array
from rbs.synthetic.skeleton import SPACING_MM
from rbs.weights.shipped import ENLARGING


def main() -> None:
    """Draw it."""
    rapid, standard, truth = scans_of_a_child()
    coarse = block_sums(rapid, 2, 2)
    smooth = load_restorer().restore(coarse, EXPOSURE)
    panels = {
        "coarse rapid scan": finer(coarse / EXPOSURE, order=0),
        "restored, bicubic": finer(smooth, order=3).clip(min=0),
        "restored x2": load_restorer(ENLARGING, scale=2).restore(coarse, EXPOSURE),
        "fine standard scan": standard,
        "truth": truth,
    }
    note = (
        "A drawn phantom child of 8 years, anterior and posterior view. "
        f"Counts per {SPACING_MM:g} mm pixel at standard exposure."
    )
    draw(panels, FIGURES / "enlarge.png", note, pixels=1700, width=10.0)


def finer(counts: Array, order: int) -> Array:
    """Counts on pixels half as wide, a quarter each."""
    views = [zoom(view.astype(float), 2, order=order, grid_mode=True, mode="nearest") for view in counts]
    return np.stack(views) / 4


if __name__ == "__main__":
    main()
