"""`rbs segment`: regions of the skeleton, as DICOM Segmentation objects or pictures."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbs.cli.file_by_file import add_file_options, names_a_folder, plan, process, scans_at, summarise
from rbs.cli.options import (
    add_allow_option,
    add_reading_options,
    add_segmenter_option,
    add_standard_velocity,
    reading_options,
)
from rbs.inference.devices import DEVICES

if TYPE_CHECKING:
    from rbs.clinic.label_formats import LabelFormat
    from rbs.clinic.segment_scans import Report
    from rbs.clinic.segmentation_reports import Measures, Page, Scores
    from rbs.clinic.sources import Folder
    from rbs.data.manifest import Case
    from rbs.evaluation.segmentation import RegionSummary
    from rbs.scans.scan import Scan

HELP = "find the regions of the skeleton: DICOM Segmentation objects, tables, a page (research use only)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "source",
        type=Path,
        metavar="IN",
        help="DICOM file, folder of them (with those below it), or manifest (.csv)",
    )
    parser.add_argument(
        "target",
        metavar="OUT",
        help="file to write, or folder (no suffix, or ending in /); gets NAME_seg.dcm",
    )
    parser.add_argument(
        "--format",
        choices=("seg", "nifti", "png"),
        default="seg",
        help="DICOM Segmentation, NIfTI (columns, rows, frames), or palette picture whose pixel values are"
        " labels (default: %(default)s)",
    )
    add_segmenter_option(parser)
    parser.add_argument(
        "--atlas",
        type=Path,
        metavar="DICOM",
        help="labelled scan: a segmenter is trained from it and the folder IN first, into OUT/atlas, and"
        " used in place of --segmenter",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="labels of --atlas: NAME.labels.npz, or a DICOM Segmentation object",
    )
    parser.add_argument(
        "--device", choices=DEVICES, default="cpu", help="that the network computes on (default: %(default)s)"
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        help="of a manifest; its rapid scans are segmented, or standard ones where it has no rapid ones"
        " (default: test)",
    )
    parser.add_argument(
        "--score",
        action="store_true",
        help="write OUT/dice.csv: Dice and 95 %% surface distance by patient, view and region, where"
        " labels are known: truth or labels of a manifest, or NAME.labels.npz beside NAME.dcm",
    )
    parser.add_argument(
        "--table",
        action="store_true",
        help="write OUT/regions.csv: counts, shares, left to right, growth plates, each with its uncertainty",
    )
    parser.add_argument(
        "--page",
        action="store_true",
        help="write OUT/index.html: contours on every scan; with --table its numbers beside them",
    )
    add_file_options(parser)
    add_reading_options(parser)
    add_standard_velocity(parser)
    add_allow_option(parser)


def run(args: argparse.Namespace) -> None:
    """Segment a file, a folder or a split of a manifest, a line each.

    Raises:
        RbsError: IN was refused, or some file in it; each is named on standard error first.
        CheckpointError: The segmenter cannot be used.
        OutputError: The output exists or cannot be written.
    """
    from rbs.clinic.label_formats import FORMATS
    from rbs.clinic.segment_scans import ScanSegmenter
    from rbs.errors import RbsError
    from rbs.inference.segmentation import load_segmenter_for

    form = FORMATS[args.format]
    given = _given(args)
    _refuse_outputs(args, given, form)
    tables = _Tables.asked_for(args, given)
    outputs, skipped = plan(given.found.sources, args, form, given.root)
    existing = [s for s in given.found.sources if not s.restored and s not in outputs]
    segmenter = ScanSegmenter(
        load_segmenter_for(_student(args, given, outputs.values()) or args.segmenter, args.device),
        form,
        reading_options(args),
        given.stated,
        given.names,
        args.standard_velocity,
        tables.reports,
    )
    quiet = None if given.root else True
    work = segmenter.segment(outputs, existing)
    done = process(work, skipped, args, given.root, total=len(outputs), unit="scan", quiet=quiet)
    try:
        if any(outcome.outcome == "segmented" for outcome in done.outcomes):
            for report in tables.reports:
                report.write(Path(args.target))
    except RbsError as error:
        done = replace(done, fault=done.fault or error)
    summaries = tables.scores.summaries if tables.scores else []
    _print_scores(summaries, args)
    more = {"scores": [vars(summary) for summary in summaries]} if args.score else {}
    passed_over = given.found.passed_over
    summarise(done, args, given.root, word="segmented", passed_over=passed_over, more=more)


def _student(args: argparse.Namespace, given: _Given, outputs: Iterable[Path]) -> Path | None:
    """Weights of the segmenter that is trained from the scan --atlas; None without that option.

    Raises:
        RbsError: Options do not go together, an output exists, or the atlas cannot be used.
    """
    from rbs.errors import OutputError, RbsError

    if args.atlas is None and args.labels is None:
        return None
    if args.atlas is None or args.labels is None:
        raise RbsError("--atlas and --labels go together", remedy="give the labelled scan and its labels")
    if args.segmenter != "shipped":
        raise RbsError(
            "--atlas trains a segmenter, and --segmenter names one", remedy="leave one of them out"
        )
    if not args.source.is_dir():
        raise RbsError(
            "--atlas needs scans to train on", file=args.source, remedy="name a folder of them as IN"
        )
    if taken := next((output for output in outputs if os.path.lexists(output)), None):
        remedy = "add --skip-existing, or name another OUT"
        raise OutputError("the output exists already", file=taken, remedy=remedy)
    from rbs.clinic.atlas import train_student
    from rbs.data.labels import read_labels
    from rbs.scans.dicom.reader import read_nm

    def read(path: Path) -> Scan:
        return read_nm(path, **reading_options(args))

    atlas = read(args.atlas)
    labels = read_labels(args.labels, atlas)
    with redirect_stdout(sys.stderr):  # --json leaves standard output to the document
        student = train_student(
            atlas,
            labels,
            [source.path for source in given.found.sources],
            Path(args.target),
            read=read,
            standard_velocity=args.standard_velocity,
        )
    for error in student.left_out.values():
        print(f"not trained on: {error}", file=sys.stderr)
    return student.weights


@dataclass(frozen=True)
class _Given:
    """The scans of IN.

    Attributes:
        found: The scans.
        root: Folder that they lie in; None for a single file.
        cases: Case of each scan, of a manifest.
        names: Name of each scan, where it is not that of its file.
        stated: Options of the reader for single scans.
    """

    found: Folder
    root: Path | None
    cases: Mapping[Path, Case] = field(default_factory=dict)
    names: Mapping[Path, str] = field(default_factory=dict)
    stated: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)


def _given(args: argparse.Namespace) -> _Given:
    from rbs.errors import RbsError

    source: Path = args.source
    if source.suffix.lower() == ".csv" and not source.is_dir():
        return _given_by_manifest(args)
    if args.split:
        raise RbsError("--split is one of a manifest, and IN is none", file=source, remedy="leave it out")
    found = scans_at(source)
    if not source.is_dir():
        return _Given(found, None)
    names = {one.path: str(one.path.relative_to(source)) for one in found.sources}
    return _Given(found, source, names=names)


def _given_by_manifest(args: argparse.Namespace) -> _Given:
    from rbs.clinic.sources import Folder, Source
    from rbs.data.manifest import Manifest
    from rbs.errors import ManifestError

    split = args.split or "test"
    found = []
    cases, names = {}, {}
    stated: dict[Path, dict[str, Any]] = {}
    for number, case in enumerate(Manifest.read(args.source).split(split)):
        velocity = case.rapid_velocity if case.rapid else case.standard_velocity
        for listed in case.rapid or case.standard:
            path = Path(os.path.normpath(listed))  # "../x" lies in no folder of ours
            found.append(Source(path, "scan", study=f"{number:06d}"))
            cases[path], names[path] = case, case.patient
            stated[path] = {"velocity": velocity} if velocity else {}
            if listed in case.stated_views:
                stated[path]["views"] = (case.stated_views[listed],)
    if not found:
        fault = f"it has no patient in its split {split}"
        raise ManifestError(fault, file=args.source, remedy="name another --split")
    folder = Path(os.path.normpath(args.source.parent))
    if not all(path.is_relative_to(folder) for path in cases):
        folder = Path(os.path.commonpath([path.absolute().parent for path in cases]))
    return _Given(Folder(found), folder, cases, names, stated)


@dataclass(frozen=True)
class _Tables:
    """Tables and the page of all scans, where they are asked for."""

    scores: Scores | None = None
    measures: Measures | None = None
    page: Page | None = None

    @classmethod
    def asked_for(cls, args: argparse.Namespace, given: _Given) -> _Tables:
        """Those that the options ask for; what they need is imported for them alone.

        Raises:
            OutputError: One of them exists already.
        """
        if not _asked(args):
            return cls()
        from rbs.clinic.segmentation_reports import Measures, Page, Scores
        from rbs.errors import OutputError

        measures = Measures() if args.table else None
        tables = cls(
            Scores(given.cases) if args.score else None, measures, Page(measures) if args.page else None
        )
        files = (Path(args.target, report.file) for report in tables.reports)
        if taken := next((file for file in files if os.path.lexists(file)), None):
            remedy = "remove it, or name another OUT"
            raise OutputError("the table exists already", file=taken, remedy=remedy)
        return tables

    @property
    def reports(self) -> tuple[Report, ...]:
        """All that are asked for; the page shows numbers of the measures, and comes after them."""
        return tuple(report for report in (self.scores, self.measures, self.page) if report)


def _asked(args: argparse.Namespace) -> list[str]:
    """Options that make something of all scans together."""
    return [f"--{name}" for name in ("score", "table", "page") if getattr(args, name)]


def _refuse_outputs(args: argparse.Namespace, given: _Given, form: LabelFormat) -> None:
    """Refuse an OUT of another format, and tables without a folder or without the scans that exist.

    Raises:
        OutputError: OUT is a file with the suffix of another format.
        RbsError: OUT is a file, or --skip-existing is given, and tables are asked for.
    """
    from rbs.errors import OutputError, RbsError

    asked = _asked(args)
    one_file = not (given.root or names_a_folder(args.target))
    if asked and one_file:
        raise RbsError(f"{asked[0]} writes beside the label maps", remedy="name a folder as OUT")
    if asked and args.skip_existing:
        fault = f"--skip-existing would leave scans out of what {asked[0]} writes"
        raise RbsError(fault, remedy="leave one of the two out")
    if one_file and not args.target.lower().endswith(form.suffixes):
        fault = f"its name is not one of --format {args.format}"
        remedy = f"let it end in {' or '.join(form.suffixes)}"
        raise OutputError(fault, file=Path(args.target), remedy=remedy)


def _print_scores(summaries: list[RegionSummary], args: argparse.Namespace) -> None:
    if summaries and not args.json:
        print("region    patients  Dice (95 % interval)      95 % surface distance")
        for summary in summaries:
            print(summary)
