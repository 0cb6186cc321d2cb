"""Frames of one split of a manifest, as an evaluation reads and scores them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rbs.data.frames_manifest import FrameRow, FramesManifest
from rbs.endoscopy.colour import in_8_bits
from rbs.evaluation.endoscopy.classical import peers
from rbs.evaluation.endoscopy.metrics import (
    ALONE,
    MASK_DEFINITION,
    METRICS,
    PEAK_DEFINITION,
    TASK,
    FrameTarget,
)
from rbs.evaluation.endoscopy.pairs import FramePair, Source
from rbs.evaluation.methods import Method
from rbs.evaluation.peers import Classical
from rbs.evaluation.run import FRAMES, ImageSet
from rbs.evaluation.scans.metrics import Metric
from rbs.evaluation.scans.references import CEILING
from rbs.evaluation.set_metrics.fid_kid import TILE
from rbs.scans.scan import Array

CLEAN = "clean"
"""Name of the clean frames among pictures and sets."""

TILES_DEFINITION = (
    f"tiles: squares of {TILE} pixels, evenly spread to cover the frame, overlapping where its sides "
    "are no multiples; those half of which is not valid are left out, the same for every method. 8 bits, "
    "enlarged to 299 x 299 by torch-fidelity; features: the 2048 of the last pooling layer"
)


class FrameSet(ImageSet):
    """Frames of one split of a manifest.

    Args:
        manifest: The manifest.
        split: "test" (or "val", "train").
        source: Makes pairs of rows.

    Raises:
        ManifestError: The split is empty.
    """

    kind = FRAMES
    metrics = METRICS
    reference = CLEAN
    definitions: ClassVar[dict[str, Any]] = {
        "peak": PEAK_DEFINITION,
        "mask": MASK_DEFINITION,
        "aggregation": "mean over a group's frames, then over groups; 95 % bootstrap over groups",
        "references": {CEILING: "Clean frame"},
        "tiles": TILES_DEFINITION,
    }

    def __init__(self, manifest: FramesManifest, split: str, source: Source) -> None:
        validation = [row for row in manifest.frames if row.split == "val"]
        super().__init__(manifest.path, split, manifest.rows(split), validation)
        self.source = source

    def pair(self, case: FrameRow, place: int) -> FramePair:
        """See `Source.pair`."""
        return self.source.pair(case, place)

    def files(self, case: FrameRow) -> Iterable[Path | None]:
        """Frame, picture of low quality and mask."""
        return case.frame, case.low, case.mask

    def settings(self) -> dict[str, Any]:
        """Preset and longest side."""
        return self.source.describe()

    def baseline(self) -> Method:
        """The degraded frame as it is; for "x2" that is bicubic interpolation."""
        enlarged = self.source.preset == "x2"
        label = "Bicubic (frame as enlarged)" if enlarged else "Degraded frame"
        return Method("degraded", label, lambda pair: pair.degraded, raw=True)

    def peers(self) -> Sequence[Classical]:
        """See `rbs.evaluation.endoscopy.classical.peers`."""
        return peers(self.source.preset)

    def columns(self, case: FrameRow, place: int, pair: FramePair) -> dict[str, Any]:
        """Group, frame and degradation."""
        names = {"patient": case.group, "frame": case.frame.name}
        return names | {"case": place, "degradation": pair.degradation}

    def reference_scores(self, pair: FramePair, metrics: Sequence[Metric]) -> dict[str, dict[str, float]]:
        """Scores of the clean frame, where a metric does not compare with it."""
        clean, target = pair.target.clean, pair.target
        own = {m.name: m.compute(clean, target) if m.group in (TASK, ALONE) else math.nan for m in metrics}
        return {CEILING: own}

    def reference_images(self, pair: FramePair) -> dict[str, Array]:
        """The clean frame."""
        return {CLEAN: pair.target.clean}

    def tiles(self, image: Array, target: FrameTarget) -> Array:
        """See `tiles`."""
        return tiles(image, target.valid)

    def pictures(self, pair: FramePair) -> dict[str, Array]:
        """Clean frame, valid area and lesion."""
        target = pair.target
        arrays = {CLEAN: self.picture(target.clean), "valid": target.valid}
        return arrays if target.lesion is None else {**arrays, "lesion": target.lesion}

    def picture(self, image: Array) -> Array:
        """Colours of eight bits."""
        return in_8_bits(image)

    def caption(self, case: FrameRow, place: int, pair: FramePair) -> dict[str, Any]:
        """Group, frame and degradation."""
        return self.columns(case, place, pair)


def tiles(frame: Array, valid: Array) -> Array:
    """Tiles of a frame as 8-bit pictures, uint8 (N, 3, TILE, TILE); see TILES_DEFINITION."""
    grey = in_8_bits(frame)
    places = [
        (slice(row, row + TILE), slice(column, column + TILE))
        for row in _starts(valid.shape[0])
        for column in _starts(valid.shape[1])
    ]
    found = [grey[:, *place] for place in places if valid[place].mean() >= 0.5]
    return np.stack(found) if found else np.empty((0, 3, TILE, TILE), np.uint8)


def _starts(side: int) -> Iterable[int]:
    """First pixels of the tiles along a side; none where it is too short."""
    count = -(-side // TILE)
    return np.linspace(0, side - TILE, count).round().astype(int) if side >= TILE else ()
