"""Draw a phantom child, rapid, restored, standard and true: docs/figures/phantom_child.png.

    python scripts/picture.py

The restorer is the one that ships. Same seed, same picture.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rbs.report.figures import knees, overview_figure, png
from rbs.restorers.checkpoint import load_restorer
from rbs.scans.scan import Array, align
from rbs.synthetic.skeleton import SPACING_MM, VIEWS, make_child

FIGURES = Path(__file__).resolve().parents[1] / "docs" / "figures"
SEED = 8
EXPOSURE = 0.5
DARKEST = 99.5
"""Percentile of the expected counts that is black: the bladder is not to dim the bones."""


def main() -> None:
    """Draw it."""
    rapid, standard, truth = scans_of_a_child()
    panels = {
        "rapid scan, half the time": rapid / EXPOSURE,
        "restored from it": load_restorer().restore(rapid, EXPOSURE),
        "standard scan": standard,
        "truth": truth,
    }
    note = (
        "A drawn phantom, not a patient: a child of 8 years, anterior and posterior view; "
        "below, the growth plates at the knees."
    )
    draw(panels, FIGURES / "phantom_child.png", note, pixels=1600, width=9.0)


def scans_of_a_child() -> tuple[Array, Array, Array]:
    """Rapid scan, standard scan and expected counts of a child of 8 years, aligned (2, H, W)."""
    rng = np.random.default_rng(SEED)
    truth = align(make_child(8.0, "F", rng).expectation, VIEWS)
    return rng.poisson(EXPOSURE * truth), rng.poisson(truth), truth


def draw(panels: Mapping[str, Array], file: Path, note: str, *, pixels: int, width: float) -> None:
    """Write whole views and knees beside each other, the truth last.

    Args:
        panels: Label to standard counts (2, H, W).
        file: The PNG.
        note: Printed below.
        pixels: Width.
        width: Inches.
    """
    black = float(np.percentile(panels["truth"], DARKEST))
    spacing = (SPACING_MM, SPACING_MM)
    views = [str(view) for view in VIEWS]
    figure = overview_figure(panels, [knees(panels)], black, spacing, views, width=width, note=note)
    file.write_bytes(png(figure, dpi=pixels / width))


if __name__ == "__main__":
    main()
