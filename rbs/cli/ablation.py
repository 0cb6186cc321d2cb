"""`rbs ablation`: train the missing runs of an ablation, score all, and compare."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rbs.cli.options import add_fit_options, add_json, print_result
from rbs.utils.experiments import ablation_file
from rbs.weights.shipped import teacher_folder

if TYPE_CHECKING:
    from rbs.multirun.ablation.scores import Images

HELP = "train and compare variants of an experiment in several regimes, as a file of sweeps/ablations says"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "file",
        type=ablation_file,
        metavar="FILE",
        help="YAML file of regimes, rows and seeds, or the name of one of rbs, such as semantics",
    )
    parser.add_argument(
        "--manifest", type=Path, metavar="CSV", help="scans or frames, in place of those the file names"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[], metavar="N", help="in place of the file's"
    )
    parser.add_argument(
        "--stage1",
        metavar="FILE",
        help="weights that rows start from, in place of a stage 1 of their own: a path, in which {regime} and"
        " {seed} are filled in, or shipped",
    )
    parser.add_argument(
        "--teacher",
        type=teacher_folder,
        metavar="PATH",
        help="segmenter of the priors: a file, or folder of an adapted SAM",
    )
    parser.add_argument("--split", choices=("val", "test"), default="test", help="default: %(default)s")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of the trainings and tables (default: runs/ablation/NAME-OF-THE-FILE)",
    )
    parser.add_argument(
        "--elsewhere",
        type=_named,
        nargs="+",
        default=[],
        metavar="NAME=MANIFEST",
        help="other scans or frames to score every run on",
    )
    parser.add_argument(
        "--real",
        type=Path,
        nargs="+",
        default=[],
        metavar="SCAN",
        help="slow raw scans, DICOM files or folders, to score every run on, thinned to 40 cm/min",
    )
    add_json(parser)
    add_fit_options(parser)


def _named(text: str) -> tuple[str, Path]:
    name, equals, manifest = text.partition("=")
    if name in ("test", "val", "real"):
        raise argparse.ArgumentTypeError(f"'{name}' names scans of the ablation itself: choose another")
    if not (equals and manifest and re.fullmatch(r"[\w.-]*\w", name)):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=MANIFEST; a NAME is letters, digits, _ . -")
    return name, Path(manifest)


def run(args: argparse.Namespace) -> None:
    """Train, score and compare; an interrupted ablation resumes where it stopped.

    Raises:
        RbsError: A file cannot be used, trainings failed, or the output cannot be written.
    """
    import pandas as pd

    from rbs.multirun.ablation.curves import curves_of
    from rbs.multirun.ablation.definition import Ablation, read_cases
    from rbs.multirun.ablation.report import write_report
    from rbs.multirun.ablation.scores import images_of, score
    from rbs.multirun.ablation.verdicts import Results
    from rbs.multirun.runs import in_turn

    ablation = Ablation.read(
        args.file,
        args.output or Path("runs", "ablation", args.file.stem),
        manifest=args.manifest,
        seeds=args.seeds,
        stage1=args.stage1,
        teacher=args.teacher,
        arguments=args.fit,
    )
    other = {name: read_cases(file) for name, file in args.elsewhere}
    real = _real(args)
    runs = ablation.train(args.workers)
    if runs is None:
        print_result(
            args, None, "another process still trains some rows; the one that ends last writes the tables"
        )
        return
    with in_turn(ablation.output):
        elsewhere = [*(images_of(ablation, runs, name, m, args.split) for name, m in other.items()), *real]
        tables: list[pd.DataFrame] = []
        own: list[Images] = []
        for regime in ablation.regimes:
            cases = read_cases(regime.manifest)
            same = (images for images in own if images.file == regime.manifest)
            mine = next(same, None) or images_of(ablation, runs, args.split, cases, args.split)
            own.append(mine)
            tables.append(score(ablation, runs, [mine, *elsewhere], regime.name))
        results = Results(runs, (own[0], *elsewhere), pd.concat(tables), curves_of(ablation, runs))
        table, text = write_report(ablation, results)
    print_result(args, table, f"{text}\nwritten to {ablation.output}")


def _real(args: argparse.Namespace) -> list[Images]:
    """The set of real scans, where any are given.

    Raises:
        ScanError: One of them cannot be used; each is named on standard error first.
    """
    if not args.real:
        return []
    from rbs.cli.options import refusals_error
    from rbs.evaluation.real.scans import read_scans
    from rbs.multirun.ablation.scores import REAL_SPEED, real_images

    scans, refused = read_scans(args.real, [REAL_SPEED])
    for error in refused:
        print(f"refused: {error}", file=sys.stderr)
    if refused:
        raise refusals_error(len(refused), len(scans) + len(refused))
    return [real_images(scans)]
