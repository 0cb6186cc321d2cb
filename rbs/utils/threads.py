"""Threads on a shared machine: as many as there are cores, asleep while they wait."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""Of OpenMP: its own setting, and those of GCC's and of Intel's and LLVM's library."""


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have OpenMP's threads sleep while they wait, unless the user has said otherwise.

    By default they spin for a while after each loop: beside other work they take its cores to do
    nothing. Libraries read this when they are loaded, so it comes before their import.
    """
    if not any(name in environment for name in _PASSIVE):
        environment.update(_PASSIVE)


def waits_actively(environment: MutableMapping[str, str] = os.environ) -> bool:
    """True if the user has asked for threads that spin while they wait."""
    return environment.get("OMP_WAIT_POLICY", "").strip().upper() == "ACTIVE"


def thread_count() -> int:
    """Number of threads: `OMP_NUM_THREADS`, or one for each core that this process may use."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isdigit() and int(first):
        return int(first)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
