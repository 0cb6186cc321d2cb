"""Criteria of a usable scan, and the velocities that count as the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rbs.scans.scan import Array, Scan

MIN_COUNTS = 20_000
"""Counts a view below which there is no skeleton to restore. A 10 kg child at 40 cm/min has about
110 000."""

SAME_VELOCITY = 1.05
"""A scan up to this many times as fast as the standard is a standard scan: cameras do not run
exactly."""

ONE_FRAME = "both views hold the same counts: one frame was stored as both, and the other is lost"
"""Warning where `one_frame_twice`."""


def one_frame_twice(frames: Sequence[Array] | Array) -> bool:
    """True if two frames (rows, columns) hold the same counts, one of them perhaps mirrored.

    Two detectors never count alike.
    """
    if len(frames) != 2 or frames[0].shape != frames[1].shape:
        return False
    first, second = frames
    return np.array_equal(first, second) or np.array_equal(first, second[:, ::-1])


def too_few_counts(scan: Scan, names: Sequence[str]) -> Iterator[str]:
    """The fault of each view that holds fewer than `MIN_COUNTS` counts, as a clause.

    Args:
        scan: The scan.
        names: Names of its views in messages.
    """
    for name, total in zip(names, scan.counts.sum(axis=(1, 2)), strict=True):
        if total < MIN_COUNTS:
            yield f"too few counts: {name} has {int(total):,}, a bone scan at least {MIN_COUNTS:,}"
