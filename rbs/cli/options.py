"""Options several commands share."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rbs.errors import ScanError


def add_reading_options(parser: argparse.ArgumentParser, velocity: str | None = "--velocity") -> None:
    """Add what a file may leave unsaid: --view, --energy-window and the velocity, under the name given.

    Args:
        parser: The command's.
        velocity: Name of the option; None for commands that need no velocity.
    """
    parser.add_argument(
        "--view",
        action="append",
        choices=("anterior", "posterior"),
        help="view of a frame, for files that do not say; give it once a frame, in frame order",
    )
    parser.add_argument(
        "--energy-window", type=int, metavar="N", help="energy window, counted from 1, for files with several"
    )
    if velocity is None:
        parser.set_defaults(read_velocity=None)
        return
    parser.add_argument(
        velocity,
        dest="read_velocity",
        type=positive,
        metavar="CM_PER_MIN",
        help="bed velocity, for files that do not say",
    )


def add_standard_velocity(parser: argparse.ArgumentParser) -> None:
    """Add --standard-velocity."""
    parser.add_argument(
        "--standard-velocity",
        type=positive,
        default=20.0,
        metavar="CM_PER_MIN",
        help="bed velocity of your standard scans (default: %(default)g)",
    )


def add_split_options(parser: argparse.ArgumentParser, units: str, where: str = "") -> None:
    """Add --seed and --shares.

    Args:
        parser: The command's.
        units: What is dealt to splits.
        where: When they are.
    """
    parser.add_argument(
        "--seed", type=int, default=0, help=f"decides which {units} are in which split (default: %(default)s)"
    )
    parser.add_argument(
        "--shares",
        type=float,
        nargs=3,
        metavar=("TRAIN", "VAL", "TEST"),
        default=(70, 15, 15),
        help=f"per cent of {units} in each split{where} (default: 70 15 15)",
    )


def add_frame_options(parser: argparse.ArgumentParser) -> None:
    """Add --preset."""
    parser.add_argument(
        "--preset",
        choices=("denoise", "deblur", "low-light", "x2", "mixed"),
        help="frames only: how clean frames are degraded; default: as in the training of the weights",
    )


def add_fit_options(parser: argparse.ArgumentParser) -> None:
    """Add --workers, --allow and --fit, for commands that train."""
    parser.add_argument(
        "--workers",
        type=whole_positive,
        default=1,
        metavar="N",
        help="trainings at a time (default: %(default)s)",
    )
    add_allow_option(parser)
    parser.add_argument(
        "--fit",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="ARGUMENT",
        help="all that follows goes to `rbs fit` of every training: --fit --wandb disabled",
    )


def add_allow_option(parser: argparse.ArgumentParser) -> None:
    """Add --allow, for commands that read weights; it takes effect while arguments are parsed."""
    parser.add_argument(
        "--allow",
        action=_Allow,
        metavar="PACKAGE",
        help="package of your own whose classes weight files may name; give it once a package",
    )


def take_allowed(arguments: list[str]) -> list[str]:
    """Arguments of a training without `--allow`, which takes effect and is not saved with them."""
    parser = argparse.ArgumentParser(prog=f"rbs {arguments[0]}", add_help=False, allow_abbrev=False)
    add_allow_option(parser)
    return parser.parse_known_args(arguments)[1]


class _Allow(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        from rbs.utils.allowlist import allow

        allow(values)


def positive(text: str) -> float:
    """A positive finite number; argparse reports anything else."""
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def whole_positive(text: str) -> int:
    """A whole number of at least 1; argparse reports anything else."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def reading_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_reading_options` was given, as options of `rbs.scans.dicom.reader.read_nm`."""
    from rbs.scans.scan import View

    views = tuple(View(name) for name in args.view) if args.view else None
    return {"views": views, "energy_window": args.energy_window, "velocity": args.read_velocity}


def refusals_error(refused: int, total: int) -> ScanError:
    """The error that ends a command some of whose files were refused."""
    from rbs.errors import ScanError

    one = total == 1
    return ScanError(
        "the file was refused" if one else f"{refused} of {total} files were refused",
        remedy="the reason stands above" if one else "the reasons stand above",
    )
