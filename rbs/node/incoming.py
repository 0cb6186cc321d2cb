"""Temporary files of what senders send, on a disk that may be full."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Self

from rbs.errors import FULL


class Incoming:
    """A file for a data set on its way, in the place of `tempfile.NamedTemporaryFile`.

    A full disk raises nothing, as pynetdicom writes in the thread that reads the connection, whose
    end would leave the sender without an answer: what no longer fits is thrown away.

    Args:
        folder: Where it lies.
        reserve: Bytes of the disk that are left free.
        suffix: Of its name.
        options: Others of `NamedTemporaryFile`, which mean a file to be written that stays.

    Attributes:
        name: Its path.
        full: True once there was no room for it.
    """

    def __init__(self, folder: Path, reserve: int = 0, *, suffix: str, **options: object) -> None:
        self._reserve = reserve
        self.name, self.full = str(folder / "no-room"), False
        self._descriptor: int | None = None
        try:
            self._descriptor, self.name = tempfile.mkstemp(suffix, dir=folder)
        except OSError as error:
            self._ended(error)

    @property
    def file(self) -> Self:
        """What is flushed; nothing is held back here."""
        return self

    def flush(self) -> None:
        """Do nothing."""

    def write(self, content: bytes) -> int:
        """Add bytes, while there is room for all."""
        rest = memoryview(content)
        while rest and self._descriptor is not None and not self.full:
            try:
                disk = os.fstatvfs(self._descriptor)
                if disk.f_bavail * disk.f_frsize - len(rest) < self._reserve:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                rest = rest[os.write(self._descriptor, rest) :]
            except OSError as error:
                self._ended(error)
        return len(content)

    def close(self) -> None:
        """Close it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _ended(self, error: OSError) -> None:
        """Give the room back that it took.

        Raises:
            OSError: It is another error than that of a full disk.
        """
        if error.errno not in FULL:
            raise error
        self.full = True
        if self._descriptor is not None:
            os.truncate(self._descriptor, 0)
