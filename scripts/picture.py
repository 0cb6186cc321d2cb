"""Draw a phantom child, rapid, restored, standard and true: docs/figures/phantom_child.png.

    python scripts/picture.py

The restorer is the one that ships. Same seed, same picture.
"""

from pathlib import Path

import numpy as np

from rbs.report.figures import knees, overview_figure, png
from rbs.restorers.checkpoint import load_restorer
from rbs.scans.scan import align
from rbs.synthetic.skeleton import SPACING_MM, VIEWS, make_child

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "figures" / "phantom_child.png"
SEED = 8
EXPOSURE = 0.5
DARKEST = 99.5
"""Percentile of the expected counts that is black: the bladder is not to dim the bones."""
PIXELS, WIDTH = 1600, 9.0
"""Width of the picture, pixels and inches."""


def main() -> None:
    """Draw it."""
    rng = np.random.default_rng(SEED)
    truth = align(make_child(8.0, "F", rng).expectation, VIEWS)
    rapid, standard = rng.poisson(EXPOSURE * truth), rng.poisson(truth)
    scans = {
        "rapid scan, half the time": rapid / EXPOSURE,
        "restored from it": load_restorer().restore(rapid, EXPOSURE),
        "standard scan": standard,
        "truth": truth,
    }
    figure = overview_figure(
        scans,
        [knees(scans)],
        float(np.percentile(truth, DARKEST)),
        (SPACING_MM, SPACING_MM),
        [str(view) for view in VIEWS],
        width=WIDTH,
        note="A drawn phantom, not a patient: a child of 8 years, anterior and posterior view; "
        "below, the growth plates at the knees.",
    )
    OUTPUT.write_bytes(png(figure, dpi=PIXELS / WIDTH))


if __name__ == "__main__":
    main()
