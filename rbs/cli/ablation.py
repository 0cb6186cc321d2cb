"""`rbs ablation`: train the missing runs of an ablation, score all, and compare."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from rbs.cli.options import add_fit_options, add_json, print_result
from rbs.utils.experiments import experiment_file
from rbs.weights.shipped import teacher_folder, weights_path

HELP = "train and compare variants of an experiment: SPI, SKD and SCM, or overlays of your own"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="CSV of the scans or frames")
    parser.add_argument(
        "--experiment",
        type=experiment_file,
        default="stage2",
        metavar="FILE",
        help="the method whose variants are compared: a file, or the name of an experiment of rbs"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--rows",
        type=experiment_file,
        nargs="+",
        default=[],
        metavar="FILE",
        help="overlays, a row each: files, or names such as ablations/no_spi (default: the eight combinations"
        " of SPI, SKD and SCM)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="default: 1 2 3")
    parser.add_argument(
        "--stage1",
        type=weights_path,
        metavar="FILE",
        help="weights that stage 2 starts from, or shipped",
    )
    parser.add_argument(
        "--teacher",
        type=teacher_folder,
        metavar="PATH",
        help="segmenter of the priors: a file, or folder of an adapted SAM",
    )
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
    from rbs.multirun.ablation.definition import Ablation
    from rbs.multirun.ablation.report import write_report
    from rbs.multirun.ablation.scores import score, split_of
    from rbs.multirun.runs import in_turn

    reader = FramesManifest if is_frames_manifest(args.manifest) else Manifest
    manifest = reader.read(args.manifest)
    scored = {args.output: manifest}
    for name, file in args.elsewhere:
        scored[args.output / "elsewhere" / name] = reader.read(file)
    ablation = Ablation(
        manifest,
        args.experiment,
        tuple(args.rows),
        tuple(dict.fromkeys(args.seeds)),
        args.output,
        args.stage1,
        args.teacher,
        tuple(args.fit),
    )
    runs = ablation.train(args.workers)
    if runs is None:
        print_result(
            args, None, "another process still trains some rows; the one that ends last writes the tables"
        )
        return
    tables, texts = {}, []
    with in_turn(args.output):
        for folder, other in scored.items():
            split = split_of(ablation, runs, other, args.split)
            scores = score(ablation, runs, split, folder)
            tables[folder], text = write_report(ablation, runs, split, scores, folder)
            texts.append(text)
    print_result(args, tables, "\n".join([*texts, f"written to {args.output}"]))
