"""The kind of a file: picture or video. Content decides; if it is damaged, the name."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Literal

from rbs.endoscopy.files import FORMATS

Kind = Literal["picture", "video"]


def kind_of(path: Path) -> Kind | None:
    """Kind of a file; None for anything else.

    Pictures are told by Pillow and videos by FFmpeg. A file that neither opens is what its name
    says: reading it will say what is wrong with it.
    """
    from PIL import Image

    from rbs.endoscopy.video import is_video

    try:
        with Image.open(path, formats=FORMATS):
            return "picture"
    except Image.DecompressionBombError:
        return "picture"
    except (OSError, ValueError, SyntaxError):
        pass
    try:
        if is_video(path):
            return "video"
    except (OSError, ModuleNotFoundError):  # no access, or no FFmpeg in the base installation
        pass
    named = (mimetypes.guess_type(path.name)[0] or "").split("/")[0]
    kinds: dict[str, Kind] = {"image": "picture", "video": "video"}
    return kinds.get(named)
