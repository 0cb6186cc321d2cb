"""Scans of one split of a manifest, as an evaluation reads and scores them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rbs.data.manifest import Case, Manifest
from rbs.errors import ManifestError
from rbs.evaluation.methods import RAPID, Method
from rbs.evaluation.observers.task_metrics import TASK_METRICS
from rbs.evaluation.parts import Part
from rbs.evaluation.peers import Classical
from rbs.evaluation.run import PICTURED, SCANS, ImageSet
from rbs.evaluation.scans.classical import available
from rbs.evaluation.scans.metrics import METRICS, PEAK_DEFINITION, Metric, Target, region_biases
from rbs.evaluation.scans.pairs import ScanPair, load_pair
from rbs.evaluation.scans.references import REFERENCES, reference_images, reference_scores
from rbs.evaluation.set_metrics.fid_kid import STANDARD, TILE
from rbs.evaluation.set_metrics.lpips import display_grey
from rbs.scans.body import MASK_DEFINITION
from rbs.scans.registration import residual_misalignment
from rbs.scans.scan import Array

BODY_SHARE = 1 / 16
"""Share of a tile that the body fills at least."""

TILES_DEFINITION = (
    f"tiles: each view is cut into squares of {TILE} pixels from its upper left corner, the rest filled with "
    "zero counts; those of which the body fills less than one sixteenth are left out, the same for every "
    "method. Shown in inverse grey, 0 counts 255 and P or more 0, rounded to 8 bits, three equal channels, "
    "enlarged to 299 x 299 by torch-fidelity; features: the 2048 of the last pooling layer"
)


class ScanSet(ImageSet):
    """Scans of one split of a manifest.

    Args:
        manifest: The manifest.
        split: "test" (or "val", "train").

    Raises:
        ManifestError: The split is empty.
    """

    kind = SCANS
    metrics = (*METRICS, *TASK_METRICS)
    reference = STANDARD
    definitions: ClassVar[dict[str, Any]] = {
        "peak": PEAK_DEFINITION,
        "mask": MASK_DEFINITION,
        "aggregation": "mean over a patient's scans, then over patients; 95 % bootstrap over patients",
        "references": REFERENCES,
        "tiles": TILES_DEFINITION,
    }

    def __init__(self, manifest: Manifest, split: str) -> None:
        cases = manifest.split(split)
        if not cases:
            fault = f"the split '{split}' is empty"
            raise ManifestError(fault, file=manifest.path, remedy="add patients to it")
        super().__init__(manifest.path, split, cases, manifest.split("val"))

    def pair(self, case: Case, place: int) -> ScanPair:
        """See `load_pair`."""
        return load_pair(case)

    def files(self, case: Case) -> Iterable[Path | None]:
        """Rapid and standard scan, truth and labels."""
        return (*case.rapid, *case.standard, case.truth, *case.labels)

    def baseline(self) -> Method:
        """The rapid scan at standard scale."""
        return RAPID

    def peers(self) -> Sequence[Classical]:
        """See `rbs.evaluation.scans.classical.available`."""
        return available()

    def columns(self, case: Case, place: int, pair: ScanPair) -> dict[str, Any]:
        """Patient, exposure, peak, mean count and motion."""
        return {
            "patient": case.patient,
            "case": place,
            "exposure": pair.exposure,
            "peak": pair.target.peak,
            "mean_count": pair.target.mean_count,
            **_motion(pair),
        }

    def reference_scores(self, pair: ScanPair, metrics: Sequence[Metric]) -> dict[str, dict[str, float]]:
        """See `rbs.evaluation.scans.references.reference_scores`."""
        return reference_scores(pair, metrics)

    def reference_images(self, pair: ScanPair) -> dict[str, Array]:
        """The standard scan, the expectation and a draw of it."""
        return {STANDARD: pair.target.standard, **reference_images(pair)}

    def tiles(self, image: Array, target: Target) -> Array:
        """See `body_tiles`."""
        grey = body_tiles(image, target)[:, None]
        return np.broadcast_to(grey, (len(grey), 3, *grey.shape[2:]))

    def pictures(self, pair: ScanPair) -> dict[str, Array]:
        """Standard scan, peak, spacing, truth and labels."""
        target = pair.target
        arrays = {"standard": self.picture(target.standard)}
        arrays |= {"peak": np.array(target.peak), "spacing_mm": np.array(target.spacing_mm)}
        if target.expectation is not None:
            arrays["truth"] = self.picture(target.expectation)
        if target.labels is not None:
            arrays["labels"] = target.labels.astype(np.uint8)
        return arrays

    def picture(self, image: Array) -> Array:
        """Standard counts in half precision."""
        return image.astype(np.float16)

    def caption(self, case: Case, place: int, pair: ScanPair) -> dict[str, Any]:
        """Patient, age, views and, of a phantom, its foci."""
        foci = [asdict(focus) for focus in pair.target.anatomy.foci] if pair.target.anatomy else []
        facts = {"case": place, "patient": case.patient, "age_y": case.age_y}
        return {**facts, "views": list(pair.views), "foci": foci}

    def region_biases(self, estimate: Array, target: Target) -> dict[str, float]:
        """See `rbs.evaluation.scans.metrics.region_biases`."""
        return region_biases(estimate, target)

    def summary_of(self, parts: Sequence[Part]) -> dict[str, Any]:
        """The exposures of the rapid scans."""
        return {"exposures": sorted({round(row["exposure"], 4) for part in parts for row in part.scores})}

    def pictured(self) -> list[int]:
        """The youngest, the middle and the oldest case. See `ImageSet.pictured`."""
        order = sorted(range(len(self.cases)), key=lambda i: (self.cases[i].age_y or 0.0, i))
        places = np.linspace(0, len(order) - 1, min(PICTURED, len(order))).round().astype(int)
        return [order[place] for place in places]


def _motion(pair: ScanPair) -> dict[str, float]:
    """Motion of the body between the scans, and misalignment after registration, mm."""
    if pair.motion is None:
        return {}
    spacing = pair.target.spacing_mm
    u = pair.motion.field(pair.rapid.shape[1:], spacing)
    left = residual_misalignment(pair.target.counts, pair.rapid, spacing, pair.motion)
    return {
        "motion_mm": float(np.median(np.hypot(*u)[pair.target.mask.any(axis=0)])),
        "residual_mm": left.median_mm,
        "residual_by_noise_mm": left.floor_median_mm,
    }


def body_tiles(counts: Array, target: Target) -> Array:
    """Tiles of a scan as 8-bit pictures; see TILES_DEFINITION.

    Args:
        counts: Standard counts (V, H, W).
        target: Gives window and body.

    Returns:
        uint8 (tiles, TILE, TILE).
    """
    grey = np.rint(127.5 * (1 + display_grey(counts, target.peak))).astype(np.uint8)
    body = _tiles(target.mask, False).mean(axis=(1, 2)) >= BODY_SHARE
    return _tiles(grey, 255)[body]


def _tiles(images: Array, fill: float | bool) -> Array:
    """(V, H, W) to (tiles, TILE, TILE), row by row of each view."""
    views, rows, columns = images.shape
    padded = np.pad(images, ((0, 0), (0, -rows % TILE), (0, -columns % TILE)), constant_values=fill)
    grid = padded.reshape(views, padded.shape[1] // TILE, TILE, padded.shape[2] // TILE, TILE)
    return grid.swapaxes(2, 3).reshape(-1, TILE, TILE)
