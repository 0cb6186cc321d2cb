"""`rbs ablation`: train the missing runs of an ablation, score all, and compare."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from rbs.cli.options import add_fit_options, add_json, say

HELP = "train and compare variants of an experiment: SPI, SKD and SCM, or overlays of your own"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="CSV of the scans or frames")
    parser.add_argument(
        "--experiment",
        type=Path,
        default=Path("experiments/stage2.yaml"),
        metavar="FILE",
        help="the full method (default: %(default)s)",
    )
    parser.add_argument(
        "--rows",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="overlays, a row each (default: the eight combinations of SPI, SKD and SCM)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="default: 1 2 3")
    parser.add_argument("--stage1", type=Path, metavar="FILE", help="weights stage 2 starts from")
    parser.add_argument("--teacher", type=Path, metavar="DIR", help="adapted teacher")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="default: %(default)s")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/ablation"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--elsewhere",
        type=_named,
        nargs="+",
        default=[],
        metavar="NAME=MANIFEST",
        help="other scans or frames to score every run on, into OUTPUT/elsewhere/NAME",
    )
    add_json(parser)
    add_fit_options(parser)


def _named(text: str) -> tuple[str, Path]:
    name, equals, manifest = text.partition("=")
    if not (equals and manifest and re.fullmatch(r"[\w.-]*\w", name)):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=MANIFEST; a NAME is letters, digits, _ . -")
    return name, Path(manifest)


def run(args: argparse.Namespace) -> None:
    """Train, score and compare; an interrupted ablation resumes where it stopped.

    Raises:
        RbsError: A file cannot be used, trainings failed, or the output cannot be written.
    """
    from rbs.data.frames_manifest import FramesManifest, is_frames_manifest
    from rbs.data.manifest import Manifest
    from rbs.multirun.ablation.cases import cases_of
    from rbs.multirun.ablation.plan import Plan, chosen_rows
    from rbs.multirun.ablation.report import write_report
    from rbs.multirun.ablation.scores import score
    from rbs.multirun.ablation.train import train
    from rbs.multirun.runs import alone_in

    reader = FramesManifest if is_frames_manifest(args.manifest) else Manifest
    manifest = reader.read(args.manifest)
    scored = {args.output: manifest}
    for name, file in args.elsewhere:
        scored[args.output / "elsewhere" / name] = reader.read(file)
    plan = Plan(
        manifest,
        args.experiment,
        chosen_rows(args.rows),
        tuple(dict.fromkeys(args.seeds)),
        args.output,
        args.stage1,
        args.teacher,
        tuple(args.fit),
    )
    tables, texts = {}, []
    with alone_in(plan.output):
        runs = plan.runs()
        train(runs, plan, args.workers)
        for folder, other in scored.items():
            cases = cases_of(plan, runs, other, args.split)
            tables[folder], text = write_report(plan, runs, cases, score(plan, runs, cases, folder), folder)
            texts.append(text)
    say(args, tables, "\n".join([*texts, f"written to {plan.output}"]))
