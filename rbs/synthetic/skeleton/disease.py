"""Disease: foci and fractures, unequal growth plates, disease of many bones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from rbs.synthetic.skeleton.body import Body
from rbs.synthetic.skeleton.canvas import Canvas, Site
from rbs.synthetic.skeleton.limbs import Limb

_FOCI = MappingProxyType(
    {"spine": 0.28, "thorax": 0.25, "pelvis": 0.2, "legs": 0.15, "arms": 0.06, "skull": 0.06}
)
_FRACTURES = MappingProxyType({"thorax": 0.35, "legs": 0.35, "spine": 0.15, "arms": 0.1, "pelvis": 0.05})
_LIMBS = {"arms": 3, "legs": 4}
"""Number of growth plates drawn in each."""


@dataclass(frozen=True)
class Disease:
    """Disease of whole bones.

    Attributes:
        name: "" in most children; "superscan": the skeleton takes up what soft tissue and kidneys
            then lack; "metaphyses": all of them lively, as where marrow is replaced; "limb": one
            arm or leg more or less lively than the other; "growth plates": those of one arm or leg,
            or one of them, unlike the other side's.
        factors: On the uptake of groups of bones, soft tissue and kidneys.
        limb: The limb that is unlike the other: ("arms" or "legs", -1 right or 1 left); None
            where none is.
        lively: Factor on all bones of that limb.
        plates: Factor on each of its growth plates, from the trunk outwards.
    """

    name: str = ""
    factors: Mapping[str, float] = field(default_factory=dict)
    limb: tuple[str, int] | None = None
    lively: float = 1.0
    plates: tuple[float, ...] = ()

    def affect(
        self, body: Body, arms: Sequence[Limb], legs: Sequence[Limb]
    ) -> tuple[Body, list[Limb], list[Limb]]:
        """The child with it."""
        ill = replace(
            body, uptake={name: value * self.factors.get(name, 1.0) for name, value in body.uptake.items()}
        )

        def reach(limb: Limb, group: str) -> Limb:
            if self.limb != (group, limb.side):
                return limb
            return replace(limb, lively=self.lively, plates=self.plates or limb.plates)

        return ill, [reach(arm, "arms") for arm in arms], [reach(leg, "legs") for leg in legs]


def draw_disease(rng: np.random.Generator) -> Disease:
    """Four children in five have none."""
    name = str(
        rng.choice(["", "superscan", "metaphyses", "limb", "growth plates"], p=[0.8, 0.02, 0.03, 0.05, 0.1])
    )
    group, side = ("legs" if rng.random() < 0.75 else "arms"), (1 if rng.random() < 0.5 else -1)
    if name == "superscan":
        more = float(rng.uniform(1.15, 1.5))
        groups = ("spine", "pelvis", "ribs", "sternum", "skull", "shoulder", "metaphysis")
        spared = {"soft": float(rng.uniform(0.3, 0.6)), "kidneys": float(rng.uniform(0.05, 0.4))}
        return Disease(name, dict.fromkeys(groups, more) | spared)
    if name == "metaphyses":
        return Disease(name, {"metaphysis": float(rng.uniform(1.3, 1.8))})
    if name == "limb":
        lively = float(rng.uniform(1.3, 2.2) if rng.random() < 0.6 else rng.uniform(0.5, 0.8))
        return Disease(name, limb=(group, side), lively=lively)
    if name == "growth plates":
        count = _LIMBS[group]
        if rng.random() < 0.5:  # more blood to the whole limb
            plates = (float(rng.uniform(1.3, 2.0)),) * count
        else:  # one plate arrested or irritated
            plate, factor = (
                int(rng.integers(count)),
                float(rng.choice([rng.uniform(0.2, 0.6), rng.uniform(1.4, 2.2)])),
            )
            plates = tuple(factor if i == plate else 1.0 for i in range(count))
        return Disease(name, limb=(group, side), plates=plates)
    return Disease()


@dataclass(frozen=True)
class Lesion:
    """A Gaussian focus in a bone.

    Attributes:
        kind: "hot", "cold" or "fracture": a hot line across the bone.
        region: The region of the bone it sits in.
        row: Row of its centre in both views.
        column: Column of its centre in the anterior view; it is `columns - 1 - column` in the
            posterior one.
        depth_mm: y of its centre: distance in front of the middle of the trunk, mm.
        fwhm_mm: Full width at half maximum before the camera blurs it, mm; of a fracture across its
            line.
        length_mm: The same along the line of a fracture; equal to `fwhm_mm` of a round focus.
        angle: Direction of the line in the anterior view, radians from its rows towards its
            columns.
        contrast: Planar density at its centre relative to the bone it was drawn into; below 1 it is
            cold.
    """

    kind: str
    region: str
    row: int
    column: int
    depth_mm: float
    fwhm_mm: float
    length_mm: float
    angle: float
    contrast: float


def draw_lesions(
    canvas: Canvas,
    body: Body,
    rng: np.random.Generator,
    bones: Sequence[float] | None = None,
    number: int | None = None,
) -> tuple[tuple[Lesion, ...], tuple[float, ...]]:
    """Draw lesions in bone: none in half of the children, up to 6 in most, up to 20 in 1 of 25.

    One in eight is cold, without a label of its own; one in seven is a fracture.

    Args:
        canvas: The canvas.
        body: Whose.
        rng: Source of everything random.
        bones: The planar densities that the first pass returned: a child that has moved keeps its
            lesions.
        number: Number of lesions; None draws it.

    Returns:
        The lesions, and the planar density of the bone at each place that was tried.
    """
    remembered = None if bones is None else iter(bones)
    tried: list[float] = []
    some, many = int(rng.integers(1, 7)), int(rng.integers(8, 21))
    count = int(rng.choice([0, some, many], p=[0.5, 0.46, 0.04]))
    count = count if number is None else number
    lesions: list[Lesion] = []
    while len(lesions) < count:
        kind = str(rng.choice(["hot", "cold", "fracture"], p=[0.735, 0.125, 0.14]))
        site = _site(canvas, kind, rng)
        at = (site.x + rng.normal(0, 1.5), site.z + rng.normal(0, 1.5), site.y)
        row, column = canvas.pixel(at[0], at[1])
        here = float(canvas.planes[:, row, column].sum())
        bone = here if remembered is None else next(remembered)
        tried.append(bone)
        if bone < 0.15:
            continue  # beside the bone, or outside the image
        fwhm = min(float(np.exp(rng.uniform(np.log(4), np.log(25)))), 4 + 0.017 * body.height)
        length, angle = fwhm, 0.0
        if kind == "cold":
            fwhm = length = max(fwhm, 8.0)  # a smaller gap fills up with the camera's blur
            canvas.cold(at, fwhm, rng.uniform(0.1, 0.6))
            # It empties the bone at its own depth; what lies in front of it and behind stays.
            contrast = float(canvas.planes[:, row, column].sum()) / here
        else:
            contrast = float(np.exp(rng.uniform(np.log(1.3), np.log(6))))
            if kind == "fracture":
                fwhm = float(rng.uniform(4, 7))
                length, angle = _line(site, rng)
                length = max(length, fwhm)
            canvas.hot(at, (length, fwhm), (contrast - 1) * bone, angle)
        lesions.append(Lesion(kind, site.region, row, column, float(site.y), fwhm, length, angle, contrast))
    return tuple(lesions), tuple(tried)


def _site(canvas: Canvas, kind: str, rng: np.random.Generator) -> Site:
    """Some place for a lesion; a fracture wants a bone that has a length."""
    usual = _FRACTURES if kind == "fracture" else _FOCI
    sites = [site for site in canvas.sites if kind != "fracture" or site.radius > 0]
    share = {name: usual[name] for name in sorted({site.region for site in sites}) if name in usual}
    total = sum(share.values())
    region = str(rng.choice(list(share), p=[value / total for value in share.values()]))
    there = [site for site in sites if site.region == region]
    return there[int(rng.integers(len(there)))]


def _line(site: Site, rng: np.random.Generator) -> tuple[float, float]:
    """Length, mm, and direction of a fracture: across the bone, or along a vertebra's endplate."""
    oblique = float(rng.normal(0, 0.25))
    length = 2 * site.radius * float(rng.uniform(0.5, 0.8))
    if site.region == "spine":
        return 2 * length, site.angle + 0.2 * oblique
    return length, site.angle + np.pi / 2 + oblique
