"""The frames manifest: a CSV of colour frames, their splits, and what belongs to them.

    frame,split,low,mask,group,source
    images/a_001.jpg,train,,masks/a_001.png,video a,PolypGen

Paths are relative to the manifest's folder. `frame` is the picture of high quality. `low` is the
acquired one of low quality, of the same size or half of it; where it is empty, frames are degraded
on the fly. `mask` marks lesions. `group` is the video or the patient, the unit that splits and
statistics go by; without one each frame stands alone. All columns but `frame` and `split` may be
left out.
"""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rbs.data.manifest import SPLITS, line_fault, read_rows, relative_path
from rbs.data.matching import patient_key
from rbs.errors import ManifestError
from rbs.utils.files import require_regular, write_csv

COLUMNS = ("frame", "split", "low", "mask", "group", "source")
REQUIRED = ("frame", "split")


@dataclass(frozen=True)
class FrameRow:
    """A row of the manifest.

    Attributes:
        frame: The picture of high quality.
        split: "train", "val" or "test".
        low: The picture of low quality; None to degrade `frame`.
        mask: Mask of the lesions; None without one.
        group: Video or patient; the frame itself where nothing is known.
        source: Where it is from; may be empty.
        grouped: Whether the video or patient is known.
    """

    frame: Path
    split: str
    low: Path | None = None
    mask: Path | None = None
    group: str = ""
    source: str = ""
    grouped: bool = True

    @property
    def patient(self) -> str:
        """The unit that statistics go by."""
        return self.group


@dataclass(frozen=True)
class FramesManifest:
    """All rows of a manifest.

    Attributes:
        path: The CSV.
        frames: Its rows.
    """

    path: Path
    frames: tuple[FrameRow, ...]

    @classmethod
    def read(cls, path: str | Path) -> FramesManifest:
        """Read and check a manifest: all files are there, and splits share no group and no picture.

        Raises:
            ManifestError: It is missing or cannot be used; line, fault and remedy are named.
        """
        path = Path(path)
        if not path.is_file():
            remedy = "make one with `rbs index` or `rbs simulate --kind endoscopy`"
            raise ManifestError("there is no such manifest", file=path, remedy=remedy)
        rows = [(line, _row(path, line, cells)) for line, cells in read_rows(path, REQUIRED, COLUMNS)]
        if not rows:
            raise ManifestError("it lists no frame", file=path, remedy="add rows to it")
        _refuse_leaks(path, rows)
        return cls(path, tuple(row for _, row in rows))

    def rows(self, split: str) -> list[FrameRow]:
        """The frames of "train", "val" or "test".

        Raises:
            ManifestError: There are none.
        """
        found = [frame for frame in self.frames if frame.split == split]
        if not found:
            raise ManifestError(f"no frame is in split '{split}'", file=self.path, remedy="give some to it")
        return found


def is_frames_manifest(path: str | Path) -> bool:
    """True where the header of a CSV is that of frames; False where it cannot be read.

    Raises:
        ManifestError: It is no file but a pipe, a device or a folder.
    """
    require_regular(Path(path), ManifestError)
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            return "frame" in (name.strip() for name in next(csv.reader(file), []))
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def write_frames_manifest(path: Path, frames: Sequence[FrameRow], *, overwrite: bool = False) -> None:
    """Write a manifest; paths become relative to its folder where they lie below it.

    Raises:
        OutputError: It exists, or cannot be written.
    """

    def relative(file: Path | None) -> str:
        return "" if file is None else relative_path(file, path.parent)

    rows = (
        (relative(row.frame), row.split, relative(row.low), relative(row.mask), row.group, row.source)
        for row in frames
    )
    write_csv(path, COLUMNS, rows, overwrite=overwrite)


def _row(path: Path, line: int, stated: dict[str, str]) -> FrameRow:
    cells = {name: stated.get(name, "") for name in COLUMNS}
    if cells["split"] not in SPLITS:
        raise line_fault(path, line, f"unknown split '{cells['split']}'", f"use one of {', '.join(SPLITS)}")
    if not cells["frame"]:
        raise line_fault(path, line, "frame is empty", "name one, or remove the line")

    def file(name: str) -> Path | None:
        if not cells[name]:
            return None
        found = path.parent / cells[name]
        if not found.is_file():
            fault = f"the {name} {found} is missing"
            raise line_fault(path, line, fault, "correct the path; it is relative to the manifest")
        return found

    frame = file("frame")
    assert frame is not None
    group = cells["group"] or cells["frame"]
    known = group != cells["frame"]
    return FrameRow(frame, cells["split"], file("low"), file("mask"), group, cells["source"], known)


def _refuse_leaks(path: Path, rows: Sequence[tuple[int, FrameRow]]) -> None:
    """No group in two splits, no frame twice, no picture under two names in two splits."""
    splits: dict[str, tuple[str, int]] = {}
    lines: dict[Path, int] = {}
    for line, row in rows:
        split, first = splits.setdefault(patient_key(row.group), (row.split, line))
        if split != row.split:
            fault = f"group {row.group} is in split {row.split} but in {split} on line {first}"
            raise line_fault(path, line, fault, "keep a video or patient in one split")
        first = lines.setdefault(row.frame.resolve(), line)
        if first != line:
            raise line_fault(
                path, line, f"the frame {row.frame} is listed before, on line {first}", "list it once"
            )
    # A copy has the same size, so that few files are read. `rbs index` finds what is only alike.
    of_size: dict[int, list[tuple[int, FrameRow, Path]]] = defaultdict(list)
    for line, row in rows:
        for file in filter(None, (row.frame, row.low)):
            of_size[file.stat().st_size].append((line, row, file))
    for size, files in of_size.items():
        if size and len({row.split for _, row, _ in files}) > 1:
            _refuse_copies(path, files)


def _refuse_copies(path: Path, files: Sequence[tuple[int, FrameRow, Path]]) -> None:
    holder: dict[str, tuple[int, FrameRow, Path]] = {}
    for line, row, file in files:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        first, other, kept = holder.setdefault(digest, (line, row, file))
        if other.split != row.split:
            fault = f"{file} (in split {row.split}) is the picture {kept} (in {other.split}, line {first})"
            raise line_fault(path, line, fault, "keep both in one split, or remove one line")
