"""Near-duplicate frames, which must not be on both sides of a split.

They are recognised by the likeness of their hashes (`rbs.endoscopy.perceptual_hash`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from rbs.endoscopy.perceptual_hash import PerceptualHash, likeness

DUPLICATE = 0.45
"""Likeness from which on two frames are near-duplicates."""

_BLOCK = 256


@dataclass(frozen=True)
class Duplicates:
    """Two frames that show the same.

    Attributes:
        first: Place of one in the sequence.
        second: Place of the other, after it.
        likeness: Of their hashes.
    """

    first: int
    second: int
    likeness: float


def near_duplicates(
    hashes: Sequence[PerceptualHash], groups: Sequence[str], *, progress: bool = True
) -> list[Duplicates]:
    """All pairs of frames of different groups that show the same.

    Every frame is compared with every other: 10 000 frames take some seconds, 100 000 some minutes.

    Args:
        hashes: Of the frames.
        groups: The video or patient of each; frames of one belong together anyhow.
        progress: Show a progress bar.
    """
    if not hashes:
        return []
    bits, shown = np.stack([s.bits for s in hashes]), np.stack([s.shown for s in hashes])
    unit = np.unique(np.asarray(groups), return_inverse=True)[1]
    found = []
    starts = range(0, len(hashes), _BLOCK)
    for start in tqdm(starts, desc="comparing", unit="block", leave=False, disable=not progress):
        block = slice(start, start + _BLOCK)
        value = likeness(bits[block], shown[block], bits[start:], shown[start:])
        value[unit[block, None] == unit[None, start:]] = 0
        rows, columns = np.nonzero(np.triu(value >= DUPLICATE, k=1))
        found += [
            Duplicates(start + int(row), start + int(column), float(value[row, column]))
            for row, column in zip(rows, columns, strict=True)
        ]
    return found


def joined(number: int, ties: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Connected components of the places 0 to number - 1, each sorted, by their first member."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array(list(ties), dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(number, number))
    labels = connected_components(graph, directed=False)[1]
    members: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        members.setdefault(label, []).append(place)
    return list(members.values())
