"""Memory: the largest scan that is restored at once, and reuse of the memory of large arrays."""

from __future__ import annotations

import ctypes

from rbs.errors import ScanError

WHOLE = 2**21
"""Pixels of the largest scan that a network sees at once, 2048 x 1024: about 3 GB."""


def require_whole(height: int, width: int, what: str = "segmented") -> None:
    """Refuse a scan that is too large for a network that sees all of it at once.

    Args:
        height: Rows.
        width: Columns.
        what: Done to it, in a word.

    Raises:
        ScanError: It is.
    """
    if height * width > WHOLE:
        fault = f"its views have {height * width:,} pixels, and {WHOLE:,} are {what} at once"
        raise ScanError(fault, remedy="export it with pixels twice as wide")


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`."""


def keep_memory() -> None:
    """Let glibc keep the memory of freed arrays for the next ones; no effect with other libraries.

    By default it requests every array above 32 MB from the system and returns it, and the system
    clears each page at its first use: at 1024 x 512 pixels that took as long as restoring the scan.
    The process holds its peak memory to its end.
    """
    _set(mappings=0, trim_threshold=2**31 - 1)


def return_memory() -> None:
    """Have glibc return the memory of freed arrays, as it does by default.

    Kept memory falls into pieces that the next arrays do not fit in: it doubled over the tiles of
    one large scan.
    """
    _set(mappings=2**16, trim_threshold=2**17)


def _set(mappings: int, trim_threshold: int) -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc
        return
    mallopt(_MMAP_MAX, mappings)
    mallopt(_TRIM_THRESHOLD, trim_threshold)
