"""Keeping the memory of large arrays instead of giving it back to the system after each."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`."""


def keep_memory() -> None:
    """Have glibc keep what arrays leave behind for the next ones; elsewhere nothing happens.

    By itself it asks the system for every array above 32 MB and gives it back, and each of its
    pages is then cleared anew when it is first touched: at 1024 x 512 pixels that took as long as
    restoring the scan. The process holds its peak memory to its end.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
