"""Files that can be restored: each is opened once, which tells its kind and its study."""

from __future__ import annotations

import mimetypes
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rbs.errors import FrameError, ScanError
from rbs.scans.dicom.files import INDEX, derived_by_rbs, header_of, may_be_a_scan
from rbs.scans.dicom.reader import START, starts_like_dicom
from rbs.scans.dicom.segmentation import SEGMENTATIONS
from rbs.utils.files import regular_files, require_regular
from rbs.utils.words import counted

HELD = 2**27
"""Bytes of scans that are held between looking at a folder and restoring it. Scans beyond that are
opened again when their turn comes."""
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
MARK = "Restored by rbs"
"""Begins the comment in the header of a restored picture or video."""


@dataclass(frozen=True)
class Source:
    """A file to restore.

    Attributes:
        path: The file.
        kind: "scan", "picture" or "video"; or "segmentation", which folders are read without.
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
        ScanError: There is no such file, or it is a pipe.
    """
    if not path.exists():
        raise ScanError("there is no such file or folder", file=path, remedy="check the path")
    require_regular(path, ScanError)
    source = _scan(path, HELD) or _frame(path)
    # The reader of scans says best why a segmentation, or a file of unknown kind, is none.
    known = source is not None and source.kind != "segmentation"
    return source if source and known else Source(path, "scan", study=str(path))


@dataclass(frozen=True)
class Folder:
    """The files of a folder that are to be restored.

    Attributes:
        sources: Scans, or pictures, or videos; sorted by path.
        passed_over: Files beside scans that may be meant to be restored, but not with them.
    """

    sources: list[Source]
    passed_over: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        """The files passed over, in words."""
        kinds = [_named_like(path) for path in self.passed_over]
        counted_kinds = (counted(kinds.count(kind), kind) for kind in dict.fromkeys(kinds) if kind)
        return f"{', '.join(counted_kinds)} beside the scans, such as {self.passed_over[0].name}"


def sources_in(folder: Path) -> Folder:
    """The scans of a folder and those below it, or where there is none the pictures or the videos.

    Where there are scans, pictures beside them (a logo, a screenshot) are passed over. Links to
    folders are followed, each folder once. Hidden files, pipes, DICOMDIR and DICOM Segmentation
    objects are left out. A file that is named like an export of scans but cannot be read, or is too
    short to tell, is taken for a scan, as are folders that cannot be searched: reading them will
    say what is wrong, and no scan is passed over in silence.

    Raises:
        FrameError: The folder mixes pictures and videos.
        ScanError: It holds nothing that can be restored.
    """
    files, closed = regular_files(folder)
    files = [path for path in files if path.name.upper() != INDEX]
    scans: list[Source] = []
    others: list[Path] = []
    room = HELD
    for path in files:
        if source := _scan(path, room):
            if source.kind == "segmentation":  # drawn on a scan, it is none
                continue
            scans.append(source)
            room -= len(source.content or b"")
        else:
            others.append(path)
    doubtful = [path for path in others if may_be_a_scan(path)]
    if scans:
        scans += [Source(path, "scan", study=str(path)) for path in (*doubtful, *closed)]
        passed_over = [path for path in others if path not in doubtful and _named_like(path)]
        return Folder(sorted(scans, key=lambda file: file.path), passed_over)
    frames = [source for path in others if (source := _frame(path))]
    kinds = Counter(source.kind for source in frames)
    if len(kinds) > 1:
        first = {kind: next(f.path.name for f in frames if f.kind == kind) for kind in kinds}
        told = "; ".join(f"{kind}s: {kinds[kind]}, such as {first[kind]}" for kind in sorted(kinds))
        remedy = "give each kind a folder of its own"
        raise FrameError(f"the folder mixes kinds ({told})", file=folder, remedy=remedy)
    kind = frames[0].kind if frames else "scan"
    unreadable = closed if frames else [*doubtful, *closed]
    sources = [*frames, *(Source(path, kind, study=str(path)) for path in unreadable)]
    if not sources:
        fault = "there is no scan (DICOM), picture or video in this folder"
        packed = any(_named_like(path) == "archive" for path in others)
        raise ScanError(fault, file=folder, remedy="unpack its archives" if packed else "check the path")
    return Folder(sorted(sources, key=lambda file: file.path))


def _scan(path: Path, room: int) -> Source | None:
    """A file that starts like DICOM, with its bytes if there is room for them; None for others."""
    try:
        with path.open("rb") as file:
            start = file.read(START)
            if not starts_like_dicom(start):
                return None
            held = os.fstat(file.fileno()).st_size <= room
            content = start + file.read() if held else None
    except OSError:
        return None
    header = header_of(path, content)
    study = str(header.get("StudyInstanceUID") or path)
    kind = "segmentation" if header.get("SOPClassUID") in SEGMENTATIONS else "scan"
    return Source(path, kind, derived_by_rbs(header), study, content)


def _frame(path: Path) -> Source | None:
    """A picture or a video; None for others."""
    from rbs.endoscopy.media_type import kind_of

    kind = kind_of(path)
    return Source(path, kind, _comment(path, kind).startswith(MARK)) if kind else None


def _named_like(path: Path) -> str | None:
    """Kind of file that a name tells of: picture, video or archive; None for others."""
    kind = (mimetypes.guess_type(path.name)[0] or "").split("/")[0]
    kinds = {"image": "picture", "video": "video"}
    return "archive" if path.suffix.lower() in ARCHIVES else kinds.get(kind)


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
