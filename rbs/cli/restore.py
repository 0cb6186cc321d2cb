"""`rbs restore`: scans (DICOM), pictures and videos; a file or a folder to another."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rbs.cli.file_by_file import add_file_options, plan, process, summarise
from rbs.cli.options import (
    add_allow_option,
    add_reading_options,
    add_standard_velocity,
    reading_options,
)
from rbs.errors import printable
from rbs.inference.devices import DEVICES
from rbs.inference.strengths import DEFAULT, Strength
from rbs.weights.shipped import NAME, weights_path

if TYPE_CHECKING:
    from rbs.clinic.outcomes import FileRestorer

HELP = "restore rapid scans (DICOM in, DICOM out), endoscopic pictures and videos (research use only)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "source",
        type=Path,
        metavar="IN",
        help="DICOM file, picture or video, or folder of one of these kinds (with those below it)",
    )
    parser.add_argument(
        "target",
        metavar="OUT",
        help="file to write, or folder (no suffix, or ending in /) that gets the names found in IN",
    )
    parser.add_argument(
        "--checkpoint",
        default=NAME,
        metavar="FILE",
        help=".safetensors or .ckpt, or for scans .onnx, which starts sooner (default: shipped, the"
        " weights that come with rbs, for scans only)",
    )
    parser.add_argument(
        "--scale",
        type=int,
        choices=(1, 2),
        help="scans only: 2 restores scans of coarse pixels, such as 128 columns, to twice as many rows and"
        " columns, by weights of their own",
    )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        help="device that the network computes on (default: cpu for scans, auto for pictures and videos)",
    )
    parser.add_argument(
        "--adapt",
        action="store_true",
        help="scans only: fit the restorer to each scan's own counts first, where counts that are held out"
        " say that it helps",
    )
    parser.add_argument(
        "--fits",
        type=Path,
        metavar="DIR",
        help="with --adapt: keep the first fit to a scan of each camera in this folder, and use it for the"
        " camera's other scans where their held-out counts say that it helps",
    )
    parser.add_argument(
        "--strength",
        choices=tuple(Strength),
        help="scans only: gentle keeps faint foci easiest to tell and most noise, strong is the quietest"
        f" (default: {DEFAULT})",
    )
    parser.add_argument(
        "--uncertainty",
        action="store_true",
        help="scans only: beside every restored file its standard deviation, NAME_sd; by the head that lies"
        " beside the weights, NAME_uncertainty.safetensors",
    )
    add_file_options(parser)
    add_reading_options(parser)
    add_standard_velocity(parser)
    add_allow_option(parser)


def run(args: argparse.Namespace) -> None:
    """Restore a file or a folder, a line each.

    Raises:
        RbsError: IN was refused, or some file in it; each is named on standard error first. Or a
            video ends early or is damaged: what can be seen of it is restored all the same.
        CheckpointError: The weights do not fit.
        OutputError: The output exists or cannot be written.
    """
    from rbs.clinic.sources import Folder, source_of, sources_in

    root = args.source if args.source.is_dir() else None
    found = sources_in(args.source) if root else Folder([source_of(args.source)])
    if found.passed_over:
        print(printable(f"passed over: {found}"), file=sys.stderr)
    kind = found.sources[0].kind
    restorer = _restorer(kind, args)
    outputs, skipped = plan(found.sources, args, restorer, root)
    existing = [source for source in found.sources if not source.restored and source not in outputs]
    # A single file needs no bar, and a video has one of its own.
    quiet = True if kind == "video" or not root else None
    work = restorer.restore(outputs, existing)
    done = process(work, skipped, args, root, total=len(outputs), unit=kind, quiet=quiet)
    summarise(done, args, root, word="restored", passed_over=found.passed_over)


def _restorer(kind: str, args: argparse.Namespace) -> FileRestorer:
    """The one place where the kind of the files decides: how they are restored.

    Raises:
        RbsError: An option does not go with the kind, or with another option.
        CheckpointError: The weights do not fit.
    """
    from rbs.errors import CheckpointError, RbsError

    if kind == "scan":
        return _restorer_of_scans(args)
    if args.checkpoint == NAME:
        raise CheckpointError(
            f"no weights for {kind}s come with rbs",
            remedy="train some with `make train-stage1 DATA=endoscopy` and name them with --checkpoint",
        )
    for option in ("adapt", "fits", "uncertainty", "strength", "scale"):
        if getattr(args, option):
            fault = f"--{option.replace('_', '-')} works on counts, and {kind}s have none"
            raise RbsError(fault, remedy="leave it out")
    from rbs.clinic.restore_frames import FrameRestorer
    from rbs.inference.devices import torch_device
    from rbs.restorers.checkpoint import load_restorer

    loaded = load_restorer(args.checkpoint)
    loaded.restorer.to(torch_device(args.device or "auto"))
    return FrameRestorer(loaded, kind)


def _restorer_of_scans(args: argparse.Namespace) -> FileRestorer:
    """The weights with what was asked for; no PyTorch where nothing looks into the network."""
    from rbs.clinic.restore_scans import ScanRestorer
    from rbs.errors import RbsError
    from rbs.inference.load import load_for_scans

    if args.uncertainty and args.adapt:
        fault = "--uncertainty is that of the weights' own answer, which --adapt changes"
        raise RbsError(fault, remedy="leave one of the two out")
    if args.fits and not args.adapt:
        raise RbsError("--fits keeps what --adapt finds", remedy="add --adapt, or leave --fits out")
    loaded = load_for_scans(
        args.checkpoint,
        adapt=args.adapt,
        fits=args.fits,
        uncertainty=args.uncertainty,
        device=args.device or "cpu",
        scale=args.scale or 1,
    )
    uncertainty = None
    if args.uncertainty:
        from rbs.restorers.uncertainty import head_file, load_uncertainty

        uncertainty = load_uncertainty(loaded, head_file(weights_path(args.checkpoint)))  # type: ignore[arg-type]
    strength = Strength(args.strength or DEFAULT)
    return ScanRestorer(loaded, uncertainty, reading_options(args), args.standard_velocity, strength)
