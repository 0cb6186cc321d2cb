"""`rbs restore`: scans (DICOM), pictures and videos; a file or a folder to another."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rbs.cli.options import add_reading_options, add_standard_velocity, reading_options, refusals_error

if TYPE_CHECKING:
    from rbs.clinic.restore_scans import Loaded
    from rbs.endoscopy.media_type import Kind
    from rbs.errors import RbsError
    from rbs.restorers.uncertainty import Uncertainty

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
        "target", metavar="OUT", help="file to write, or folder (ending in /) that gets the names found in IN"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help=".safetensors or .ckpt, or for scans .onnx, which starts sooner (default: the weights of rbs,"
        " for scans; there are none for colour)",
    )
    parser.add_argument(
        "--adapt",
        action="store_true",
        help="scans only: fit the restorer to each scan's own counts first, about a minute a scan",
    )
    parser.add_argument(
        "--keep-faint",
        action="store_true",
        help="scans only: put half of what was taken for noise back, at the camera's blur: noisier, and faint"
        " foci are easier to tell",
    )
    parser.add_argument(
        "--uncertainty",
        action="store_true",
        help="scans only: beside every restored file its standard deviation, NAME_sd; by the head that lies"
        " beside the weights, restorer_uncertainty.safetensors of f1",
    )
    add_reading_options(parser)
    add_standard_velocity(parser)


def run(args: argparse.Namespace) -> None:
    """Restore a file or a folder, a line each.

    Raises:
        RbsError: IN was refused, or some file in it; each is named on standard error first. Or a
            video ends early or is damaged: what can be seen of it is restored all the same.
        CheckpointError: The weights do not fit.
        OutputError: The output exists or cannot be written.
    """
    from tqdm import tqdm

    source: Path = args.source
    kind, outputs, skipped = _work(source, args.target, args.uncertainty)
    failed: list[RbsError] = []
    # A single file needs no bar, and a video has one of its own.
    quiet = True if kind == "video" or not source.is_dir() else None
    with tqdm(total=len(outputs), unit=kind, disable=quiet) as bar:
        for line, error in _outcomes(kind, outputs, args):
            bar.update()
            if line:
                tqdm.write(line)
            if error:
                failed.append(error)
    for path in skipped:
        print(f"skipped: {path} was restored by rbs already", file=sys.stderr)
    if failed and not source.is_dir():
        raise failed[0]
    for error in failed:
        print(f"refused: {error}", file=sys.stderr)
    if failed:
        raise refusals_error(len(failed), len(outputs))


def _work(source: Path, out: str, uncertainty: bool) -> tuple[Kind, dict[Path, Path], list[Path]]:
    """What is to be restored and where to, and what is left alone because rbs made it."""
    from rbs.endoscopy.media_type import kind_of, pictures_or_videos
    from rbs.errors import OutputError, ScanError
    from rbs.scans.dicom.files import dicom_files

    target = Path(out)
    if not source.exists():
        raise ScanError("there is no such file or folder", file=source, remedy="check the path")
    if not source.is_dir():
        kind = kind_of(source) or "scan"  # the reader of scans says best what an unknown file is not
        inside = target.is_dir() or out.endswith("/")
        return kind, {source: target / _name(source, kind) if inside else target}, []
    if target.is_file():
        raise OutputError("it is a file, but IN is a folder", file=target, remedy="name a folder")
    try:
        kind, files = pictures_or_videos(source) or ("scan", dicom_files(source))
    except ScanError as error:
        fault = "there is no scan (DICOM), picture or video in this folder"
        raise ScanError(fault, file=source, remedy="check the path") from error
    skipped = [path for path in files if _is_restored(path, kind)]
    outputs = {
        path: target / path.relative_to(source).with_name(_name(path, kind))
        for path in files
        if path not in skipped
    }
    if not outputs:
        raise ScanError(f"it holds only restored {kind}s", file=source, remedy="name the originals")
    sources: dict[Path, Path] = {}
    for path, output in outputs.items():
        for what, made in _made(output, uncertainty).items():
            if (first := sources.setdefault(made, path)) != path:
                fault = f"its {what} would be called {made.name}, as that of {first.name}"
                raise OutputError(fault, file=path, remedy="rename one of the two")
    return kind, outputs, skipped


def _made(output: Path, uncertainty: bool) -> dict[str, Path]:
    """All that is written for one file."""
    if not uncertainty:
        return {"restoration": output}
    from rbs.clinic.restore_scans import deviation_file

    return {"restoration": output, "standard deviation": deviation_file(output)}


def _name(path: Path, kind: Kind) -> str:
    """What the restoration of a file in a folder is called."""
    if kind == "scan":
        return path.name
    from rbs.clinic.restore_frames import output_name

    return output_name(path, kind)


def _is_restored(path: Path, kind: Kind) -> bool:
    if kind == "scan":
        from rbs.scans.dicom.files import is_restored as is_restored_scan

        return is_restored_scan(path)
    from rbs.clinic.restore_frames import is_restored

    return is_restored(path, kind)


def _outcomes(
    kind: Kind, outputs: Mapping[Path, Path], args: argparse.Namespace
) -> Iterator[tuple[str | None, RbsError | None]]:
    """Restore: of each file what was done, and what was not."""
    from rbs.clinic.outcomes import Refused
    from rbs.errors import CheckpointError, RbsError

    if kind != "scan" and args.checkpoint is None:
        raise CheckpointError(
            f"no weights for {kind}s come with rbs",
            remedy="train some with `make train-stage1 DATA=endoscopy` and name them with --checkpoint",
        )
    if kind != "scan" and args.adapt:
        raise RbsError(f"--adapt deals counts, and {kind}s have none", remedy="leave it out")
    if kind != "scan" and args.uncertainty:
        raise RbsError(f"--uncertainty is stated in counts, and {kind}s have none", remedy="leave it out")
    if kind != "scan" and args.keep_faint:
        raise RbsError(f"--keep-faint weighs counts, and {kind}s have none", remedy="leave it out")
    if args.adapt and args.uncertainty:
        raise RbsError(
            "--uncertainty speaks for the weights as they are, and --adapt changes them for every scan",
            remedy="leave one of the two out",
        )
    if args.keep_faint and args.uncertainty:
        raise RbsError(
            "--uncertainty speaks for what the weights restore, and --keep-faint adds noise to that",
            remedy="leave one of the two out",
        )
    if kind == "scan":
        from rbs.clinic.restore_scans import restore_files as restore_scans

        restorer, uncertainty = _restorer_of_scans(args)
        scans = restore_scans(
            outputs,
            restorer,
            uncertainty=uncertainty,
            reading=reading_options(args),
            standard_velocity=args.standard_velocity,
            keep_faint=args.keep_faint,
        )
        for scan in scans:
            yield (None, scan.error) if isinstance(scan, Refused) else (str(scan), None)
    else:
        from rbs.clinic.restore_frames import restore_files as restore_frames
        from rbs.restorers.checkpoint import load_restorer

        for done in restore_frames(outputs, kind, load_restorer(args.checkpoint)):
            yield (None if isinstance(done, Refused) else str(done)), done.error


def _restorer_of_scans(args: argparse.Namespace) -> tuple[Loaded, Uncertainty | None]:
    """The weights, and what states their uncertainty; no PyTorch where nothing looks into the network."""
    from rbs.errors import RbsError

    exported = args.checkpoint is not None and args.checkpoint.suffix == ".onnx"
    looks_inside = "--adapt" if args.adapt else "--uncertainty" if args.uncertainty else None
    if exported and looks_inside:
        fault = f"{looks_inside} looks into the network, which an ONNX file does not allow"
        raise RbsError(fault, remedy="name the weights it was exported from")
    if exported or (args.checkpoint is None and not looks_inside):
        from rbs.inference.onnx import load_onnx, load_shipped

        return load_onnx(args.checkpoint) if exported else load_shipped(), None
    from rbs.restorers.checkpoint import load_restorer
    from rbs.weights.shipped import SHIPPED

    loaded = load_restorer(args.checkpoint)
    if args.uncertainty:
        from rbs.restorers.uncertainty import head_file, load_uncertainty

        return loaded, load_uncertainty(loaded, head_file(args.checkpoint or SHIPPED))
    if args.adapt:
        from rbs.inference.test_time_adaptation import AdaptingRestorer

        return AdaptingRestorer.of(loaded), None
    return loaded, None
