r"""Foci of raised uptake by the hot spots of a segmenter: the part of each, and how sure it is.

A hot spot (`rbs.segmentation.measures.hot_spots`) whose largest probability is p is a focus that
stands out with probability

.. math::
    q = \sigma(a + b \ln \tfrac{p}{1 - p}) ,

with an a and a b of their own in arms and legs, where growth plates, limbs that take up more than
their fellows and sites of the injection look like foci. In each part of the skeleton there is
besides with probability m a focus that has no hot spot. All are independent of each other, so that
their number in a part has a Poisson binomial distribution. The five numbers are fitted to phantom
children that neither network was trained on (`scripts/fit_foci.py`). Needs no PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rbs.description.sentences import NONE, NUMBERS, PARTS, SENTENCES
from rbs.description.truth import Part, part_of
from rbs.scans.scan import Array, View
from rbs.segmentation.measures.hot_spots import EDGE, HotSpot, find_hot_spots
from rbs.segmentation.measures.label_draws import likeliest
from rbs.segmentation.measures.sides import midline

LIMBS = ("arms", "legs")
"""Regions in which hot spots say less."""
SUREST = 0.999
"""Largest probability of a hot spot that is used; larger ones count as this."""

_WORDS = (NONE, *NUMBERS)
"""Grades of a statement on foci, by rising number."""
_ROWS = {
    part: [
        next(
            row
            for row, (_, statement, _) in enumerate(SENTENCES)
            if statement.kind == "hot foci" and (statement.region, statement.side, statement.grade) == key
        )
        for key in ((*part, word) for word in _WORDS)
    ]
    for part in PARTS
}
"""Rows of `SENTENCES` on the foci of each part, in the order of `_WORDS`."""


@dataclass(frozen=True)
class SeenFocus:
    """A hot spot of one view or of both.

    Attributes:
        part: Where it lies.
        peak: Largest probability of the label "hot spots" in it.
    """

    part: Part
    peak: float


@dataclass(frozen=True)
class FocusOdds:
    """How often hot spots are foci that stand out.

    Attributes:
        trunk: a and b of hot spots of skull, spine, thorax and pelvis.
        limbs: The same of arms and legs.
        missed: m, how often a part has a focus without a hot spot.
    """

    trunk: tuple[float, float]
    limbs: tuple[float, float]
    missed: float

    def chance(self, focus: SeenFocus) -> float:
        """Probability that it is a focus that stands out."""
        start, slope = self.limbs if focus.part[0] in LIMBS else self.trunk
        return 1 / (1 + math.exp(-start - slope * _logit(focus.peak)))

    def numbers(self, foci: Iterable[SeenFocus]) -> Array:
        """Probability of no focus, one, a few and many in the part in which all these lie, (4,)."""
        of_number = np.array([1 - self.missed, self.missed])
        for focus in foci:
            chance = self.chance(focus)
            of_number = np.convolve(of_number, [1 - chance, chance])
        ends = [0, *NUMBERS.values()]
        found: Array = np.add.reduceat(np.pad(of_number, (0, ends[-1])), ends)
        return found


def seen_foci(
    counts: Array, probabilities: Array, spacing_mm: tuple[float, float], views: Sequence[View]
) -> list[SeenFocus]:
    """Hot spots that may be foci, and the part of the skeleton of each.

    Of two views that name different bones (the spine lies behind the sternum), that in which the
    hot spot stands out more is right.

    Args:
        counts: Aligned, (V, H, W).
        probabilities: Of background and regions, (V, 1 + K, H, W).
        spacing_mm: Row and column spacing, mm.
        views: The view of each of the V channels.
    """
    middle = midline(counts, likeliest(probabilities))
    foci: dict[int, list[HotSpot]] = {}
    for spot in find_hot_spots(counts, probabilities, spacing_mm, views, threshold=EDGE):
        if spot.focus:
            foci.setdefault(spot.focus, []).append(spot)
    seen = []
    for own in foci.values():
        region = max(own, key=lambda spot: np.nan_to_num(spot.contrast.value)).region
        left = np.mean([spot.column - middle[round(spot.row)] for spot in own]) * spacing_mm[1]
        seen.append(SeenFocus(part_of(region, float(left)), max(spot.probability for spot in own)))
    return seen


def with_foci(chances: Array, foci: Iterable[SeenFocus], odds: FocusOdds) -> Array:
    """Probabilities of sentences in which those on hot foci are by what was seen.

    Args:
        chances: Probability of each sentence of `SENTENCES` within its topic, (S,).
        foci: Hot spots of the scan.
        odds: How often they are foci.
    """
    found = chances.copy()
    for part, own in _by_part(foci).items():
        found[_ROWS[part]] = odds.numbers(own)
    return found


def fit_odds(children: Sequence[tuple[Sequence[SeenFocus], Mapping[Part, int]]]) -> FocusOdds:
    """The likeliest odds, given whether there are foci in each part of each child.

    Args:
        children: Hot spots of each child, and the true number of foci of each part that has some.
    """
    from scipy.optimize import minimize

    peaks: list[float] = []
    limbs: list[bool] = []
    part: list[int] = []
    there: list[bool] = []
    for foci, numbers in children:
        for place, own in _by_part(foci).items():
            peaks += [_logit(focus.peak) for focus in own]
            limbs += [place[0] in LIMBS] * len(own)
            part += [len(there)] * len(own)
            there.append(numbers.get(place, 0) > 0)
    peak, of_limbs, at, true = np.array(peaks), np.array(limbs, bool), np.array(part, int), np.array(there)

    def loss(numbers: Array) -> float:
        start, slope = np.where(of_limbs, numbers[2:4, None], numbers[:2, None])
        # ln(1 - sigmoid(x)) = -ln(1 + exp(x))
        none = np.full(len(true), -np.logaddexp(0, numbers[4]))
        np.add.at(none, at, -np.logaddexp(0, start + slope * peak))
        some = np.log(-np.expm1(np.minimum(none, -1e-9)))
        return -float(np.where(true, some, none).sum())

    found = [float(number) for number in minimize(loss, [-2.0, 0.5, -2.0, 0.5, -3.0]).x]
    return FocusOdds((found[0], found[1]), (found[2], found[3]), 1 / (1 + math.exp(-found[4])))


def _by_part(foci: Iterable[SeenFocus]) -> dict[Part, list[SeenFocus]]:
    """Hot spots of each part, also of those that have none."""
    found: dict[Part, list[SeenFocus]] = {part: [] for part in PARTS}
    for focus in foci:
        found[focus.part].append(focus)
    return found


def _logit(peak: float) -> float:
    within = min(max(peak, 1 - SUREST), SUREST)
    return math.log(within / (1 - within))
