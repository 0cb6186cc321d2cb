"""Options several commands share."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rbs.scans.ranges import VELOCITY, Range
from rbs.utils.places import command_without_places

if TYPE_CHECKING:
    from rbs.errors import RbsError, ScanError

T = TypeVar("T")


def add_reading_options(parser: argparse.ArgumentParser, velocity: str | None = "--velocity") -> None:
    """Add --view, --energy-window and the velocity, for files that do not say.

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
        type=within(VELOCITY),
        metavar="CM_PER_MIN",
        help="bed velocity, for files that do not say",
    )


def add_standard_velocity(parser: argparse.ArgumentParser) -> None:
    """Add --standard-velocity."""
    parser.add_argument(
        "--standard-velocity",
        type=within(VELOCITY),
        default=20.0,
        metavar="CM_PER_MIN",
        help="bed velocity of your standard scans (default: %(default)g)",
    )


def add_segmenter_option(parser: argparse.ArgumentParser) -> None:
    """Add --segmenter, of scans."""
    parser.add_argument(
        "--segmenter",
        default="shipped",
        metavar="FILE",
        help="weights of a segmenter (default: shipped, those that come with rbs)",
    )


def add_split_options(parser: argparse.ArgumentParser) -> None:
    """Add --seed and --shares."""
    parser.add_argument(
        "--seed", type=int, default=0, help="decides who is in which split (default: %(default)s)"
    )
    parser.add_argument(
        "--shares",
        type=float,
        nargs=3,
        metavar=("TRAIN", "VAL", "TEST"),
        default=(70, 15, 15),
        help="per cent of patients, or of videos where no folder names splits (default: 70 15 15)",
    )


def add_evaluation_options(parser: argparse.ArgumentParser, output: str) -> None:
    """Add --preset, --split, --output and --overwrite.

    Args:
        parser: The command's.
        output: Default folder of the results.
    """
    parser.add_argument(
        "--preset",
        choices=("denoise", "deblur", "low-light", "x2", "mixed"),
        help="frames only: how clean frames are degraded; default: as in the training of the weights",
    )
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="test", help="default: %(default)s"
    )
    parser.add_argument(
        "--output", type=Path, default=Path(output), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the results in the output folder")


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


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json, which `print_result` obeys."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def print_result(args: argparse.Namespace, document: Any, text: str) -> None:
    """Print the result of a command: a JSON document where --json asks for it, otherwise text.

    Args:
        args: The command's.
        document: Built of mappings, sequences, dataclasses, tables, paths, text and numbers.
        text: The same for a reader.
    """
    from rbs.errors import printable

    print(as_json(document) if args.json else "\n".join(map(printable, text.split("\n"))))


def as_json(document: Any) -> str:
    """JSON that any reader takes: no NaN, and bytes of file names that are no text as escapes."""
    return json.dumps(_plain(document), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    """Plain types of JSON, which knows null but neither NaN nor infinity."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    elif hasattr(value, "to_dict"):  # a table
        value = value.to_dict(orient="records")
    elif hasattr(value, "tolist"):  # an array or one of its numbers
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    return str(value).encode(errors="backslashreplace").decode()


def option_group(parser: argparse.ArgumentParser, name: str) -> argparse._ArgumentGroup:
    """Group of options that have a meaning only with `name`; see `refuse_options`."""
    group = parser.add_argument_group(f"{name} only")
    parser.set_defaults(groups={**(parser.get_default("groups") or {}), name: group._group_actions})
    return group


def refuse_options(args: argparse.Namespace, name: str) -> None:
    """Refuse the options of a group where they have no meaning.

    Raises:
        RbsError: One of them was given.
    """
    from rbs.errors import RbsError

    for action in args.groups[name]:
        if getattr(args, action.dest) != action.default:
            raise RbsError(f"{action.option_strings[0]} is for {name} only", remedy="leave it out")


def command_line() -> str:
    """The command as it was typed, for the settings of results; without the places of files."""
    return command_without_places(["rbs", *sys.argv[1:]])


def positive(text: str) -> float:
    """A positive finite number; argparse reports anything else."""
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def within(possible: Range) -> Callable[[str], float]:
    """Type of an argument that is a number in a range; argparse reports anything else."""

    def number(text: str) -> float:
        value = float(text)
        if value not in possible:
            raise argparse.ArgumentTypeError(f"{text}: a {possible.name} is {possible}")
        return value

    return number


def whole_positive(text: str) -> int:
    """A whole number of at least 1; argparse reports anything else."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def reading_options(args: argparse.Namespace) -> dict[str, Any]:
    """Values of `add_reading_options`, as options of `rbs.scans.dicom.reader.read_nm`."""
    from rbs.scans.scan import View

    views = tuple(View(name) for name in args.view) if args.view else None
    return {"views": views, "energy_window": args.energy_window, "velocity": args.read_velocity}


def each_file(paths: Sequence[Path], work: Callable[[Path], T]) -> Iterator[tuple[Path, T | RbsError]]:
    """The result of work on each scan, or why there is none, which is also printed at once.

    Args:
        paths: DICOM files, and folders of them.
        work: What is to be done with a file.

    Yields:
        The file and its result; of a folder without scans the folder and the reason.
    """
    from rbs.errors import RbsError
    from rbs.scans.dicom.files import dicom_files
    from rbs.utils.guard import attempt

    for path in paths:
        files = attempt(path, dicom_files, path) if path.is_dir() else [path]
        found = (
            [(path, files)]
            if isinstance(files, RbsError)
            else ((file, attempt(file, work, file)) for file in files)
        )
        for file, result in found:
            if isinstance(result, RbsError):
                print(f"refused: {result}", file=sys.stderr)
            yield file, result


def refusals_error(refused: int, total: int) -> ScanError:
    """The error that ends a command some of whose files were refused."""
    from rbs.errors import ScanError

    one = total == 1
    return ScanError(
        "the file was refused" if one else f"{refused} of {total} files were refused",
        remedy="the reason stands above" if one else "the reasons stand above",
    )
