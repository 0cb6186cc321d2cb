"""Regions as others read them: their code in DICOM and their colour in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rbs.scans.scan import REGIONS

Code = tuple[str, str, str]
"""Value, coding scheme and meaning."""

BONES = ("skull", "spine", "thorax", "pelvis", "arms", "legs")
"""Regions that are bones, growth plates apart."""

ANATOMY: Code = ("91723000", "SCT", "Anatomical Structure")
ABNORMAL: Code = ("49755003", "SCT", "Morphologically Abnormal Structure")


@dataclass(frozen=True)
class Region:
    """A region in other programs.

    Attributes:
        code: Its type: of SNOMED CT where there is one of that meaning, else one of rbs.
        colour: sRGB values 0..255.
        description: Bones and organs that belong to it.
        category: Kind of thing that it is.
    """

    code: Code
    colour: tuple[int, int, int]
    description: str
    category: Code = ANATOMY


def label_of(name: str) -> int:
    """Label of a region in a label map."""
    return REGIONS.index(name) + 1


BONE_LABELS = tuple(label_of(name) for name in BONES)
HOT = label_of("hot spots")

DESCRIBED: Mapping[str, Region] = {
    "skull": Region(("89546000", "SCT", "Skull"), (31, 119, 180), "Cranium, face and mandible"),
    "spine": Region(("421060004", "SCT", "Spine"), (240, 120, 0), "Cervical, thoracic and lumbar vertebrae"),
    "thorax": Region(
        ("272710004", "SCT", "Bone of thorax"), (44, 150, 60), "Ribs, sternum, clavicles and scapulae"
    ),
    "pelvis": Region(("118645006", "SCT", "Pelvis"), (128, 82, 190), "Hip bones, sacrum and coccyx"),
    "arms": Region(
        ("371195002", "SCT", "Bone of upper limb"), (0, 160, 190), "Humerus, forearm and hand, both sides"
    ),
    "legs": Region(
        ("72001000", "SCT", "Bone of lower limb"), (150, 100, 60), "Femur, lower leg and foot, both sides"
    ),
    "growth plates": Region(
        ("GROWTHPLATES", "99RBS", "Growth plates"), (227, 60, 160), "Growth plates of the long bones"
    ),
    "urinary tract": Region(
        ("431938005", "SCT", "Urinary tract"), (105, 110, 0), "Kidneys, ureters and bladder"
    ),
    "hot spots": Region(
        ("52988006", "SCT", "Lesion"),
        (214, 30, 30),
        "Foci of raised uptake outside the other regions",
        ABNORMAL,
    ),
}
"""The regions of `REGIONS`. Scapulae and clavicles belong to the thorax, as in phantoms."""

PALETTE = ((0, 0, 0), *(DESCRIBED[name].colour for name in REGIONS))
"""Colour of each label value, black for background."""
