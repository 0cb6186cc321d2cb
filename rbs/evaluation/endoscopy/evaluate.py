"""One split of a frames manifest, every method, every metric. How it goes is said in `rbs.evaluation.run`."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

import rbs
from rbs.data.frames_manifest import FrameRow, FramesManifest
from rbs.degradation.optical import Preset
from rbs.evaluation.endoscopy.classical import peers as peers_for
from rbs.evaluation.endoscopy.metrics import ALONE, MASK_DEFINITION, METRICS, PEAK_DEFINITION, TASK
from rbs.evaluation.endoscopy.pairs import FramePair, Source
from rbs.evaluation.methods import Method, classical_methods
from rbs.evaluation.parts import Part
from rbs.evaluation.run import FRAMES, PICTURED, begin, check_against, finish, scored, stamps
from rbs.evaluation.scans.metrics import Metric
from rbs.evaluation.scans.references import CEILING
from rbs.evaluation.set_metrics.fid_kid import TILE, Inception

Array = npt.NDArray[Any]

log = logging.getLogger(__name__)

CLEAN = "clean"
"""Name of the clean frames among pictures and sets."""
REFERENCES = {CEILING: "Clean frame"}

TILES_DEFINITION = (
    f"tiles: squares of {TILE} pixels, evenly spread to cover the frame, overlapping where its sides "
    "are no multiples; those half of which is not valid are left out, the same for every method. 8 bits, "
    "enlarged to 299 x 299 by torch-fidelity; features: the 2048 of the last pooling layer"
)


def degraded_row(preset: Preset | None) -> Method:
    """The degraded frame as it is; for "x2" that is bicubic interpolation."""
    label = "Bicubic (frame as enlarged)" if preset == "x2" else "Degraded frame"
    return Method("degraded", label, lambda pair: pair.degraded, raw=True)


def evaluate_frames(
    manifest: FramesManifest,
    output: Any,
    *,
    source: Source,
    trained: Sequence[Method] = (),
    extra_metrics: Sequence[Metric] = (),
    inception: Inception | None = None,
    against: str | None = None,
    split: str = "test",
    command: str = "",
    overwrite: bool = False,
) -> pd.DataFrame:
    """Score every method on every frame of a split; one frame is held in memory at a time.

    Writes what `run.finish` writes: per_frame.csv, per_group.csv and so on.

    Args:
        manifest: The frames. The classical methods are tuned on its validation split, whatever
            `split` is.
        output: Folder.
        source: Makes pairs of rows.
        trained: Methods beside the degraded frame and the classical ones.
        extra_metrics: Metrics beside `METRICS`.
        inception: For FID and KID; None to do without.
        against: Method that all others are compared with; None for the best peer of each metric.
        split: "test" (or "val", "train").
        command: The command line, for the settings.
        overwrite: Whether results already in `output` may be replaced.

    Returns:
        The summary, as `rbs.evaluation.statistics.summary.summarise` makes it.

    Raises:
        ManifestError: The split is empty.
        OutputError: `output` holds results already, or cannot be written.
        RbsError: A frame cannot be read, or `against` is no method.
    """
    rows = manifest.rows(split)
    validation = [row for row in manifest.frames if row.split == "val"]
    metrics = (*METRICS, *extra_metrics)
    made_from = {
        "rbs": rbs.__version__,
        "manifest": str(manifest.path),
        "manifest_sha256": hashlib.sha256(manifest.path.read_bytes()).hexdigest(),
        "split": split,
        **source.describe(),
    }
    inputs = {
        **made_from,
        "metrics": [m.describe() for m in metrics],
        "trained": [m.describe() for m in trained],
        "inception": inception.sha256 if inception else None,
        "files": stamps(
            file for row in (*rows, *validation) for file in (row.frame, row.low, row.mask) if file
        ),
    }
    parts = begin(output, inputs, overwrite=overwrite)
    peers = [degraded_row(source.preset), *_tuned(validation, source)]
    methods = [*peers, *trained]
    check_against(against, methods)
    pictured = np.linspace(0, len(rows) - 1, min(PICTURED, len(rows))).round().astype(int).tolist()

    def score(index: int) -> Part:
        return _score(index, rows[index], source, methods, metrics, inception, pictured=index in pictured)

    summary = finish(
        output,
        scored(parts, len(rows), score, FRAMES),
        FRAMES,
        metrics=metrics,
        methods=methods,
        peers=peers,
        against=against,
        inception=inception,
        reference=CLEAN,
        pictured=pictured,
        settings={
            **made_from,
            "command": command,
            "peak": PEAK_DEFINITION,
            "mask": MASK_DEFINITION,
            "aggregation": "mean over a group's frames, then over groups; 95 % bootstrap over groups",
            "references": REFERENCES,
            "tiles": TILES_DEFINITION if inception else None,
        },
    )
    parts.remove()
    return summary


def _tuned(validation: Sequence[FrameRow], source: Source) -> list[Method]:
    if not validation:
        log.warning("the classical peers are left out: there is no validation split to tune them on")
        return []
    return classical_methods(lambda: _pairs(validation, source), peers_for(source.preset))


def _pairs(rows: Sequence[FrameRow], source: Source) -> Iterator[FramePair]:
    from tqdm import tqdm

    return (source.pair(row, place) for place, row in enumerate(tqdm(rows, desc="tuning", unit="frame")))


def _score(
    index: int,
    row: FrameRow,
    source: Source,
    methods: Sequence[Method],
    metrics: Sequence[Metric],
    inception: Inception | None,
    *,
    pictured: bool,
) -> Part:
    """Restore a frame by every method."""
    pair = source.pair(row, index)
    target = pair.target
    known = {"patient": row.group, "frame": row.frame.name, "case": index, "degradation": pair.degradation}
    # What a perfect restoration scores is only worth telling where the clean frame is not the
    # reference.
    own = {m.name: m.compute(target.clean, target) if m.group in (TASK, ALONE) else math.nan for m in metrics}
    scores: list[dict[str, Any]] = [{**known, "method": CEILING, **own}]
    features, pictures = {}, {}
    shown = {CLEAN: target.clean}
    for method in methods:
        estimate = shown[method.name] = pair.on_target(method.restore(pair))
        scores.append(
            {**known, "method": method.name, **{m.name: m.compute(estimate, target) for m in metrics}}
        )
    if inception:
        features = {name: inception.of_pictures(tiles(frame, target.valid)) for name, frame in shown.items()}
    if pictured:
        pictures = {f"{index}/{name}": _in_8_bits(frame) for name, frame in shown.items()}
        pictures[f"{index}/valid"] = target.valid
        if target.lesion is not None:
            pictures[f"{index}/lesion"] = target.lesion
    facts = {"case": index, "patient": row.group, "frame": row.frame.name, "degradation": pair.degradation}
    return Part(scores, [], facts if pictured else None, pictures, features)


def tiles(frame: Array, valid: Array) -> Array:
    """The tiles of a frame as 8-bit pictures, uint8 (N, 3, TILE, TILE); see TILES_DEFINITION."""
    grey = _in_8_bits(frame)
    places = [
        (slice(row, row + TILE), slice(column, column + TILE))
        for row in _starts(valid.shape[0])
        for column in _starts(valid.shape[1])
    ]
    found = [grey[:, *place] for place in places if valid[place].mean() >= 0.5]
    return np.stack(found) if found else np.empty((0, 3, TILE, TILE), np.uint8)


def _starts(side: int) -> Iterable[int]:
    """Where tiles begin along a side; none where it is too short."""
    count = -(-side // TILE)
    return np.linspace(0, side - TILE, count).round().astype(int) if side >= TILE else ()


def _in_8_bits(frame: Array) -> Array:
    return np.rint(255 * np.clip(frame, 0, 1)).astype(np.uint8)
