"""`rbs assess`: foci, growth plates, observers, noise, sharpness and consistency of a restorer."""

from __future__ import annotations

import argparse
from pathlib import Path

from rbs.cli.options import add_allow_option

HELP = "ask of a restorer what a physicist would: foci, observers, noise, sharpness, consistency"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="CSV of the cases")
    parser.add_argument(
        "--stage1",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="the restorer, .safetensors or .ckpt; given again: others to compare it with",
    )
    parser.add_argument(
        "--keep-faint", action="store_true", help="a method more: the restorer with faint foci kept"
    )
    parser.add_argument(
        "--uncertainty",
        action="store_true",
        help="also ask whether the deviation is true that the head beside the weights states",
    )
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="test", help="default: %(default)s"
    )
    parser.add_argument(
        "--children",
        type=int,
        default=6,
        metavar="N",
        help="phantoms that are drawn many times over (default: %(default)s)",
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=16,
        metavar="K",
        help="how often each of them, a multiple of 4 from 8 on (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of all draws (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/assessment"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the results in the output folder")
    add_allow_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run all studies and print the table; what was interrupted goes on where it stopped.

    Raises:
        RbsError: The manifest, a scan or a checkpoint cannot be used, or the output cannot be
            written.
    """
    import shlex
    import sys

    from rbs.data.manifest import Manifest
    from rbs.evaluation.methods import trained_methods
    from rbs.evaluation.observers.assess import assess, printed_table

    summary = assess(
        Manifest.read(args.manifest),
        args.output,
        trained_methods(args.stage1, keep_faint=args.keep_faint, uncertainty=args.uncertainty),
        children=args.children,
        draws=args.draws,
        split=args.split,
        seed=args.seed,
        command=shlex.join(["rbs", *sys.argv[1:]]),
        overwrite=args.overwrite,
    )
    print(printed_table(summary))
    print(f"written to {args.output}")
