"""The outcome of each file, and the interface of what restores files of one kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from rbs.clinic.sources import Source
from rbs.errors import RbsError


class Outcome(Protocol):
    """The end of one file.

    Attributes:
        outcome: One word: restored, segmented, refused or skipped.
        source: The file.
        error: What is wrong with it; None if nothing is.
    """

    outcome: ClassVar[str]

    @property
    def source(self) -> Path: ...  # noqa: D102

    @property
    def error(self) -> RbsError | None: ...  # noqa: D102


@dataclass(frozen=True)
class Refusal:
    """A file that was passed over; the others went on.

    Attributes:
        source: The file.
        error: Why.
    """

    source: Path
    error: RbsError

    outcome: ClassVar[str] = "refused"


@dataclass(frozen=True)
class Skip:
    """A file that needed nothing.

    Attributes:
        source: The file.
        reason: Why, as a clause.
    """

    source: Path
    reason: str

    outcome: ClassVar[str] = "skipped"
    error: ClassVar[None] = None


class Outputs(Protocol):
    """Names of what is made of files."""

    def output_name(self, path: Path) -> str:
        """Name of what is made of a file."""

    def outputs(self, output: Path) -> dict[str, Path]:
        """All files written for an `output`, by what they hold."""


class FileRestorer(Outputs, Protocol):
    """Restoring files of one kind, with all that was asked for."""

    def restore(self, outputs: Mapping[Source, Path], existing: Iterable[Source] = ()) -> Iterator[Outcome]:
        """Restore files, each to the path given; a refused one does not stop the others.

        Files of `existing` were restored before, and are read where another depends on them.
        """
