"""Foci of raised uptake by hot spots: parts, numbers, and odds found again."""

from __future__ import annotations

import numpy as np
import pytest

from rbs.description.answers import confident_answers
from rbs.description.foci import FocusOdds, SeenFocus, fit_odds, seen_foci, with_foci
from rbs.description.sentences import PARTS, SENTENCES, Statement
from rbs.scans.regions import HOT, label_of
from rbs.scans.scan import REGIONS, View

ODDS = FocusOdds(trunk=(-2.0, 0.8), limbs=(-2.6, 0.4), missed=0.04)
SPINE, LEG = ("spine", ""), ("legs", "left")
BOTH = (View.ANTERIOR, View.POSTERIOR)
MM = (2.26, 2.26)


def body(
    bones: dict[str, tuple[slice, slice]], spots: dict[int, tuple[int, int, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Counts and probabilities of both views: bones in each, and a hot spot in some views.

    Args:
        bones: Rows and columns of each bone.
        spots: Row, column and counts over those of bone of the hot spot in a view.
    """
    counts = np.ones((2, 120, 100), np.float32)
    labels = np.zeros(counts.shape, int)
    for name, place in bones.items():
        labels[(slice(None), *place)] = label_of(name)
        counts[(slice(None), *place)] = 10
    probabilities = (np.arange(1 + len(REGIONS))[:, None, None] == labels[:, None]).astype(np.float32)
    for view, (row, column, times) in spots.items():
        place = slice(row - 2, row + 3), slice(column - 2, column + 3)
        counts[(view, *place)] = 10 * times
        probabilities[(view, slice(None), *place)] = 0
        probabilities[(view, HOT, *place)] = 0.9
    return counts, probabilities


TRUNK = {
    "spine": (slice(10, 60), slice(46, 54)),
    "pelvis": (slice(60, 80), slice(30, 70)),
    "legs": (slice(80, 115), slice(60, 70)),
}


@pytest.mark.parametrize(
    ("row", "column", "part"),
    [(30, 50, SPINE), (70, 35, ("pelvis", "right")), (70, 65, ("pelvis", "left")), (100, 65, LEG)],
)
def test_a_hot_spot_of_both_views_is_one_focus_of_its_part(row, column, part) -> None:
    counts, probabilities = body(TRUNK, {0: (row, column, 3.0), 1: (row, column, 3.0)})
    (focus,) = seen_foci(counts, probabilities, MM, BOTH)
    assert focus.part == part
    assert focus.peak == pytest.approx(0.9)


@pytest.mark.parametrize(("anterior", "posterior"), [(2.0, 4.0), (4.0, 2.0)])
def test_the_bone_is_that_of_the_view_in_which_it_stands_out_more(anterior, posterior) -> None:
    counts, probabilities = body(TRUNK, {0: (30, 50, anterior), 1: (30, 50, posterior)})
    # The sternum lies before the spine.
    probabilities[0, label_of("thorax")], probabilities[0, label_of("spine")] = (
        probabilities[0, label_of("spine")].copy(),
        0,
    )
    (focus,) = seen_foci(counts, probabilities, MM, BOTH)
    assert focus.part == (("thorax", "middle") if anterior > posterior else SPINE)


def test_one_view_is_enough_and_what_lies_beside_all_bones_is_no_focus() -> None:
    counts, probabilities = body(TRUNK, {0: (30, 50, 3.0), 1: (30, 10, 3.0)})
    assert [focus.part for focus in seen_foci(counts[:1], probabilities[:1], MM, BOTH[:1])] == [SPINE]
    assert seen_foci(counts[1:], probabilities[1:], MM, BOTH[1:]) == []


def test_numbers_are_those_of_independent_foci() -> None:
    sure = ODDS.chance(SeenFocus(SPINE, 0.99))
    assert sure == pytest.approx(1 / (1 + np.exp(2.0 - 0.8 * np.log(99))))
    none, one, few, many = ODDS.numbers([SeenFocus(SPINE, 0.99)] * 2)
    assert none == pytest.approx(0.96 * (1 - sure) ** 2)
    assert one == pytest.approx(0.04 * (1 - sure) ** 2 + 0.96 * 2 * sure * (1 - sure))
    assert few == pytest.approx(1 - none - one)
    assert many == 0
    assert ODDS.numbers([SeenFocus(SPINE, 1.0)] * 9)[3] > 0.9
    assert ODDS.numbers([]).tolist() == pytest.approx([0.96, 0.04, 0, 0])


def test_a_hot_spot_of_a_limb_says_less_and_is_left_unsaid() -> None:
    chances = np.full(len(SENTENCES), 0.1, np.float32)
    foci = [SeenFocus(SPINE, 1.0), SeenFocus(LEG, 1.0)]
    found = with_foci(chances, foci, ODDS)
    said = [answer.statement for answer in confident_answers(found)[0]]
    assert said == [Statement("hot foci", "spine", "", "one")]


def test_two_spots_that_may_be_one_or_two_foci_are_one_or_more() -> None:
    found = with_foci(np.zeros(len(SENTENCES), np.float32), [SeenFocus(SPINE, 0.93)] * 2, ODDS)
    assert [str(answer)[6:] for answer in confident_answers(found)[0]] == [
        "One or more foci of raised uptake in the spine."
    ]


def test_only_sentences_on_hot_foci_are_replaced_and_sum_to_one() -> None:
    chances = np.random.default_rng(0).random(len(SENTENCES)).astype(np.float32)
    before = chances.copy()
    found = with_foci(chances, [SeenFocus(("thorax", "right"), 0.8)], ODDS)
    hot = np.array([statement.kind == "hot foci" for _, statement, _ in SENTENCES])
    assert (chances == before).all()
    assert (found[~hot] == before[~hot]).all()
    assert found[hot].sum() == pytest.approx(len(PARTS), rel=1e-5)
    assert found.dtype == np.float32


def test_odds_are_found_again() -> None:
    rng = np.random.default_rng(0)
    children = []
    for _ in range(400):
        foci = [
            SeenFocus(part, float(peak)) for part in PARTS for peak in rng.uniform(0.3, 1, rng.integers(3))
        ]
        true = {
            part: 1
            for part in PARTS
            if rng.random() > ODDS.numbers(focus for focus in foci if focus.part == part)[0]
        }
        children.append((foci, true))
    found = fit_odds(children)
    assert found.trunk == pytest.approx(ODDS.trunk, abs=0.3)
    assert found.limbs == pytest.approx(ODDS.limbs, abs=0.3)
    assert found.missed == pytest.approx(ODDS.missed, abs=0.02)
