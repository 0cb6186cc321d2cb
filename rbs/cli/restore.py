"""`rbs restore`: scans (DICOM), pictures and videos; a file or a folder to another."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbs.cli.options import (
    add_allow_option,
    add_reading_options,
    add_standard_velocity,
    print_result,
    reading_options,
    refusals_error,
)
from rbs.errors import printable
from rbs.inference.devices import DEVICES
from rbs.weights.shipped import SHIPPED, weights_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbs.clinic.outcomes import FileRestorer, Outcome, Refusal, Skip
    from rbs.clinic.sources import Folder, Source
    from rbs.errors import RbsError

HELP = "restore rapid scans (DICOM in, DICOM out), endoscopic pictures and videos (research use only)"

HAS_OUTPUT = "has its output already"


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
        type=weights_path,
        default="shipped",
        metavar="FILE",
        help=".safetensors or .ckpt, or for scans .onnx, which starts sooner (default: shipped, the"
        " weights that come with rbs, for scans only)",
    )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        help="device that the network computes on (default: cpu for scans, auto for pictures and videos)",
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
        " beside the weights, NAME_uncertainty.safetensors",
    )
    parser.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave files alone whose output exists, so that a folder can be run again",
    )
    parser.add_argument(
        "--log-file",
        type=Path,
        metavar="FILE",
        help="append a line a file: time, name below IN, outcome; nothing of the patients but that name",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document of all outcomes instead")
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
    from itertools import chain

    from tqdm import tqdm

    from rbs.clinic.sources import Folder, source_of, sources_in
    from rbs.errors import DiskFullError

    is_folder = args.source.is_dir()
    found = sources_in(args.source) if is_folder else Folder([source_of(args.source)])
    if found.passed_over:
        print(printable(f"passed over: {found}"), file=sys.stderr)
    kind = found.sources[0].kind
    restorer = _restorer(kind, args)
    outputs, skipped = _plan(found.sources, args, restorer, is_folder)
    existing = [source for source in found.sources if not source.restored and source not in outputs]
    outcomes: list[Outcome] = []
    full = None
    # A single file needs no bar, and a video has one of its own.
    quiet = True if kind == "video" or not is_folder else None
    with _Log(args.log_file, args.source) as log, tqdm(total=len(outputs), unit=kind, disable=quiet) as bar:
        try:
            for outcome in chain(skipped, restorer.restore(outputs, existing)):
                outcomes.append(outcome)
                log.write(outcome)
                if outcome.outcome != "skipped":
                    bar.update()
                if outcome.outcome == "restored" and not args.json:
                    tqdm.write(str(outcome))
        except DiskFullError as error:  # the files that follow would meet the same
            full = error
    _summarise(outcomes, args, found, full)


def _restorer(kind: str, args: argparse.Namespace) -> FileRestorer:
    """The one place where the kind of the files decides: how they are restored.

    Raises:
        RbsError: An option does not go with the kind, or with another option.
        CheckpointError: The weights do not fit.
    """
    from rbs.errors import CheckpointError, RbsError

    if kind == "scan":
        return _restorer_of_scans(args)
    if args.checkpoint == SHIPPED:
        raise CheckpointError(
            f"no weights for {kind}s come with rbs",
            remedy="train some with `make train-stage1 DATA=endoscopy` and name them with --checkpoint",
        )
    for option in ("adapt", "uncertainty", "keep_faint"):
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

    changed = "--adapt" if args.adapt else "--keep-faint" if args.keep_faint else None
    if args.uncertainty and changed:
        fault = f"--uncertainty is that of the weights' own answer, which {changed} changes"
        raise RbsError(fault, remedy="leave one of the two out")
    adapt, uncertain = bool(args.adapt), bool(args.uncertainty)
    loaded = load_for_scans(args.checkpoint, adapt=adapt, uncertainty=uncertain, device=args.device or "cpu")
    uncertainty = None
    if uncertain:
        from rbs.restorers.uncertainty import head_file, load_uncertainty

        uncertainty = load_uncertainty(loaded, head_file(args.checkpoint))  # type: ignore[arg-type]
    return ScanRestorer(
        loaded, uncertainty, reading_options(args), args.standard_velocity, keep_faint=args.keep_faint
    )


def _plan(
    sources: Sequence[Source], args: argparse.Namespace, restorer: FileRestorer, is_folder: bool
) -> tuple[dict[Source, Path], list[Skip | Refusal]]:
    """The output of each file, and the outcome of those that have none."""
    from rbs.clinic.outcomes import Refusal, Skip
    from rbs.errors import OutputError, ScanError

    target = Path(args.target)
    if is_folder and target.is_file():
        raise OutputError("it is a file, but IN is a folder", file=target, remedy="name a folder")
    if is_folder:
        skipped = [Skip(s.path, "was restored by rbs already") for s in sources if s.restored]
        outputs = {
            s: target / s.path.relative_to(args.source).with_name(restorer.output_name(s.path))
            for s in sources
            if not s.restored
        }
        if not outputs:
            fault = f"it holds only restored {sources[0].kind}s"
            raise ScanError(fault, file=args.source, remedy="name the originals")
    else:
        skipped = []
        inside = target.is_dir() or args.target.endswith("/") or not (target.suffix or target.exists())
        outputs = {s: target / restorer.output_name(s.path) if inside else target for s in sources}
    passed: list[Skip | Refusal] = [*skipped]
    first: dict[Path, Path] = {}
    for source, output in list(outputs.items()):
        for part, file in restorer.outputs(output).items():
            if (other := first.setdefault(file, source.path)) != source.path:
                fault = f"its {part} would be called {file.name}, as that of {other.name}"
                error = OutputError(fault, file=source.path, remedy="rename one of the two")
                passed.append(Refusal(source.path, error))
                outputs.pop(source, None)
    if args.skip_existing:
        for source, output in list(outputs.items()):
            if all(file.exists() for file in restorer.outputs(output).values()):
                passed.append(Skip(source.path, HAS_OUTPUT))
                del outputs[source]
    return outputs, passed


class _Log:
    """The file of --log-file, to which a line a file is appended; none without that option."""

    def __init__(self, path: Path | None, source: Path) -> None:
        self.path, self.source = path, source

    def __enter__(self) -> _Log:
        from rbs.errors import OutputError

        try:
            self.file = self.path and self.path.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            fault = f"it cannot be written ({error.strerror})"
            raise OutputError(fault, file=self.path, remedy="name another --log-file") from error
        return self

    def __exit__(self, *_: object) -> None:
        from contextlib import suppress

        if self.file:
            with suppress(OSError):  # every line was flushed, or its failure told
                self.file.close()

    def write(self, outcome: Outcome) -> None:
        """Append the outcome of a file; after a fault of rbs itself where in the code it arose.

        Raises:
            OutputError: It cannot be written.
        """
        from datetime import datetime

        from rbs.clinic.outcomes import Skip
        from rbs.errors import UnforeseenError
        from rbs.utils.guard import frames_of, system_error

        if not self.file:
            return
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        name = outcome.source.relative_to(self.source) if outcome.source != self.source else self.source.name
        words = outcome.outcome
        if outcome.error:
            words += f": {outcome.error.fault}; {outcome.error.remedy}"
        elif isinstance(outcome, Skip):
            words += f": {outcome.reason}"
        lines = [f"{now} {name} {words}"]
        if isinstance(outcome.error, UnforeseenError) and outcome.error.__cause__:
            lines += frames_of(outcome.error.__cause__)
        try:
            print("\n".join(map(printable, lines)), file=self.file, flush=True)
        except OSError as error:
            raise system_error(error, self.path) from error


def _summarise(
    outcomes: Sequence[Outcome], args: argparse.Namespace, found: Folder, full: RbsError | None
) -> None:
    """Say what was skipped and refused.

    Args:
        outcomes: Those of the files.
        args: The command's.
        found: The files.
        full: The full disk that ended the work before its end.

    Raises:
        RbsError: Some file was refused, or restored in part, or the disk is full.
    """
    from rbs.clinic.outcomes import Skip

    if args.json:
        print_result(args, _document(outcomes, found), "")
    skips = [outcome for outcome in outcomes if isinstance(outcome, Skip)]
    with_output = sum(skip.reason == HAS_OUTPUT for skip in skips)
    for skip in skips:
        if skip.reason != HAS_OUTPUT:
            print(printable(f"skipped: {skip.source} {skip.reason}"), file=sys.stderr)
    if with_output:
        print(f"skipped: {with_output} of {len(outcomes)} files, whose output exists", file=sys.stderr)
    failed = [outcome.error for outcome in outcomes if outcome.error]
    if failed and not args.source.is_dir():
        raise failed[0]
    for error in failed:
        print(f"refused: {error}", file=sys.stderr)
    if full:
        raise full
    if failed:
        raise refusals_error(len(failed), len(outcomes) - len(skips))


def _document(outcomes: Sequence[Outcome], found: Folder) -> dict[str, Any]:
    """All outcomes: how many of each, and for every file what is known of it."""
    import rbs

    words = [outcome.outcome for outcome in outcomes]
    counted = {word: words.count(word) for word in ("restored", "refused", "skipped")}
    files = [{"outcome": outcome.outcome, **vars(outcome)} for outcome in outcomes]
    return {"rbs": rbs.__version__, **counted, "files": files, "passed_over": found.passed_over}
