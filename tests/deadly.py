"""A reader that dies of one file; in a module of its own, so that its processes start quickly."""

import os
from pathlib import Path

from rbs.data.indexing.records import Note, take_note


def note_or_die(file: Path, view: None = None) -> Note:
    """`take_note`, unless the file is called deadly."""
    if file.name == "deadly":
        os._exit(1)
    return take_note(file, view)
