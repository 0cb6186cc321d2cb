"""What may become of a file in a folder, whatever is done to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rbs.errors import RbsError


@dataclass(frozen=True)
class Refused:
    """A file that was passed over; the others went on.

    Attributes:
        source: The file.
        error: Why.
    """

    source: Path
    error: RbsError
