"""Hot spots and the open bone scan index."""

from __future__ import annotations

import math

import numpy as np
import pytest
from labelled_body import LABEL, SHAPE, SPACING, VIEWS, body, certain, plate

from rbs.scans.scan import View
from rbs.segmentation.measures.bone_index import WEIGHTS, bone_index
from rbs.segmentation.measures.hot_spots import HotSpot, find_hot_spots

PELVIS = (119, 60)
"""A place in the pelvis."""
AREA = 0.09
"""Of a pixel, cm^2."""


def disc(row: int, column: int, radius: float = 3) -> np.ndarray:
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    return np.hypot(rows - row, columns - column) <= radius


def scan(*spots: tuple[int, int, float], views: tuple[int, ...] = (0, 1)) -> tuple[np.ndarray, np.ndarray]:
    """Counts and probabilities: 10 a pixel of bone, 2 beside it, `contrast` times bone in each disc."""
    labels = body()
    counts = np.where(labels > 0, 10.0, 2.0)
    for row, column, contrast in spots:
        for view in views:
            counts[view][disc(row, column)] = 10 * contrast
            labels[view][disc(row, column)] = LABEL["hot spots"]
    return counts, certain(labels)


def found(counts: np.ndarray, probabilities: np.ndarray, **options) -> list[HotSpot]:
    return find_hot_spots(counts, probabilities, SPACING, VIEWS, **options)


def test_a_disc_of_known_contrast() -> None:
    anterior, posterior = found(*scan((*PELVIS, 3.0)))
    pixels = int(disc(*PELVIS).sum())
    assert (anterior.region, anterior.focus, anterior.reason) == ("pelvis", 1, "")
    assert (anterior.row, anterior.column) == pytest.approx(PELVIS)
    assert anterior.area_cm2 == pytest.approx(pixels * AREA)
    assert anterior.counts == pytest.approx(30 * pixels)
    assert anterior.contrast.value == pytest.approx(3)
    assert posterior.focus == 1, "one focus that both views show"
    assert {anterior.view, posterior.view} == set(VIEWS)


def test_its_poisson_error_is_that_of_repeated_scans() -> None:
    mean, probabilities = scan((*PELVIS, 3.0))
    rng = np.random.default_rng(0)
    contrasts = [found(rng.poisson(mean), probabilities)[0].contrast.value for _ in range(200)]
    stated = found(mean, probabilities)[0].contrast.poisson
    assert np.std(contrasts, ddof=1) == pytest.approx(stated, rel=0.15)
    halved = found(2 * mean, probabilities, exposure=0.5)[0].contrast
    assert halved.poisson == pytest.approx(stated)


def test_foci_are_counted_once() -> None:
    spots = found(*scan((*PELVIS, 3.0), (60, 40, 2.0)))
    assert sorted(spot.focus for spot in spots) == [1, 1, 2, 2]
    assert {spot.region for spot in spots} == {"pelvis", "thorax"}
    one_view = found(*scan((*PELVIS, 3.0), views=(1,)))
    assert [spot.view for spot in one_view] == [View.POSTERIOR]


def test_growth_plates_and_the_urinary_tract_are_none() -> None:
    counts, probabilities = scan()
    counts[:, *plate("distal femur", "left")] = 80
    labels = body()
    labels[:, disc(119, 55, 5)] = LABEL["urinary tract"]
    assert found(counts, probabilities) == found(counts, certain(labels)) == []


def test_drops_beside_the_bones_do_not_count() -> None:
    spots = found(*scan((200, 95, 5.0)))
    assert {(spot.focus, spot.reason) for spot in spots} == {(0, "beside the bones")}


def test_the_site_of_the_injection_does_not_count() -> None:
    arm = found(*scan((130, 24, 20.0)))
    assert {(spot.region, spot.reason) for spot in arm} == {("arms", "site of the injection")}
    assert found(*scan((130, 24, 3.0)))[0].focus == 1


def test_arms_without_counts_make_no_spot_a_site_of_the_injection() -> None:
    counts, probabilities = scan((130, 24, 3.0))
    counts[:] = 0
    assert {spot.reason for spot in found(counts, probabilities)} == {""}


def test_a_speck_of_bone_is_judged_by_its_area_and_not_by_its_pixels() -> None:
    """27 mm^2 of an arm near a drop, on pixels of 3 mm and of 1 mm."""
    labels = np.zeros((2, 60, 60), np.uint8)
    labels[:, 20:24, 20:24] = LABEL["hot spots"]
    labels[:, 20, 26:29] = LABEL["arms"]
    counts = np.where(labels > 0, 10.0, 2.0)
    for times in (1, 3):
        block = np.ones((1, times, times))
        spots = find_hot_spots(
            np.kron(counts, block), certain(np.kron(labels, block).astype(np.uint8)), (3 / times,) * 2, VIEWS
        )
        assert {spot.reason for spot in spots} == {"beside the bones"}, times


def test_doubtful_pixels_are_none() -> None:
    counts, probabilities = scan((*PELVIS, 3.0))
    hot, bone = LABEL["hot spots"], LABEL["pelvis"]
    probabilities[:, bone] += 0.6 * probabilities[:, hot]
    probabilities[:, hot] *= 0.4
    assert found(counts, probabilities) == []
    assert len(found(counts, probabilities, threshold=0.35)) == 2


def test_the_index_of_a_known_share() -> None:
    counts, probabilities = scan((*PELVIS, 3.0), (180, 45, 2.0))
    index = bone_index(probabilities, found(counts, probabilities), VIEWS, SPACING, draws=2)
    labels = body()[0]
    pelvis = 100 * disc(*PELVIS).sum() / (labels == LABEL["pelvis"]).sum()
    assert index.by_region["pelvis"].value == pytest.approx(pelvis)
    bones = np.isin(labels, [LABEL[name] for name in (*WEIGHTS, "growth plates")]).sum()
    spots = disc(*PELVIS).sum() + disc(180, 45).sum()
    assert index.area_percent.value == pytest.approx(100 * spots / bones, rel=1e-3)
    expected = sum(WEIGHTS[name] * share.value for name, share in index.by_region.items())
    assert index.weighted_percent.value == pytest.approx(expected)
    assert index.foci == 2
    assert (index.foci_by_region["pelvis"], index.foci_by_region["skull"]) == (1, 0)


def test_a_spot_in_one_of_two_views_counts_half() -> None:
    both, one = (scan((*PELVIS, 3.0), views=views) for views in ((0, 1), (0,)))
    of_both, of_one = (
        bone_index(p, found(c, p), VIEWS, SPACING, draws=0).area_percent.value for c, p in (both, one)
    )
    assert of_one == pytest.approx(of_both / 2, rel=0.01)


def test_a_bone_that_one_view_does_not_show_keeps_its_share() -> None:
    counts, probabilities = scan((*PELVIS, 3.0), views=(0,))
    expected = bone_index(probabilities, found(counts, probabilities), VIEWS, SPACING, draws=0)
    pelvis = probabilities[1, LABEL["pelvis"]].copy()
    probabilities[1, 0] += pelvis
    probabilities[1, LABEL["pelvis"]] = 0
    index = bone_index(probabilities, found(counts, probabilities), VIEWS, SPACING, draws=0)
    assert index.by_region["pelvis"].value == pytest.approx(2 * expected.by_region["pelvis"].value)


def test_no_hot_spot_is_an_index_of_zero() -> None:
    counts, probabilities = scan()
    index = bone_index(probabilities, found(counts, probabilities), VIEWS, SPACING, draws=2)
    assert (index.foci, index.area_percent.value, index.area_percent.sd) == (0, 0.0, 0.0)


def test_what_does_not_count_is_not_in_the_index() -> None:
    counts, probabilities = scan((200, 95, 5.0), (130, 24, 20.0))
    index = bone_index(probabilities, found(counts, probabilities), VIEWS, SPACING, draws=0)
    assert index.area_percent.value == 0
    assert math.isnan(index.area_percent.segmentation)


def test_the_weights_are_all_of_a_skeleton() -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(1)
