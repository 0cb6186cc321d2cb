"""Comparison of two files in a process of its own, which a damaged one may end.

    python -m rbs.node.comparison FILE FILE MIB

Exit status 0: they hold the same scan, in whatever transfer syntax.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from rbs.scans.dicom.content import content_digest

TIME_S = 60.0
MEMORY_MIB = 1024


def same_scan(one: Path, other: Path) -> bool:
    """True where two files hold the same pixels and header; False also where one is damaged."""
    command = [sys.executable, "-m", __name__, str(one), str(other), str(MEMORY_MIB)]
    try:
        compared = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return compared.returncode == 0


def main() -> int:
    """Compare the two files of the command line within the memory it allows."""
    *files, memory_mib = sys.argv[1:]
    limit = int(memory_mib) * 2**20  # the settings of the node take as long to import as all the rest
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    first, second = (content_digest(Path(file)) for file in files)
    return int(first != second)


if __name__ == "__main__":
    raise SystemExit(main())
