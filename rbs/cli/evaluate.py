"""`rbs evaluate`: every method and metric on one split of scans or frames, with intervals."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rbs.cli.options import (
    add_allow_option,
    add_evaluation_options,
    add_json,
    command_line,
    option_group,
    print_result,
    refuse_options,
)
from rbs.weights.shipped import teacher_folder, weights_path

if TYPE_CHECKING:
    import pandas as pd

    from rbs.report.tables import Evaluation

HELP = "score restorers and classical peers on the test scans or frames of a manifest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="CSV of the cases")
    parser.add_argument(
        "--stage1",
        type=weights_path,
        action="append",
        default=[],
        metavar="FILE",
        help="restorer of stage 1, .safetensors, .ckpt or, for scans, .onnx; given again: others to compare",
    )
    parser.add_argument(
        "--stage2",
        type=Path,
        metavar="FILE",
        help="first restorer of stage 2; the second one is read from cascade.safetensors beside it",
    )
    parser.add_argument(
        "--teacher",
        type=teacher_folder,
        metavar="PATH",
        help="segmenter that gives stage 2's second restorer its priors: a file, or folder of an adapted SAM",
    )
    parser.add_argument(
        "--base-checkpoint",
        type=Path,
        metavar="FILE",
        help="SAM's base weights that the teacher was adapted from; default: the shipped or downloaded ones",
    )
    parser.add_argument(
        "--adapt",
        action="store_true",
        help="scans only: a row more, stage 1 fitted to each scan's counts",
    )
    parser.add_argument(
        "--strengths", action="store_true", help="scans only: a row more of stage 1 at each strength"
    )
    parser.add_argument(
        "--segmenter",
        type=Path,
        metavar="PATH",
        help="frames only: segmenter, or adapted SAM, that looks for lesions in clean, degraded and restored"
        " frames",
    )
    parser.add_argument(
        "--against",
        metavar="METHOD",
        help="compare all others with this row of the table; default: the best peer by each metric",
    )
    add_evaluation_options(parser, "runs/evaluation")
    add_json(parser)
    add_allow_option(parser)
    parser.add_argument(
        "--observers",
        action="store_true",
        help="scans only: also let model observers look for foci, and measure noise, sharpness, growth "
        "plates and consistency of the same methods, into OUTPUT/observers",
    )
    observers = option_group(parser, "--observers")
    observers.add_argument(
        "--uncertainty",
        action="store_true",
        help="test the standard deviation stated by the head beside the weights of stage 1, too",
    )
    observers.add_argument(
        "--children",
        type=int,
        default=6,
        metavar="N",
        help="phantoms that are drawn many times over (default: %(default)s)",
    )
    observers.add_argument(
        "--draws",
        type=int,
        default=16,
        metavar="K",
        help="draws of each of them, a multiple of 4 from 8 on (default: %(default)s)",
    )
    observers.add_argument("--seed", type=int, default=1, help="of all draws (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Evaluate and print the summary; an interrupted evaluation resumes where it stopped.

    Raises:
        RbsError: The manifest, a scan or a checkpoint cannot be used, or the output cannot be
            written.
    """
    from rbs.data.frames_manifest import is_frames_manifest
    from rbs.errors import RbsError
    from rbs.evaluation.manifests import evaluate_manifest
    from rbs.evaluation.methods import trained_methods
    from rbs.evaluation.run import interrupted_after
    from rbs.report.tables import read_evaluation

    if not args.observers:
        refuse_options(args, "--observers")
    elif is_frames_manifest(args.manifest):
        fault = "--observers look for foci in scans, and it lists frames"
        raise RbsError(fault, file=args.manifest, remedy="leave it out")
    weights = args.stage1, args.stage2, args.teacher, args.base_checkpoint
    trained = trained_methods(
        *weights, adapt=args.adapt, strengths=args.strengths, uncertainty=args.uncertainty
    )
    command, observers = command_line(), args.output / "observers"
    if not (args.observers and interrupted_after(args.output, observers, args.manifest, trained, command)):
        evaluate_manifest(
            args.manifest,
            args.output,
            trained=trained,
            preset=args.preset,
            segmenter=args.segmenter,
            base_checkpoint=args.base_checkpoint,
            against=args.against,
            split=args.split,
            command=command,
            overwrite=args.overwrite,
        )
    found = read_evaluation(args.output)
    document = {
        "output": args.output,
        "summary": found.summary,
        "differences": found.differences,
        "sets": found.sets,
    }
    text = _text(found)
    if args.observers:
        from rbs.data.manifest import Manifest
        from rbs.evaluation.observers.assess import assess, printed_table

        assessment = assess(
            Manifest.read(args.manifest),
            observers,
            trained,
            children=args.children,
            draws=args.draws,
            split=args.split,
            seed=args.seed,
            command=command,
            overwrite=args.overwrite,
        )
        document["observers"] = assessment
        text += f"\n{printed_table(assessment)}\n"
    link = f"`rbs report {args.output} -o report.html` makes a page of it"
    print_result(args, document, f"{text}\nwritten to {args.output}; {link}")


def _text(found: Evaluation) -> str:
    from rbs.report.tables import difference_tables, set_table

    tables = [table.as_text() for table in (*difference_tables(found), set_table(found)) if table]
    head = f"Each method minus the best peer, over {found.units} [95 % interval], p after Holm's correction"
    return "\n".join([_means(found.summary), "", head, *tables])


def _means(summary: pd.DataFrame) -> str:
    """The summary as a table: a row a method, a column a metric."""
    table = summary.pivot(index="method", columns="metric", values="mean")
    order = summary["method"].drop_duplicates()
    return table.loc[order, summary["metric"].drop_duplicates()].round(3).to_string(na_rep="")
