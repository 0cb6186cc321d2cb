"""The frames manifest: a CSV of colour frames, their splits, and what belongs to them.

    frame,split,low,mask,group,source
    images/a_001.jpg,train,,masks/a_001.png,video a,PolypGen

Paths are relative to the manifest's folder. `frame` is the picture of high quality. `low` is the acquired one
of low quality, of the same size or half of it; where it is empty, frames are degraded on the fly. `mask`
marks lesions. `group` is the video or the patient, the unit that splits and statistics go by; without one
each frame stands alone. All columns but `frame` and `split` may be left out.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rbs.data.manifest import SPLITS
from rbs.errors import ManifestError
from rbs.files import whole_file

COLUMNS = ("frame", "split", "low", "mask", "group", "source")
REQUIRED = ("frame", "split")


@dataclass(frozen=True)
class FrameRow:
    """A row of the manifest.

    Attributes:
        frame: The picture of high quality.
        split: "train", "val" or "test".
        low: The picture of low quality; None to degrade `frame`.
        mask: Marks lesions; None where nobody has.
        group: Video or patient; the frame itself where nothing is known.
        source: Where it is from; may be empty.
    """

    frame: Path
    split: str
    low: Path | None = None
    mask: Path | None = None
    group: str = ""
    source: str = ""

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
        """Read and check a manifest: columns, splits, files, and that no group is in two splits.

        Raises:
            ManifestError: It is missing or cannot be used; row, fault and remedy are named.
        """
        path = Path(path)
        lines = _lines(path)
        frames = tuple(_row(path, number, line) for number, line in enumerate(lines, start=2))
        if not frames:
            raise ManifestError("it lists no frame", file=path, remedy="add rows to it")
        _refuse_leaks(path, frames)
        return cls(path, frames)

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
    """Whether the header of a CSV is that of frames; False where it cannot be read."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            return "frame" in next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def write_frames_manifest(path: Path, frames: Sequence[FrameRow], *, overwrite: bool = False) -> None:
    """Write a manifest; paths become relative to its folder where they lie below it.

    Raises:
        OutputError: It exists, or cannot be written.
    """
    folder = path.parent.resolve()

    def relative(file: Path | None) -> str:
        if file is None:
            return ""
        whole = file.resolve()
        return (whole.relative_to(folder) if whole.is_relative_to(folder) else whole).as_posix()

    with whole_file(path, overwrite=overwrite) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in frames:
            writer.writerow(
                [relative(row.frame), row.split, relative(row.low), relative(row.mask), row.group, row.source]
            )


def _lines(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or [])
            lines = list(reader)
    except FileNotFoundError:
        remedy = "make one with `rbs index-frames` or `rbs mucosa`"
        raise ManifestError("there is no such manifest", file=path, remedy=remedy) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"it cannot be read ({error})", file=path, remedy="save it as CSV") from error
    unknown, missing = [c for c in columns if c not in COLUMNS], [c for c in REQUIRED if c not in columns]
    if unknown or missing:
        fault = f"its columns are {', '.join(columns) or 'none'}"
        raise ManifestError(
            fault, file=path, remedy=f"use {', '.join(COLUMNS)}, of which the first two at least"
        )
    for number, line in enumerate(lines, start=2):
        if None in line or None in line.values():
            raise ManifestError(
                f"row {number} has not as many cells as the header", file=path, remedy="complete the row"
            )
    return lines


def _row(path: Path, number: int, line: dict[str, str]) -> FrameRow:
    cells = {name: (line.get(name) or "").strip() for name in COLUMNS}
    if cells["split"] not in SPLITS:
        fault = f"row {number} has the split '{cells['split']}'"
        raise ManifestError(fault, file=path, remedy=f"use one of {', '.join(SPLITS)}")
    if not cells["frame"]:
        raise ManifestError(f"row {number} names no frame", file=path, remedy="name one, or remove the row")

    def file(name: str) -> Path | None:
        if not cells[name]:
            return None
        found = path.parent / cells[name]
        if not found.is_file():
            fault = f"row {number} names the {name} {cells[name]}, which does not exist"
            raise ManifestError(fault, file=path, remedy="correct the path; it is relative to the manifest")
        return found

    frame = file("frame")
    assert frame is not None
    group = cells["group"] or cells["frame"]
    return FrameRow(frame, cells["split"], file("low"), file("mask"), group, cells["source"])


def _refuse_leaks(path: Path, frames: Sequence[FrameRow]) -> None:
    """No group in two splits, no frame twice."""
    splits: dict[str, str] = {}
    seen: set[Path] = set()
    for number, row in enumerate(frames, start=2):
        first = splits.setdefault(row.group, row.split)
        if first != row.split:
            fault = f"row {number} puts the group '{row.group}' into {row.split}, but it is in {first}, too"
            raise ManifestError(fault, file=path, remedy="keep a video or patient in one split")
        where = row.frame.resolve()
        if where in seen:
            fault = f"row {number} names {row.frame.name} a second time"
            raise ManifestError(fault, file=path, remedy="remove one of the rows")
        seen.add(where)
