r"""An open bone scan index: how much of the skeleton the hot spots take.

Of region r in a view, a_r is its projected area with the hot spots and, of arms and legs, the
growth plates in it, h_r the area of its hot spots that count. Then, as means over the views that
show the bone, or any bone,

    area index      100 Σ h_r / Σ a_r              %: share of the skeleton's projected area
    weighted index  100 Σ w_r h_r / a_r            %: share of an adult skeleton's weight

with w_r the bone's share of the weight of the adult skeleton. The second follows the bone scan
index of Imbriaco et al., Clin Cancer Res 1998;4:1765: Σ (part of a bone involved) x (its part of
the skeleton by weight). Both are by area, as in computer-aided indices (Ulmert et al., Eur Urol
2012;62:78); none of their programs or numbers is used here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rbs.scans.regions import BONE_LABELS, BONES, HOT
from rbs.scans.scan import REGIONS, Array, View
from rbs.segmentation.measures.hot_spots import HotSpot
from rbs.segmentation.measures.label_draws import label_draws, likeliest
from rbs.segmentation.measures.plates import PLATE
from rbs.segmentation.measures.regions import DRAWS, Measured

WEIGHTS: Mapping[str, float] = {
    "skull": 0.184,
    "spine": 0.083,
    "thorax": 0.087,
    "pelvis": 0.075,
    "arms": 0.150,
    "legs": 0.421,
}
"""Share of an adult skeleton's weight: sums over the bones of Spiers, Radioisotopes in the Human
Body (1968), p. 120, which Imbriaco's index uses. The sacrum, there spine, is pelvis here."""


@dataclass(frozen=True)
class BoneIndex:
    """The open bone scan index of a scan.

    Attributes:
        area_percent: Share of the skeleton's projected area that is hot spots, %.
        weighted_percent: The same by the weight of an adult's bones, %.
        foci: Number of hot spots; one that both views show is one.
        by_region: Share of each bone's projected area that is hot spots, %.
        foci_by_region: Number of hot spots of each bone.
    """

    area_percent: Measured
    weighted_percent: Measured
    foci: int
    by_region: Mapping[str, Measured]
    foci_by_region: Mapping[str, int]


def bone_index(
    probabilities: Array,
    spots: Sequence[HotSpot],
    views: Sequence[View],
    spacing_mm: tuple[float, float],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> BoneIndex:
    """The open bone scan index of a labelled scan.

    Args:
        probabilities: Of background and regions, (V, 1 + K, H, W).
        spots: Its hot spots, from `find_hot_spots`.
        views: The view of each of the V channels.
        spacing_mm: Row and column spacing, mm.
        draws: Label maps drawn for the uncertainty by the segmentation.
        seed: Seed of these draws.

    Returns:
        The index. Its numbers have no Poisson error of their own: counts decide the labels alone.
    """
    counted = [spot for spot in spots if spot.focus]
    zones = [np.zeros(probabilities.shape[-2:], np.uint8) for _ in views]
    for spot in counted:
        zones[list(views).index(spot.view)][spot.pixels] = 1 + BONES.index(spot.region)
    maps = [likeliest(probabilities), *label_draws(probabilities, spacing_mm, draws, seed)]
    bones = np.zeros((len(maps), len(views), len(BONES)))
    hot = np.zeros_like(bones)
    for view, zone in enumerate(zones):
        limbs = _limb_of_plates(maps[0][view], spacing_mm)
        for n, labels in enumerate(maps):
            bone = _BONE_OF[labels[view]]
            plates = labels[view] == PLATE
            bone[plates] = limbs[plates]
            bones[n, view] = np.bincount(bone.ravel(), minlength=len(BONES) + 1)[1:]
            seen = np.where(labels[view] == HOT, zone, 0)
            hot[n, view] = np.bincount(seen.ravel(), minlength=len(BONES) + 1)[1:]
    # The likeliest map cuts off what is unsure of a hot spot; its expected area does not.
    hot[0] = 0
    pixel_cm2 = float(np.prod(spacing_mm)) / 100
    for spot in counted:
        hot[0, list(views).index(spot.view), BONES.index(spot.region)] += spot.area_cm2 / pixel_cm2
    bones += hot
    parts = _mean_share(hot, bones)
    weights = np.array([WEIGHTS[name] for name in BONES])
    areas = _mean_share(hot.sum(axis=2), bones.sum(axis=2))
    return BoneIndex(
        area_percent=_of(100 * areas),
        weighted_percent=_of(100 * (parts @ weights)),
        foci=len({spot.focus for spot in counted}),
        by_region={name: _of(100 * parts[:, k]) for k, name in enumerate(BONES)},
        foci_by_region={name: len({spot.focus for spot in counted if spot.region == name}) for name in BONES},
    )


_BONE_OF = np.zeros(1 + len(REGIONS), np.uint8)
"""1 + place in `BONES` of each label, 0 of labels that are no bone."""
_BONE_OF[list(BONE_LABELS)] = np.arange(1, len(BONES) + 1)


def _limb_of_plates(labels: Array, spacing_mm: tuple[float, float]) -> Array:
    """1 + place in `BONES` of the nearest arm or leg, (H, W); 0 where there is none."""
    from scipy.ndimage import distance_transform_edt

    bone = _BONE_OF[labels]
    limb = np.isin(bone, [1 + BONES.index("arms"), 1 + BONES.index("legs")])
    if not limb.any():
        return np.zeros_like(bone)
    nearest = distance_transform_edt(~limb, sampling=spacing_mm, return_distances=False, return_indices=True)
    return np.asarray(bone[tuple(nearest)])


def _mean_share(hot: Array, whole: Array) -> Array:
    """Share of areas (maps, views, ...) that is hot: mean over the views that show the bone."""
    shares = (hot / np.maximum(whole, 1)).sum(axis=1)
    return np.asarray(shares / np.maximum((whole > 0).sum(axis=1), 1))


def _of(values: Array) -> Measured:
    """A number from the likeliest label map, with its spread over those drawn."""
    return Measured(float(values[0]), 0.0, float(values[1:].std(ddof=1)) if values.size > 2 else math.nan)
