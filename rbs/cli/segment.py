"""`rbs segment`: regions of the skeleton, as DICOM Segmentation objects or pictures."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbs.cli.file_by_file import add_file_options, names_a_folder, plan, process, summarise
from rbs.cli.options import (
    add_allow_option,
    add_reading_options,
    add_standard_velocity,
    reading_options,
)
from rbs.errors import printable
from rbs.inference.devices import DEVICES

if TYPE_CHECKING:
    from rbs.clinic.segment_scans import Report
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
    parser.add_argument(
        "--segmenter",
        default="shipped",
        metavar="FILE",
        help="weights of a segmenter (default: shipped, those that come with rbs)",
    )
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
        default="test",
        help="of a manifest; its rapid scans are segmented, or standard ones where it has no rapid ones"
        " (default: %(default)s)",
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
        "--page", action="store_true", help="write OUT/index.html: contours on every scan, and the --table"
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
    from rbs.inference.segmentation import load_segmenter_for

    given = _given(args)
    if given.found.passed_over:
        print(printable(f"passed over: {given.found}"), file=sys.stderr)
    _refuse_tables(args, given)
    loaded = load_segmenter_for(_student(args, given) or args.segmenter, args.device)
    tables = _Tables.asked_for(args, given, loaded.name)
    segmenter = ScanSegmenter(
        loaded,
        FORMATS[args.format],
        reading_options(args),
        given.stated,
        given.names,
        args.standard_velocity,
        tables.reports,
    )
    outputs, skipped = plan(given.found.sources, args, segmenter, given.root)
    quiet = None if given.root else True
    work = segmenter.segment(outputs)
    done = process(work, skipped, args, given.root, total=len(outputs), unit="scan", quiet=quiet)
    summaries: list[RegionSummary] = []
    try:
        if any(outcome.outcome == "segmented" for outcome in done.outcomes):
            summaries = tables.write(Path(args.target))
    finally:
        _print_scores(summaries, args)
        more = {"scores": [vars(summary) for summary in summaries]} if args.score else {}
        passed_over = given.found.passed_over
        summarise(done, args, given.root, word="segmented", passed_over=passed_over, more=more)


def _student(args: argparse.Namespace, given: _Given) -> Path | None:
    """Weights of the segmenter that is trained from the scan --atlas; None without that option.

    Raises:
        RbsError: Options do not go together, or the atlas cannot be used.
    """
    from rbs.errors import RbsError

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
    from rbs.clinic.atlas import train_student
    from rbs.data.labels import read_labels
    from rbs.scans.dicom.reader import read_nm

    def read(path: Path) -> Scan:
        return read_nm(path, **reading_options(args))

    atlas = read(args.atlas)
    student = train_student(
        atlas,
        read_labels(args.labels, atlas),
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
    """What IN names.

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
    from rbs.clinic.sources import Folder, source_of, sources_in
    from rbs.errors import ScanError

    source: Path = args.source
    if source.suffix.lower() == ".csv":
        return _given_by_manifest(args)
    found = sources_in(source) if source.is_dir() else Folder([source_of(source)])
    if (kind := found.sources[0].kind) != "scan":
        fault = f"it is a {kind}" if source.is_file() else f"it holds {kind}s"
        raise ScanError(f"{fault}, and regions are those of scans", file=source, remedy="name DICOM files")
    if not source.is_dir():
        return _Given(found, None)
    names = {one.path: str(one.path.relative_to(source)) for one in found.sources}
    return _Given(found, source, names=names)


def _given_by_manifest(args: argparse.Namespace) -> _Given:
    from rbs.clinic.sources import Folder, Source
    from rbs.data.manifest import Manifest
    from rbs.errors import ManifestError

    found = []
    cases, names = {}, {}
    stated: dict[Path, dict[str, Any]] = {}
    for number, case in enumerate(Manifest.read(args.source).split(args.split)):
        velocity = case.rapid_velocity if case.rapid else case.standard_velocity
        for listed in case.rapid or case.standard:
            path = Path(os.path.normpath(listed))  # "../x" lies in no folder of ours
            found.append(Source(path, "scan", study=f"{number:06d}"))
            cases[path], names[path] = case, case.patient
            stated[path] = {"velocity": velocity} if velocity else {}
            if listed in case.stated_views:
                stated[path]["views"] = (case.stated_views[listed],)
    if not found:
        fault = f"it has no patient in its split {args.split}"
        raise ManifestError(fault, file=args.source, remedy="name another --split")
    folder = Path(os.path.normpath(args.source.parent))
    if not all(path.is_relative_to(folder) for path in cases):
        folder = Path(os.path.commonpath([path.absolute().parent for path in cases]))
    return _Given(Folder(found), folder, cases, names, stated)


@dataclass(frozen=True)
class _Tables:
    """What is made of all scans together.

    Attributes:
        reports: Those asked for.
    """

    reports: tuple[Any, ...]

    @classmethod
    def asked_for(cls, args: argparse.Namespace, given: _Given, segmenter: str) -> _Tables:
        """Those that the options ask for; what they need is imported for them alone."""
        if not _asked(args):
            return cls(())
        from rbs.clinic.segmentation_reports import Measures, Page, Scores

        measures = Measures() if args.table else None
        reports: list[Report] = [Scores(given.cases)] if args.score else []
        if measures:
            reports.append(measures)
        if args.page:
            reports.append(Page(segmenter, measures))
        return cls(tuple(reports))

    def write(self, folder: Path) -> list[RegionSummary]:
        """Write them all; the summary of the scores."""
        summaries: list[RegionSummary] = []
        for report in self.reports:
            summaries = report.write(folder) or summaries
        return summaries


def _asked(args: argparse.Namespace) -> list[str]:
    """Options that make something of all scans together."""
    return [f"--{name}" for name in ("score", "table", "page") if getattr(args, name)]


def _refuse_tables(args: argparse.Namespace, given: _Given) -> None:
    """Refuse tables without a folder to stand in, or without the scans that exist.

    Raises:
        RbsError: OUT is a file, or --skip-existing is given.
    """
    from rbs.errors import RbsError

    asked = _asked(args)
    if asked and not (given.root or names_a_folder(args.target)):
        raise RbsError(f"{asked[0]} writes beside the label maps", remedy="name a folder as OUT")
    if asked and args.skip_existing:
        fault = f"--skip-existing would leave scans out of what {asked[0]} writes"
        raise RbsError(fault, remedy="leave one of the two out")


def _print_scores(summaries: list[RegionSummary], args: argparse.Namespace) -> None:
    if summaries and not args.json:
        print("region    patients  Dice (95 % interval)      95 % surface distance")
        for summary in summaries:
            print(summary)
