"""Errors a user can meet: each names the file, the fault and the remedy in one sentence.

The command line prints them without a traceback and exits with status 1.
"""

from __future__ import annotations

import errno
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk, or of a user's share of it, that has no room."""


def printable(text: object, longest: int | None = 1000) -> str:
    r"""Escape what must not reach a terminal, a log or a page as it is.

    File names, header values and names of weights come from others: they may hold escape codes,
    line breaks, overrides of the reading direction or halves of characters (bytes of a file name
    that are no UTF-8). All that Python calls unprintable is shown as in a Python string:
    ``\x1b``, ``\n``, ``\u202e``, ``\udcfc``. The result passes again unchanged.

    Args:
        text: The value; anything but text is converted.
        longest: Characters from which the middle is left out; None for all of them.
    """
    shown = str(text)
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    if longest is None or len(shown) <= longest:
        return shown
    half = (longest - 5) // 2
    return f"{shown[:half]} ... {shown[-half:]}"


class RbsError(Exception):
    """Something the user can mend. Its message is safe to print, and so are fault and remedy.

    Args:
        fault: What is wrong, as a clause without a full stop ("it is truncated at byte 1024").
        file: The file it concerns, if any.
        remedy: What to do about it, as a clause without a full stop.
    """

    def __init__(self, fault: str, *, file: str | Path | None = None, remedy: str | None = None) -> None:
        self.fault = printable(fault)
        self.file = None if file is None else Path(file)
        self.remedy = None if remedy is None else printable(remedy)
        where = f"{printable(self.file)}: " if self.file is not None else ""
        todo = f"; {self.remedy}" if self.remedy else ""
        super().__init__(f"{where}{self.fault}{todo}.")

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip out of a worker process, which pickles only positional arguments."""
        return (_rebuild, (type(self), self.fault, self.file, self.remedy))


def _rebuild(cls: type[RbsError], fault: str, file: Path | None, remedy: str | None) -> RbsError:
    return cls(fault, file=file, remedy=remedy)


class ScanError(RbsError):
    """A scan that cannot be read or must not be processed."""


class FrameError(RbsError):
    """A picture or a video that cannot be read or must not be processed."""


class ManifestError(RbsError):
    """A manifest that does not describe a usable data set."""


class CheckpointError(RbsError):
    """A checkpoint or weight file that does not fit."""


class SweepError(RbsError):
    """A sweep file that cannot be used."""


class OutputError(RbsError):
    """An output that cannot be written."""


class DiskFullError(OutputError):
    """An output for which the disk has no room: the files that follow would fail alike."""


class UnforeseenError(RbsError):
    """A fault of rbs itself that ended the work on one file. Its cause holds the traceback."""
