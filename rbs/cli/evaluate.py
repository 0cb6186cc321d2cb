"""`rbs evaluate`: every method and metric on one split of scans or frames, with ceilings and intervals."""

from __future__ import annotations

import argparse
from pathlib import Path

from rbs.cli.options import add_allow_option, add_frame_options

HELP = "score restorers and classical peers on the test scans or frames of a manifest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="CSV of the cases")
    parser.add_argument(
        "--stage1",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="restorer of stage 1, .safetensors or .ckpt; given again: others to compare it with",
    )
    parser.add_argument(
        "--stage2",
        type=Path,
        metavar="FILE",
        help="first restorer of stage 2; the second one is read from cascade.safetensors beside it",
    )
    parser.add_argument(
        "--teacher", type=Path, metavar="DIR", help="adapted teacher, for the second restorer of stage 2"
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
        help="scans only: a row more, stage 1 fitted to each scan's own counts",
    )
    parser.add_argument(
        "--keep-faint",
        action="store_true",
        help="scans only: a row more, stage 1 with faint foci kept",
    )
    add_frame_options(parser)
    parser.add_argument(
        "--segmenter",
        type=Path,
        metavar="DIR",
        help="frames only: adapted teacher that looks for lesions in clean, degraded and restored frames",
    )
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="test", help="default: %(default)s"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/evaluation"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--against",
        metavar="METHOD",
        help="compare all others with this row of the table; default: the best peer by each metric",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the results in the output folder")
    add_allow_option(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate and print the summary; an evaluation that was interrupted goes on where it stopped.

    Raises:
        RbsError: The manifest, a scan or a checkpoint cannot be used, or the output cannot be
            written.
    """
    import shlex
    import sys

    from rbs.evaluation.manifests import evaluate_manifest
    from rbs.evaluation.methods import trained_methods
    from rbs.report.tables import difference_tables, read_evaluation, set_table

    summary = evaluate_manifest(
        args.manifest,
        args.output,
        trained=trained_methods(
            args.stage1,
            args.stage2,
            args.teacher,
            args.base_checkpoint,
            adapt=args.adapt,
            keep_faint=args.keep_faint,
        ),
        preset=args.preset,
        segmenter=args.segmenter,
        base_checkpoint=args.base_checkpoint,
        against=args.against,
        split=args.split,
        command=shlex.join(["rbs", *sys.argv[1:]]),
        overwrite=args.overwrite,
    )
    table = summary.pivot(index="method", columns="metric", values="mean")
    order = summary["method"].drop_duplicates()
    print(table.loc[order, summary["metric"].drop_duplicates()].round(3).to_string(na_rep=""))
    found = read_evaluation(args.output)
    print(f"\nEach method minus the best peer, over {found.units} [95 % interval], p after Holm's correction")
    for shown in (*difference_tables(found), set_table(found)):
        if shown:
            print(shown.as_text())
    print(f"written to {args.output}; `rbs report {args.output} -o report.html` makes a page of it")
