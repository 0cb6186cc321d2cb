"""Errors a user can meet: each names the file, the fault and the remedy in one sentence.

The command line prints them without a traceback and exits with status 1.
"""

from __future__ import annotations

from pathlib import Path


class RbsError(Exception):
    """Something the user can mend.

    Args:
        fault: What is wrong, as a clause without a full stop ("it is truncated at byte 1024").
        file: The file it concerns, if any.
        remedy: What to do about it, as a clause without a full stop.
    """

    def __init__(self, fault: str, *, file: str | Path | None = None, remedy: str | None = None) -> None:
        self.fault = fault
        self.file = None if file is None else Path(file)
        self.remedy = remedy
        where = f"{self.file}: " if self.file is not None else ""
        todo = f"; {remedy}" if remedy else ""
        super().__init__(f"{where}{fault}{todo}.")

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
