"""Draw the regions that `rbs segment` finds in drawn children: docs/figures/regions.png.

    python scripts/regions_picture.py

Rapid scans at 40 cm/min of children of 1, 5, 10 and 15 years, both views, and the segmenter that
ships. Same seed, same picture.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from rbs.inference.segmentation import load_segmenter_for
from rbs.report.figures import png
from rbs.report.regions import contours_png
from rbs.scans.regions import DESCRIBED
from rbs.scans.scan import align
from rbs.synthetic.skeleton import SPACING_MM, VIEWS, make_child

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "figures" / "regions.png"
AGES, SEED, EXPOSURE = (1, 5, 10, 15), 3, 0.5


def main() -> None:
    """Draw it."""
    import matplotlib.pyplot as plt

    segmenter = load_segmenter_for("shipped")
    figure, axes = plt.subplots(1, len(AGES), figsize=(12, 5.9), width_ratios=[1] * len(AGES))
    for age, axis in zip(AGES, axes, strict=True):
        rng = np.random.default_rng((SEED, age))
        counts = rng.poisson(EXPOSURE * align(make_child(float(age), "F", rng).expectation, VIEWS))
        found = segmenter.probabilities(counts, EXPOSURE, (SPACING_MM, SPACING_MM)).argmax(axis=1)
        rows, columns = (np.nonzero((found > 0).any(axis=(0, 2 - i)))[0] for i in (0, 1))
        part = slice(max(0, rows[0] - 12), rows[-1] + 12), slice(max(0, columns[0] - 12), columns[-1] + 12)
        # Mirrored once more, the posterior view is as the camera sees it.
        shown = zip(align(counts[:, *part], VIEWS), align(found[:, *part], VIEWS), strict=True)
        views = [np.asarray(Image.open(BytesIO(contours_png(*view))).convert("RGB")) for view in shown]
        axis.imshow(np.concatenate(views, axis=1), interpolation="nearest")
        axis.set_title(f"{age} year" + "s" * (age > 1), fontsize=11)
        axis.set_anchor("S")
        axis.axis("off")
    handles = [
        plt.Line2D([], [], color=np.array(one.colour) / 255, label=name) for name, one in DESCRIBED.items()
    ]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=10)
    figure.subplots_adjust(0.005, 0.06, 0.995, 0.95, 0.02)
    OUTPUT.write_bytes(png(figure, dpi=130))


if __name__ == "__main__":
    main()
