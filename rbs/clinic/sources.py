"""Files that can be restored: each is opened once, which tells its kind and its study."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from rbs.errors import FrameError, ScanError
from rbs.scans.dicom.files import INDEX, derived_by_rbs, header_of, may_be_a_scan
from rbs.scans.dicom.reader import START, starts_like_dicom

HELD = 2**27
"""Bytes of scans that are held between looking at a folder and restoring it. Scans beyond that are
opened again when their turn comes."""
MARK = "Restored by rbs"
"""Begins the comment in the header of a restored picture or video."""


@dataclass(frozen=True)
class Source:
    """A file to restore.

    Attributes:
        path: The file.
        kind: "scan", "picture" or "video".
        restored: True if rbs wrote it as a restoration.
        study: Study Instance UID of a scan; scans of one study may belong together.
        content: Bytes of a scan; None if they are not held.
    """

    path: Path
    kind: str
    restored: bool = False
    study: str = ""
    content: bytes | None = field(default=None, repr=False, compare=False)


def source_of(path: Path) -> Source:
    """A single file. One of unknown kind passes for a scan, whose reader says best why it is none.

    Raises:
        ScanError: There is no such file.
    """
    if not path.exists():
        raise ScanError("there is no such file or folder", file=path, remedy="check the path")
    return _look(path, HELD) or Source(path, "scan", study=str(path))


def sources_in(folder: Path) -> list[Source]:
    """The scans, or the pictures, or the videos of a folder and those below it, sorted by path.

    Hidden files and DICOMDIR are left out. A file that is named like an export of scans but cannot
    be read, or is too short to tell, is taken for a scan, as are folders that cannot be searched:
    reading them will say what is wrong, and no scan is passed over in silence.

    Raises:
        FrameError: The folder mixes kinds.
        ScanError: It holds none of them.
    """
    found: dict[str, list[Source]] = defaultdict(list)
    doubtful: list[Path] = []
    closed: list[OSError] = []
    room = HELD
    for place, below, names in os.walk(folder, onerror=closed.append):
        below[:] = [name for name in below if not name.startswith(".")]
        for path in (Path(place, name) for name in names):
            if path.name.startswith(".") or path.name.upper() == INDEX:
                continue
            if source := _look(path, room):
                found[source.kind].append(source)
                room -= len(source.content or b"")
            elif may_be_a_scan(path):
                doubtful.append(path)
    if len(found) > 1:
        counted = (
            f"{kind}s: {len(files)}, such as {min(file.path for file in files).name}"
            for kind, files in sorted(found.items())
        )
        remedy = "give each kind a folder of its own"
        raise FrameError(f"the folder mixes kinds ({'; '.join(counted)})", file=folder, remedy=remedy)
    if not found or "scan" in found:
        doubtful += [Path(error.filename) for error in closed]
        found["scan"] += [Source(path, "scan", study=str(path)) for path in doubtful]
    (files,) = found.values()
    if not files:
        fault = "there is no scan (DICOM), picture or video in this folder"
        raise ScanError(fault, file=folder, remedy="check the path")
    return sorted(files, key=lambda file: file.path)


def _look(path: Path, room: int) -> Source | None:
    """Kind, study and origin of a file; None if it is neither scan, picture nor video."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            start = file.read(START)
            is_scan = starts_like_dicom(start)
            held = is_scan and os.fstat(file.fileno()).st_size <= room
            content = start + file.read() if held else None
    except OSError:
        is_scan, content = False, None
    if is_scan:
        header = header_of(path, content)
        study = str(header.get("StudyInstanceUID") or path)
        return Source(path, "scan", derived_by_rbs(header), study, content)
    from rbs.endoscopy.media_type import kind_of

    kind = kind_of(path)
    return Source(path, kind, _comment(path, kind).startswith(MARK)) if kind else None


def _comment(path: Path, kind: str) -> str:
    """Comment in the header of a picture or a video; empty if it cannot be read."""
    from PIL import Image

    from rbs.endoscopy.video import comment_of

    try:
        if kind == "video":
            return comment_of(path)
        with Image.open(path) as picture:
            return str(picture.info.get("Comment", ""))
    except (OSError, ValueError, SyntaxError, FrameError):
        return ""
