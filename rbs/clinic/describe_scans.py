"""Scans in, sentences out: what a description network, and hot spots, say of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rbs.clinic.acquisitions import Acquisition, complete_counts, examiner, join_views, results_of
from rbs.clinic.checks import unlike_training
from rbs.clinic.outcomes import Refusal
from rbs.clinic.sources import Source
from rbs.description.answers import LEAST_CONFIDENCE, Answer, confident_answers
from rbs.description.coarse import is_fine
from rbs.description.sentences import OLDEST
from rbs.errors import printable
from rbs.scans.facts import facts_of
from rbs.scans.scan import STANDARD_VELOCITY, Scan
from rbs.utils.words import counted

if TYPE_CHECKING:
    from rbs.inference.description import ScanDescriber

NO_REPORT = "Research use only, not a report."


@dataclass(frozen=True)
class ScanDescription:
    """The description of a scan.

    Attributes:
        name: Its file or files.
        sentences: Sentences and their confidence.
        left_out: Topics on which no sentence is sure enough.
        least: The least confidence.
        foci_by: Network by which foci of raised uptake are found.
        warnings: What makes it doubtful.
    """

    name: str
    sentences: tuple[Answer, ...]
    left_out: int
    least: float
    foci_by: str
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.name}:", *(f"  {sentence}" for sentence in self.sentences)]
        if self.left_out:
            lines.append(f"  left out: {counted(self.left_out, 'sentence')} below {self.least:.2f}")
        lines.append(f"  foci of raised uptake by: {self.foci_by}")
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(map(printable, lines))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "file": self.name,
            "sentences": [sentence.as_dict() for sentence in self.sentences],
            "left_out": self.left_out,
            "least_confidence": self.least,
            "foci_of_raised_uptake_by": self.foci_by,
            "warnings": self.warnings,
        }


def describe_scan(
    files: Sequence[Scan],
    loaded: ScanDescriber,
    standard_velocity: float = STANDARD_VELOCITY,
    *,
    least: float = LEAST_CONFIDENCE,
    name: str = "",
) -> ScanDescription:
    """Describe a scan.

    Counts that an export cut are drawn anew first. Where the scan is unlike those that the
    segmenter was trained on, the description network alone finds foci, and a warning says so.

    Args:
        files: Raw counts at any velocity: a scan, or two of a view each (`pair_views`).
        loaded: The description network and the segmenter.
        standard_velocity: cm/min of your standard scans, by which exposures are stated.
        least: Confidence from which on a sentence is written.
        name: Of the scan.

    Raises:
        ScanError: Its velocity is unknown, it holds no counts, or its pixels are of another size.
        CheckpointError: A network gave values that are no probabilities.
    """
    scan = join_views(files)
    whole, exposure = complete_counts(scan), scan.exposure_of(standard_velocity)
    trained_on, fine = loaded.segmenter.provenance, is_fine(scan)
    doubts = list(unlike_training(scan, standard_velocity, trained_on)) if fine else []
    by_spots = fine and not doubts
    chances = loaded.chances(whole, exposure, hot_spots=by_spots)
    sentences, left_out = confident_answers(chances, least)
    foci_by = f"hot spots of {loaded.segmenter.name}" if by_spots else "the description network alone"
    warnings = (f"the segmenter is not used for foci: {', and '.join(doubts)}",) if doubts else ()
    return ScanDescription(name, tuple(sentences), left_out, least, foci_by, warnings)


def describe_files(
    sources: Iterable[Source],
    loaded: ScanDescriber,
    reading: Mapping[str, Any],
    standard_velocity: float = STANDARD_VELOCITY,
    *,
    least: float = LEAST_CONFIDENCE,
    names: Mapping[Path, str] = MappingProxyType({}),
) -> Iterator[ScanDescription | Refusal]:
    """Describe DICOM files, study by study; two files that hold a view each are one scan.

    Args:
        sources: The files. What rbs restored is refused, as by `read_nm`.
        loaded: The description network and the segmenter.
        reading: Options of `read_nm` for files that do not say all.
        standard_velocity: cm/min of your standard scans.
        least: Confidence from which on a sentence is written.
        names: Name of each file, by its path; that of the file by default.

    Yields:
        The description of each scan, or why a file has none.
    """

    def describe(acquired: Acquisition, name: str) -> ScanDescription:
        found = describe_scan(acquired.files, loaded, standard_velocity, least=least, name=name)
        doubts = dict.fromkeys(w for path in acquired.paths for w in acquired.warnings[path])
        return replace(found, warnings=(*age_warnings(acquired.scan), *found.warnings, *doubts))

    # Spacing and counts of its training are those of coarse pixels.
    trained_on = {name: span for name, span in loaded.network.provenance.items() if name == "exposure"}
    examine = examiner(trained_on, reading, standard_velocity)
    yield from results_of(sources, examine, describe, names)


def age_warnings(scan: Scan) -> tuple[str, ...]:
    """A warning about a patient older than all of whom sentences are learned, or nothing."""
    age = facts_of(scan.provenance.header).age_y
    if age is None or age <= OLDEST:
        return ()
    return (
        f"the patient is {age:g} years old, and sentences are learned from children: growth plates and"
        " foci may be made up",
    )
