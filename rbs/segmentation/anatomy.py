"""Names of bones and organs in data sets of others, and the region that each belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from rbs.errors import ManifestError
from rbs.scans.scan import REGIONS

NONE = "background"
"""Region of what has no label of its own."""

WORDS: Mapping[str, tuple[str, ...]] = {
    "hot spots": ("lesion", "metastasis", "metastases", "hotspot", "tumor", "tumour"),
    "growth plates": ("physis", "growth", "epiphysis"),
    "urinary tract": ("kidney", "renal", "bladder", "ureter", "urinary", "urethra"),
    "pelvis": (
        *("pelvis", "pelvic", "sacrum", "sacral", "coccyx", "ilium", "iliac", "ischium", "pubis", "pubic"),
        *("sacroiliac", "acetabulum", "hip"),
    ),
    "legs": (
        *("femur", "femoral", "thigh", "patella", "knee", "tibia", "fibula", "leg", "shin", "ankle", "foot"),
        *("feet", "tarsal", "tarsus", "calcaneus", "talus", "heel", "metatarsal", "toe"),
    ),
    "arms": (
        *("humerus", "humeral", "arm", "upperarm", "elbow", "forearm", "radius", "ulna", "wrist", "carpal"),
        *("hand", "metacarpal", "finger"),
    ),
    "spine": ("spine", "spinal", "vertebra", "vertebrae", "vertebral", "cervical", "lumbar"),
    "thorax": (
        *("rib", "ribs", "sternum", "sternal", "manubrium", "xiphoid", "clavicle", "scapula", "scapular"),
        *("thorax", "chest", "costal", "cage"),
    ),
    "skull": (
        *("skull", "cranium", "cranial", "calvaria", "face", "facial", "mandible", "maxilla", "jaw", "orbit"),
        *("nasal", "zygomatic", "head"),
    ),
    NONE: ("background", "body", "soft", "tissue", "outline"),
}
"""Words that decide the region of a name. Regions are tried in this order: a femoral head belongs
to the legs, a thoracic vertebra to the spine. Sacrum, coccyx and sacroiliac joints are pelvis,
clavicles and scapulae are thorax, as in phantoms."""

_VERTEBRA = re.compile(r"c[1-7]|th?(?:[1-9]|1[0-2])|l[1-5]")


def region_of(name: str) -> str | None:
    """Region of a bone or organ, `NONE` for what has no label; None for an unknown name.

    Args:
        name: Such as "Left Femur", "rib_r_7", "T12" or "kneeL".
    """
    words = [word.lower() for word in re.findall(r"[A-Za-z][a-z]*\d*|[A-Z]+(?![a-z])", name)]
    stems = {re.sub(r"\d+$", "", word) for word in words}
    stems |= {stem[:-1] for stem in stems if stem.endswith("s")}
    if any(_VERTEBRA.fullmatch(word) for word in words):
        return "spine"
    return next((region for region, known in WORDS.items() if not stems.isdisjoint(known)), None)


def labels_of(names: Iterable[str], given: Mapping[str, str], file: Path) -> dict[str, int]:
    """Label value of each category: k + 1 for `REGIONS[k]`, 0 for background.

    Args:
        names: Names of categories.
        given: Regions that the user states, by category.
        file: The file of the categories, for errors.

    Raises:
        ManifestError: The region of some categories is unknown; all of them are named.
    """
    regions = {name: given.get(name) or region_of(name) for name in names}
    unknown = [name for name, region in regions.items() if region is None]
    if unknown:
        listed = ", ".join(repr(name) for name in unknown)
        remedy = "state it in a CSV with the columns category,region given as --coco-regions"
        raise ManifestError(f"the region of these categories is unknown: {listed}", file=file, remedy=remedy)
    return {n: 0 if region == NONE else REGIONS.index(str(region)) + 1 for n, region in regions.items()}
