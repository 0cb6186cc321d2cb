"""Kinds of files and folders: scans, pictures or videos, by content; if it is damaged, by name."""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path
from typing import Literal

from rbs.endoscopy.files import FORMATS
from rbs.errors import FrameError
from rbs.scans.dicom.reader import START, starts_like_dicom

Kind = Literal["scan", "picture", "video"]


def kind_of(path: Path) -> Kind | None:
    """The kind of a file; None for anything else.

    DICOM is told by its beginning, pictures by Pillow and videos by FFmpeg. A file that
    none of these opens has the kind of its name: reading it will tell the fault.
    """
    from PIL import Image

    from rbs.endoscopy.video import is_video

    try:
        with path.open("rb") as file:
            if starts_like_dicom(file.read(START)):
                return "scan"
        with Image.open(path, formats=FORMATS):
            return "picture"
    except Image.DecompressionBombError:
        return "picture"
    except (OSError, ValueError, SyntaxError):
        pass
    if is_video(path):
        return "video"
    named = (mimetypes.guess_type(path.name)[0] or "").split("/")[0]
    kinds: dict[str, Kind] = {"image": "picture", "video": "video"}
    return kinds.get(named)


def pictures_or_videos(folder: Path) -> tuple[Kind, list[Path]] | None:
    """Find the pictures, or the videos, below a folder, sorted; hidden files are left out.

    Returns:
        The kind and the files; None where there are none, or only scans.

    Raises:
        FrameError: The folder holds files of more than one kind.
    """
    found: dict[Kind, list[Path]] = {}
    for place, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            kind = None if name.startswith(".") or not path.is_file() else kind_of(path)
            if kind is not None:
                found.setdefault(kind, []).append(path)
    if len(found) > 1:
        counted = (
            f"{kind}s: {len(files)}, such as {min(files).name}" for kind, files in sorted(found.items())
        )
        remedy = "give each kind a folder of its own"
        raise FrameError(f"the folder mixes kinds ({'; '.join(counted)})", file=folder, remedy=remedy)
    if "scan" in found:
        return None
    return next(((kind, sorted(files)) for kind, files in found.items()), None)
