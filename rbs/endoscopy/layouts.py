"""The folders that public collections of endoscopy come in, and those that people make.

A layout is known by the names of folders, wherever below the folder given they stand, so that a
whole download, a part of it, or several collections side by side are all read. The first of
`LAYOUTS` that knows a folder takes it with all that is in it; a folder that none knows is searched.
Pictures in no known layout are frames without masks.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rbs.endoscopy.files import SUFFIXES
from rbs.utils.files import leads_round

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Folders that say which split they are."""

LOW_AND_HIGH = (
    ("low", "high"),
    ("lq", "hq"),
    ("lq", "gt"),
    ("lr", "hr"),
    ("input", "target"),
    ("input", "gt"),
    ("noisy", "clean"),
    ("blur", "sharp"),
    ("degraded", "clean"),
    ("low_quality", "high_quality"),
)
"""Names of two folders with the same pictures, as they were acquired and as they should be."""

IMAGES = ("images", "image", "imgs", "frames")
MASKS = ("masks", "mask", "ground truth", "ground_truth", "groundtruth", "gt")

CLINICDB_ENDS = (
    *(25, 50, 67, 78, 103, 126, 151, 177, 199, 205, 227, 252, 277, 297, 317),
    *(342, 363, 383, 408, 428, 447, 466, 478, 503, 528, 546, 571, 591, 612),
)
"""Last frame of each of the 29 sequences of CVC-ClinicDB, as its publishers list them."""


@dataclass(frozen=True)
class FrameFiles:
    """A frame in a folder, and what belongs to it.

    Attributes:
        frame: The picture as it should be.
        source: The layout, and the part of it.
        low: The picture as it was acquired; None without one.
        masks: Marks of lesions or instruments, one file each or all in one; none where there are
            none.
        healthy: True for a frame published as one without lesions, so that its mask is blank.
        group: The video or patient; empty where the layout does not tell.
        guessed: True where the group is only the name of a folder.
        split: The split that a folder names; None where none does.
    """

    frame: Path
    source: str
    low: Path | None = None
    masks: tuple[Path, ...] = ()
    healthy: bool = False
    group: str = ""
    guessed: bool = False
    split: str | None = None


@dataclass(frozen=True)
class Search:
    """Contents of a folder.

    Attributes:
        frames: All frames, by path.
        passed_over: Number of pictures of a layout that are neither frames nor masks (drawn boxes,
            right eyes, copies, pictures without their counterpart), by their folder.
    """

    frames: tuple[FrameFiles, ...]
    passed_over: Mapping[str, int] = field(default_factory=dict)


def search(folder: Path) -> Search:
    """Find all frames in a folder and those below it; hidden files are left out."""
    passed_over: Counter[str] = Counter()
    found = sorted(_search(folder, folder, passed_over), key=lambda one: one.frame)
    return Search(tuple(_placed(one, folder) for one in found), dict(sorted(passed_over.items())))


def _search(folder: Path, root: Path, passed_over: Counter[str]) -> Iterator[FrameFiles]:
    below = _folders(folder)
    for layout in LAYOUTS:
        frames = layout(folder, below)
        if frames is not None:
            yield from frames
            used = {file for one in frames for file in (one.frame, one.low, *one.masks)}
            for picture in _all(folder):
                if picture not in used:
                    passed_over[picture.parent.relative_to(root).as_posix()] += 1
            return
    for picture in _pictures(folder):
        yield FrameFiles(picture, "pictures", guessed=bool(_unit(folder.relative_to(root))))
    for name in below:
        yield from _search(folder / name, root, passed_over)


# --- layouts: from a folder and the names of those in it to its frames, or None if it is another
# layout

Layout = Callable[[Path, list[str]], list[FrameFiles] | None]


def polypgen(folder: Path, below: list[str]) -> list[FrameFiles] | None:
    """PolypGen, its single frames, sequences and sequences without a polyp.

    data_C1/images_C1 and masks_C1, to C6; sequenceData/positive/seq1/images_seq1 and masks_seq1, to
    23; sequenceData/negativeOnly/seq1_neg, to 23; imagesAll_positive holds copies. A sequence is a
    group. Of single frames nothing tells whose they are, but that those of centre 1 are named by
    the folder of the recorder they lay in, as 326OLCV1_100H0006.
    """
    if folder.name == "imagesAll_positive":
        return []
    if re.fullmatch(r"seq\d+_neg", folder.name) and (pictures := _pictures(folder)):
        group = f"PolypGen {folder.name}"
        return [FrameFiles(p, "PolypGen, no polyp", healthy=True, group=group) for p in pictures]
    parts = [re.fullmatch(r"images_(C\d+|seq\d+)", name) for name in below]
    found = [
        replace(one, source=f"PolypGen {part[1]}", group=_polypgen_group(part[1], one.frame), guessed=False)
        for part in parts
        if part
        for one in _masked(folder / part[0], folder / f"masks_{part[1]}", "")
    ]
    return found if any(parts) else None


def _polypgen_group(part: str, frame: Path) -> str:
    if part.startswith("seq"):
        return f"PolypGen {part}"
    recorded = re.match(r"(\d+OLCV\d+)_", frame.name)
    return f"PolypGen {part} {recorded[1]}" if recorded else ""


def hyperkvasir(folder: Path, below: list[str]) -> list[FrameFiles] | None:
    """HyperKvasir.

    labeled-images/lower-gi-tract/CATEGORY/FINDING/*.jpg, and upper; segmented-images/images and
    masks; unlabeled-images/images. Nothing tells whose they are.
    """
    if folder.name in ("labeled-images", "unlabeled-images"):
        kind = "HyperKvasir unlabeled"
        labeled = folder.name == "labeled-images"
        return [FrameFiles(p, f"HyperKvasir {p.parent.name}" if labeled else kind) for p in _all(folder)]
    if folder.name == "segmented-images" and {"images", "masks"} <= set(below):
        return _masked(folder / "images", folder / "masks", "HyperKvasir segmented")
    return None


def kvasir_seg(folder: Path, below: list[str]) -> list[FrameFiles] | None:
    """Kvasir-SEG: images/*.jpg, masks/*.jpg, kavsir_bboxes.json. Nothing tells whose they are."""
    if {"images", "masks"} <= set(below) and any(folder.glob("k*vsir_bboxes.json")):
        return [
            replace(one, guessed=False) for one in _masked(folder / "images", folder / "masks", "Kvasir-SEG")
        ]
    return None


def clinicdb(folder: Path, below: list[str]) -> list[FrameFiles] | None:
    """CVC-ClinicDB: Original/1.tif to 612 and "Ground Truth", or one of PNG/ and TIF/ with these.

    Frames are numbered through 29 sequences, each a group.
    """
    encoding = next((name for name in ("PNG", "TIF") if (folder / name / "Original").is_dir()), None)
    if encoding:
        return clinicdb(folder / encoding, _folders(folder / encoding))
    if not {"Original", "Ground Truth"} <= set(below):
        return None
    frames = _masked(folder / "Original", folder / "Ground Truth", "CVC-ClinicDB")
    return [replace(one, group=_clinicdb_group(one.frame), guessed=False) for one in frames]


def _clinicdb_group(frame: Path) -> str:
    number = int(frame.stem) if frame.stem.isdecimal() else 0
    if not 1 <= number <= CLINICDB_ENDS[-1]:
        return ""
    return f"CVC-ClinicDB {bisect_left(CLINICDB_ENDS, number) + 1}"


def endovis(folder: Path, below: list[str]) -> list[FrameFiles] | None:
    """EndoVis, the challenges of robotic instruments.

    instrument_dataset_1/left_frames with masks of each instrument in ground_truth/NAME_labels, or
    of all in gt/BinarySegmentation; seq_1/left_frames of the scene segmentation, whose labels are
    no masks. A video is a group, also where its frames are divided into training and test. Right
    frames show the same.
    """
    if "left_frames" not in below or not re.fullmatch(r"(instrument_dataset|seq)_\d+", folder.name):
        return None
    marked: dict[str, list[Path]] = {}
    whole, each = folder / "gt" / "BinarySegmentation", folder / "ground_truth"
    labels = [whole] if whole.is_dir() else [each / name for name in _folders(each)]
    for place in labels:
        for mask in _pictures(place):
            marked.setdefault(mask.stem, []).append(mask)
    return [
        FrameFiles(frame, "EndoVis", masks=tuple(marked.get(frame.stem, ())), group=f"EndoVis {folder.name}")
        for frame in _pictures(folder / "left_frames")
    ]


def low_and_high(folder: Path, below: list[str]) -> list[FrameFiles] | None:
    """Two folders of `LOW_AND_HIGH` with pictures of the same names."""
    names = {name.casefold(): name for name in below}
    for low, high in LOW_AND_HIGH:
        if low in names and high in names:
            acquired = _by_name(folder / names[low])
            frames = _masked(folder / names[high], _mask_folder(folder, below), f"{low} and {high}")
            paired = [replace(one, low=_match(acquired, one.frame, folder / names[high])) for one in frames]
            return [one for one in paired if one.low is not None]
    return None


def images_and_masks(folder: Path, below: list[str]) -> list[FrameFiles] | None:
    """A folder of images and perhaps one of masks of the same names, or of these with _mask."""
    names = {name.casefold(): name for name in below}
    for name in IMAGES:
        if name in names:
            return _masked(folder / names[name], _mask_folder(folder, below), "images")
    return None


LAYOUTS = (polypgen, hyperkvasir, kvasir_seg, clinicdb, endovis, low_and_high, images_and_masks)


# --- common parts


def _masked(images: Path, masks: Path | None, source: str) -> list[FrameFiles]:
    """All pictures below a folder with the masks of their names; a folder may be a group."""
    marks = {} if masks is None else _by_name(masks)
    found = []
    for picture in _all(images):
        mask = _match(marks, picture, images)
        below = bool(_unit(picture.parent.relative_to(images)))
        found.append(FrameFiles(picture, source, masks=(mask,) if mask else (), guessed=below))
    return found


def _mask_folder(folder: Path, below: Iterable[str]) -> Path | None:
    names = {name.casefold(): name for name in below}
    return next((folder / names[name] for name in MASKS if name in names), None)


def _by_name(folder: Path) -> dict[tuple[Path, str], Path]:
    """Pictures by their folder below this one and their bare name."""
    return {(p.parent.relative_to(folder), _bare(p.stem)): p for p in _all(folder)}


def _match(files: Mapping[tuple[Path, str], Path], picture: Path, folder: Path) -> Path | None:
    return files.get((picture.parent.relative_to(folder), _bare(picture.stem)))


def _bare(stem: str) -> str:
    """A name without what tells a mask from its frame, and without the underscores at its end."""
    return re.sub(r"[_-]*(mask|masks|gt|segmentation)?$", "", stem.casefold())


def _unit(below: Path) -> str:
    """The folders of a path, without those that name a split."""
    return "/".join(part for part in below.parts if part.casefold() not in SPLIT_NAMES)


def _placed(one: FrameFiles, root: Path) -> FrameFiles:
    """Add the split that a folder names, and the folder as the group where nothing tells better."""
    place = one.frame.parent.relative_to(root)
    split = next((SPLIT_NAMES[p.casefold()] for p in place.parts if p.casefold() in SPLIT_NAMES), None)
    return replace(one, split=split, group=place.as_posix() if one.guessed else one.group)


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    named = (p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX")) and p.is_dir())
    return sorted(p.name for p in named if not leads_round(p))


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    named = (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in named if p.is_file())


def _all(folder: Path) -> list[Path]:
    """All pictures of a folder and those below it."""
    return [*_pictures(folder), *(p for name in _folders(folder) for p in _all(folder / name))]
