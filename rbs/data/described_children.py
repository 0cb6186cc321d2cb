"""Phantom children on coarse pixels, and the statements that are true of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np

from rbs.data.anatomy import CHILD_FILE
from rbs.data.augmentation.geometric import log_uniform
from rbs.data.manifest import Case
from rbs.description.coarse import FINE
from rbs.description.sentences import PARTS, Statement
from rbs.description.truth import (
    CAMERA_MM,
    STANDS_OUT,
    Foci,
    blurred,
    foci_of,
    hot_parts,
    midline_of,
    part_of,
    stands_out,
    statements_of,
)
from rbs.errors import ManifestError
from rbs.scans.counts import block_sums, scanned_rows
from rbs.scans.regions import HOT, label_of
from rbs.scans.scan import Array, View, align
from rbs.synthetic.skeleton import SPACING_MM
from rbs.utils.files import read_npz

PART_NUMBERS = {part: number for number, part in enumerate(PARTS)}
"""Place in `PARTS` of each part."""

_UNSCANNED = 1e-3
"""Expected counts of a pixel that was not scanned are fewer."""

_REGIONS = {"spine": 0.26, "thorax": 0.26, "pelvis": 0.2, "legs": 0.16, "arms": 0.06, "skull": 0.06}
"""Bones in which foci are added, and how often."""


@dataclass(frozen=True)
class DescribedChild:
    """The scanned rows of a phantom child on coarse pixels, aligned.

    Attributes:
        expectation: Of the standard scan, float16 (2, H, W).
        labels: Of every second fine pixel, uint8 (2, H, W).
        hot: Row and column of the hot foci that stand out, (n, 2).
        parts: Place in `PARTS` of each of them, (n,).
        cold: The same of cold ones.
        midline: Rows and columns of the midline.
        foci: Parts and numbers of these foci.
        statements: The true one of each topic.
    """

    expectation: Array
    labels: Array
    hot: Array
    parts: Array
    cold: Array
    midline: tuple[Array, Array]
    foci: Foci
    statements: tuple[Statement, ...]


def read_child(case: Case) -> DescribedChild:
    """Read a phantom child.

    Raises:
        ManifestError: The case is no phantom, or its files are damaged.
    """
    if case.truth is None:
        remedy = "list phantoms alone, see `rbs simulate`"
        raise ManifestError(f"patient {case.patient} has no truth file", file=case.standard[0], remedy=remedy)
    views = (View.ANTERIOR, View.POSTERIOR)
    try:
        content = read_npz(case.truth)
        expectation, labels = align(content["expectation"], views), align(content["labels"], views)
        record = json.loads(case.truth.with_name(CHILD_FILE).read_text(encoding="utf-8"))
        statements = statements_of(record, expectation, labels, SPACING_MM)
        midline = midline_of(record)
        parts = hot_parts(record, SPACING_MM)
        lesions = [lesion for lesion in record["lesions"] if stands_out(lesion)]
        places = {
            cold: np.array(
                [
                    (one["row"] / FINE, one["column"] / FINE)
                    for one in lesions
                    if (one["kind"] == "cold") is cold
                ]
            ).reshape(-1, 2)
            for cold in (False, True)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        fault = f"no phantom of this version is described by it ({type(error).__name__}: {error})"
        raise ManifestError(fault, file=case.truth, remedy="make the phantom anew") from error
    coarse = block_sums(expectation, FINE, FINE)
    first, end = scanned_rows(coarse > _UNSCANNED)
    return DescribedChild(
        expectation=coarse[:, first:end].astype(np.float16),
        labels=labels[:, ::FINE, ::FINE][:, first:end].copy(),
        hot=places[False] - (first, 0),
        parts=np.array([PART_NUMBERS[part] for part in parts], int),
        cold=places[True] - (first, 0),
        midline=(midline[0] / FINE - first, midline[1] / FINE),
        foci=foci_of(record, SPACING_MM),
        statements=statements,
    )


def with_more_foci(child: DescribedChild, rng: np.random.Generator) -> DescribedChild:
    """A child with up to six more hot foci, as the camera sees those of phantoms.

    A focus is a Gaussian in the bone at a place of its label, `blurred`, of the sizes and contrasts
    that phantoms have. Those that do not stand out are put in, too, and not spoken of.

    Args:
        child: The child.
        rng: Source of everything random.
    """
    expectation, labels = child.expectation.astype(np.float32), child.labels.copy()
    hot, parts, numbers = list(child.hot), list(child.parts), dict(child.foci.hot)
    mm = SPACING_MM * FINE
    for region in rng.choice(list(_REGIONS), size=int(rng.integers(1, 7)), p=list(_REGIONS.values())):
        places = np.argwhere(child.labels[int(rng.integers(2))] == label_of(region))
        if not len(places):
            continue
        row, column = (int(at) for at in places[rng.integers(len(places))])
        fwhm, contrast = log_uniform((4.0, 25.0), rng), log_uniform((1.3, 6.0), rng)
        length = fwhm * float(rng.choice([1.0, 1.0, 1.0, 2.5]))
        change = blurred(contrast, fwhm, length)
        shape = _focus(labels.shape[1:], (row, column), (length, fwhm), rng.uniform(0, np.pi))
        for view in expectation:
            here = view[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3].mean()
            # Soft tissue is a part of it, and depth makes the views differ.
            view += np.float32(change * here * rng.uniform(0.5, 0.95)) * shape
        if change >= STANDS_OUT:
            labels[:, shape >= 0.5] = HOT
            hot.append((row, column))
            part = part_of(region, (column - float(np.interp(row, *child.midline))) * mm)
            parts.append(PART_NUMBERS[part])
            numbers[part] = numbers.get(part, 0) + 1
    foci = Foci(numbers, child.foci.cold)
    of_foci = {(one.kind, one.region, one.side): one for one in foci.statements()}
    return replace(
        child,
        expectation=expectation,
        labels=labels,
        hot=np.array(hot, float).reshape(-1, 2),
        parts=np.array(parts, int),
        foci=foci,
        statements=tuple(of_foci.get((one.kind, one.region, one.side), one) for one in child.statements),
    )


def _focus(
    shape: tuple[int, ...], place: tuple[int, int], size_mm: tuple[float, float], angle: float
) -> Array:
    """A blurred Gaussian of peak 1, float32 (H, W), with its size along an angle and across it."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    down, right = (y - place[0]) * SPACING_MM * FINE, (x - place[1]) * SPACING_MM * FINE
    along, across = right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle)
    wide = [np.hypot(size, CAMERA_MM) for size in size_mm]
    gaussian: Array = np.exp(-4 * np.log(2) * ((along / wide[0]) ** 2 + (across / wide[1]) ** 2))
    return gaussian.astype(np.float32)
