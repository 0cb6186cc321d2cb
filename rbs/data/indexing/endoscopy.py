"""From a folder of frames to the manifest that training and evaluation read.

Every frame is accepted, or refused by name with a reason and a remedy. Frames of one video or
patient, and frames that show the same, come into one split, which follows from their name and a
seed alone; folders that name splits are followed, unless the same is shown on both sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from tqdm import tqdm

from rbs.data.frames_manifest import FrameRow, write_frames_manifest
from rbs.data.indexing.records import Refusal
from rbs.data.indexing.scans import SHARES, Split, refuse_unwritable, write_refused
from rbs.data.manifest import SPLITS, relative_path
from rbs.endoscopy.duplicates import Duplicates, joined, near_duplicates
from rbs.endoscopy.field_of_view import field_of_view
from rbs.endoscopy.files import glance, size_of, write_mask
from rbs.endoscopy.layouts import FrameFiles, search
from rbs.endoscopy.pairs import mask_of, refuse_other_scene, refuse_other_size
from rbs.endoscopy.perceptual_hash import PerceptualHash, perceptual_hash
from rbs.errors import FrameError, RbsError
from rbs.utils.files import write_csv
from rbs.utils.guard import attempt
from rbs.utils.patterns import compiled
from rbs.utils.patterns import search as search_text

_GLANCE = 160
"""Longest side at which frames are looked at, pixels."""

_SMALLEST = 32
"""Shorter side of a frame, pixels: less is an icon."""


@dataclass(frozen=True)
class FrameRecord:
    """A readable frame.

    Attributes:
        found: The frame and its files.
        shape: Rows and columns of its file.
        digest: Hash of its file.
        hash: Hash of what it shows.
        marks: Whether its mask marks anything; None without one.
    """

    found: FrameFiles
    shape: tuple[int, int]
    digest: str
    hash: PerceptualHash
    marks: bool | None


@dataclass(frozen=True)
class FrameIndex:
    """Result of indexing a folder.

    Attributes:
        manifest: The manifest that was written; none is where no frame can be used.
        refused: The list of refused files beside it.
        duplicates: The list of near-duplicates beside it.
        rows: Lines of the manifest.
        refusals: Refused files.
        passed_over: How many pictures of a layout are no frames, by folder.
        alike: Number of frames that have near-duplicates outside their video, and in how many sets.
        warnings: What to look at before training.
    """

    manifest: Path
    refused: Path
    duplicates: Path
    rows: tuple[FrameRow, ...]
    refusals: tuple[Refusal, ...]
    passed_over: dict[str, int]
    alike: tuple[int, int]
    warnings: tuple[str, ...]


def index_frames(
    folder: Path,
    manifest: Path,
    *,
    group: str | None = None,
    seed: int = 0,
    shares: Sequence[float] = SHARES,
    workers: int = 2,
    overwrite: bool = False,
    progress: bool = True,
) -> FrameIndex:
    """Write the manifest of all frames in a folder, and beside it refusals and near-duplicates.

    Masks that have no file of their own (of several instruments, of no lesion at all) are written
    into NAME.masks beside the manifest.

    Args:
        folder: Where the pictures are, at any depth.
        manifest: The CSV to write.
        group: Regular expression whose first group, found in a frame's path below the folder, is
            its video or patient; None takes what the layout tells.
        seed: Decides, with the names of groups, who is in which split.
        shares: Shares of "train", "val" and "test", where no folder names splits; any sum.
        workers: Threads that read.
        overwrite: Whether an existing manifest may be replaced.
        progress: Whether to show progress bars.

    Raises:
        FrameError: There is no such folder, or no picture in it.
        OutputError: The manifest exists, or a file cannot be written.
        RbsError: A setting is out of range.
    """
    if not (0 < sum(shares) < inf) or min(shares) < 0 or workers < 1 or seed < 0:
        raise RbsError("the shares, the seed or the workers are out of range", remedy="try 70 15 15, 0 and 2")
    refuse_unwritable(manifest, overwrite=overwrite)
    if not folder.is_dir():
        raise FrameError("there is no such folder", file=folder, remedy="name the folder of your frames")
    folder = folder.resolve()
    searched = search(folder)
    if not searched.frames:
        raise FrameError("there is no picture in this folder", file=folder, remedy="check the path")
    found, unmatched = _grouped(searched.frames, folder, group)
    records, refusals = _look(found, manifest.parent, workers, progress)
    units = [one.found.group or one.found.frame.relative_to(folder).as_posix() for one in records]
    pairs = near_duplicates([one.hash for one in records], units, progress=progress)
    assignment = _assign(records, units, pairs, Split(seed, shares))
    copies = _copies(records)
    rows = [
        FrameRow(
            one.found.frame,
            assignment.splits[place],
            one.found.low,
            _mask(one, manifest, folder),
            assignment.groups[place],
            one.found.source,
        )
        for place, one in enumerate(records)
        if one.found.frame not in copies
    ]
    refusals += [
        Refusal(copy, f"it is {kept} again", "nothing: the other file serves")
        for copy, kept in copies.items()
    ]
    refused, listed = manifest.with_suffix(".refused.csv"), manifest.with_suffix(".duplicates.csv")
    write_refused(refused, refusals)
    _write_duplicates(listed, records, pairs, assignment)
    if rows:
        write_frames_manifest(manifest, rows, overwrite=overwrite)
    sets = [part for part in joined(len(records), [(p.first, p.second) for p in pairs]) if len(part) > 1]
    return FrameIndex(
        manifest=manifest,
        refused=refused,
        duplicates=listed,
        rows=tuple(rows),
        refusals=tuple(refusals),
        passed_over=dict(searched.passed_over),
        alike=(sum(map(len, sets)), len(sets)),
        warnings=(*assignment.moved.values(), *_warnings(rows, found, assignment, unmatched, shares)),
    )


# --- reading


def _grouped(frames: Sequence[FrameFiles], folder: Path, pattern: str | None) -> tuple[list[FrameFiles], int]:
    """Frames with the groups that the user's pattern finds, and how many it does not match."""
    if pattern is None:
        return list(frames), 0
    try:
        wanted = compiled(pattern)
    except ValueError as error:
        raise RbsError(f"--group: {error}", remedy="correct it") from error
    if wanted.groups < 1:
        raise RbsError(
            f"--group {pattern} has no group", remedy="put the part that names the video in brackets"
        )
    found, unmatched = [], 0
    for one in frames:
        match = search_text(wanted, one.frame.relative_to(folder).as_posix())
        if match is None or not match[1]:
            unmatched += 1
            found.append(one)
        else:
            found.append(replace(one, group=match[1], guessed=False))
    if unmatched == len(frames):
        remedy = f"try it on {frames[0].frame.relative_to(folder).as_posix()}"
        raise RbsError(f"--group {pattern} matches none of {unmatched} frames", remedy=remedy)
    return found, unmatched


def _look(
    found: Sequence[FrameFiles], place: Path, workers: int, progress: bool
) -> tuple[list[FrameRecord], list[Refusal]]:
    records: list[FrameRecord] = []
    refusals: list[Refusal] = []
    with (
        ThreadPoolExecutor(workers) as pool,  # decoders let other threads run
        tqdm(total=len(found), desc="reading", unit="frame", disable=not progress) as bar,
    ):
        for one in pool.map(lambda one: look(one, place), found):
            (records if isinstance(one, FrameRecord) else refusals).append(one)  # type: ignore[arg-type]
            bar.update()
    return records, refusals


def look(found: FrameFiles, place: Path) -> FrameRecord | Refusal:
    """Read the files of a frame, or say why it cannot be used.

    Args:
        found: The frame.
        place: Where the manifest will stand.
    """
    record = attempt(found.frame, _record, found, place)
    if isinstance(record, RbsError):
        return Refusal(record.file or found.frame, record.fault, record.remedy or "leave it out")
    return record


def _record(found: FrameFiles, place: Path) -> FrameRecord:
    for file in filter(None, (found.frame, found.low, *found.masks)):
        relative_path(file, place)
    shape = size_of(found.frame)
    if min(shape) < _SMALLEST:
        fault = f"it has {shape[1]} x {shape[0]} pixels, as icons have"
        raise FrameError(fault, file=found.frame, remedy="leave it out")
    frame = glance(found.frame, _GLANCE)
    valid = field_of_view(frame)
    if not valid.any():
        raise FrameError("it shows nothing", file=found.frame, remedy="leave it out")
    marks = None
    if found.masks or found.healthy:
        marks = bool(mask_of(found.frame, *found.masks).any())
    if found.low is not None:
        refuse_other_size(found.frame, found.low)
        low = glance(found.low, _GLANCE)
        refuse_other_scene(found.frame, frame, found.low, low, valid)
    digest = hashlib.sha256(found.frame.read_bytes()).hexdigest()
    return FrameRecord(found, shape, digest, perceptual_hash(frame, valid), marks)


# --- splits


@dataclass(frozen=True)
class _Assignment:
    """Splits and groups of frames.

    Attributes:
        splits: Of each frame.
        groups: Of each frame; empty where it stands for itself.
        moved: What was moved from one split to another, by the first frame of it, as a sentence.
        drawn: Whether validation frames were drawn from a folder of training frames.
    """

    splits: list[str]
    groups: list[str]
    moved: dict[int, str]
    drawn: bool


def _assign(
    records: Sequence[FrameRecord], units: Sequence[str], pairs: Sequence[Duplicates], split: Split
) -> _Assignment:
    """Give frames that belong together one split: their folder's, or one by name and seed."""
    first: dict[str, int] = {}
    same = [
        (first.setdefault(key, place), place)
        for place, one in enumerate(records)
        for key in (f"unit {units[place]}", f"file {one.digest}")
    ]
    parts = joined(len(records), [*same, *((pair.first, pair.second) for pair in pairs)])
    given = {one.found.split for one in records} - {None}
    # Training needs validation: where folders name a training and a test set alone, it comes from
    # the former.
    drawn = "train" in given and "val" not in given and split.shares[1] > 0
    own = replace(split, shares=(*split.shares[:2], 0.0))
    splits, groups, moved = [""] * len(records), [""] * len(records), {}
    for part in parts:
        name = min(units[place] for place in part)
        stated = {records[place].found.split for place in part} - {None}
        if len(stated) > 1:
            where: str | None = "train"
            moved[part[0]] = _moved(part, records, units, pairs)
        elif stated:
            where = own.of(name) if drawn and stated == {"train"} else next(iter(stated))
        else:
            where = split.of(name)
        known = sorted({records[place].found.group for place in part} - {""})
        for place in part:
            splits[place] = str(where)
            # What shows the same counts once: a frame of unknown origin joins those it is like.
            groups[place] = records[place].found.group or (
                known[0] if known else name if len(part) > 1 else ""
            )
    return _Assignment(splits, groups, moved, drawn)


def _moved(
    part: Sequence[int], records: Sequence[FrameRecord], units: Sequence[str], pairs: Sequence[Duplicates]
) -> str:
    inside = set(part)
    across = [
        pair
        for pair in pairs
        if pair.first in inside and records[pair.first].found.split != records[pair.second].found.split
    ]
    if across:
        pair = max(across, key=lambda pair: pair.likeness)
        one, two = records[pair.first].found, records[pair.second].found
        files = f"{one.frame} ({one.split}) and {two.frame} ({two.split})"
        what = f"{files} show the same (likeness {pair.likeness:.2f})"
    else:
        what = f"frames of {units[part[0]]} lie in folders of different splits"
    return f"{what}: all {len(part)} frames that belong to them are in train"


def _copies(records: Sequence[FrameRecord]) -> dict[Path, Path]:
    """Files that hold the same bytes as another, which is kept: one with a mask, where one has."""
    kept: dict[str, FrameRecord] = {}
    for one in sorted(records, key=lambda one: (one.marks is None, one.found.low is None, one.found.frame)):
        kept.setdefault(one.digest, one)
    files = ((one.found.frame, kept[one.digest].found.frame) for one in records)
    return {file: first for file, first in files if file != first}


# --- writing


def _mask(one: FrameRecord, manifest: Path, folder: Path) -> Path | None:
    """The file of a frame's mask, written if there is none that holds all of it."""
    if len(one.found.masks) == 1:
        return one.found.masks[0]
    if not one.found.masks and not one.found.healthy:
        return None
    place = manifest.with_suffix(".masks")
    if not one.found.masks:
        path = place / "blank_{1}x{0}.png".format(*one.shape)
    else:
        path = (place / one.found.frame.relative_to(folder)).with_suffix(".png")
    if one.found.masks or not path.exists():
        write_mask(path, mask_of(one.found.frame, *one.found.masks), overwrite=True)
    return path


def _write_duplicates(
    path: Path, records: Sequence[FrameRecord], pairs: Iterable[Duplicates], assignment: _Assignment
) -> None:
    rows = []
    for pair in pairs:
        one, two = records[pair.first].found, records[pair.second].found
        sides = one.frame, one.split, two.frame, two.split
        rows.append((*sides, f"{pair.likeness:.2f}", assignment.splits[pair.first]))
    write_csv(path, ("frame", "folder", "other", "other_folder", "likeness", "split"), rows)


def _warnings(
    rows: Sequence[FrameRow],
    found: Sequence[FrameFiles],
    assignment: _Assignment,
    unmatched: int,
    shares: Sequence[float],
) -> Iterator[str]:
    if assignment.drawn:
        yield "no folder is named val: validation frames are drawn from those in train"
    folders = {one.split for one in found} - {None}
    for name, share in zip(SPLITS, shares, strict=True):
        wanted = name in folders or (share > 0 and not folders) or name == "val"
        if wanted and not any(row.split == name for row in rows):
            yield f"no frame is in split {name}: add frames or choose another --seed"
    bare = sum(row.mask is None for row in rows)
    if 0 < bare < len(rows):
        yield f"frames without a mask: {bare:,} of {len(rows):,}; a teacher needs one for all training frames"
    guessed = {one.group for one in found if one.guessed}
    if guessed:
        yield (
            f"folders taken for one video or patient each: {len(guessed):,}, such as {min(guessed)};"
            " if they are not, say by --group what is"
        )
    if unmatched:
        yield f"frames that --group does not match: {unmatched:,}"
