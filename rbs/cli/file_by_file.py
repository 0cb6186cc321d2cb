"""Commands that make an output of each file: names of outputs, progress, log and summary."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbs.cli.options import print_result, refusals_error
from rbs.errors import printable

if TYPE_CHECKING:
    from rbs.clinic.outcomes import Outcome, Outputs, Refusal, Skip
    from rbs.clinic.sources import Folder, Source
    from rbs.errors import RbsError

HAS_OUTPUT = "has its output already"


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """Add --skip-existing, --log-file and --json."""
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


def plan(
    sources: Sequence[Source], args: argparse.Namespace, names: Outputs, root: Path | None
) -> tuple[dict[Source, Path], list[Skip | Refusal]]:
    """The output of each file, and the outcome of those that have none.

    Args:
        sources: The files.
        args: The command's: `source` is IN, `target` is OUT, and `skip_existing`.
        names: Names of the outputs.
        root: Folder that paths of outputs are taken relative to; None for a single file.

    Raises:
        OutputError: OUT is a file, and IN none.
        ScanError: There are only files that rbs restored.
    """
    from rbs.clinic.outcomes import Refusal, Skip
    from rbs.errors import OutputError

    target = Path(args.target)
    if root and target.is_file():
        kind = "a folder" if args.source.is_dir() else "a manifest"
        raise OutputError(f"it is a file, but IN is {kind}", file=target, remedy="name a folder")
    if root:
        kept, skipped = originals(sources, args.source)
        outputs = {s: target / place_of(s.path, root).with_name(names.output_name(s.path)) for s in kept}
    else:
        skipped = []
        inside = names_a_folder(args.target)
        outputs = {s: target / names.output_name(s.path) if inside else target for s in sources}
    passed: list[Skip | Refusal] = [*skipped]
    first: dict[Path, Path] = {}
    for source, output in list(outputs.items()):
        for part, file in names.outputs(output).items():
            if (other := first.setdefault(file, source.path)) != source.path:
                fault = f"its {part} would be called {file.name}, as that of {other.name}"
                error = OutputError(fault, file=source.path, remedy="rename one of the two")
                passed.append(Refusal(source.path, error))
                outputs.pop(source, None)
    if args.skip_existing:
        for source, output in list(outputs.items()):
            if all(file.exists() for file in names.outputs(output).values()):
                passed.append(Skip(source.path, HAS_OUTPUT))
                del outputs[source]
    return outputs, passed


def originals(sources: Sequence[Source], folder: Path) -> tuple[list[Source], list[Skip]]:
    """Files of a folder that rbs did not restore, and the others.

    Raises:
        ScanError: There are only files that rbs restored.
    """
    from rbs.clinic.outcomes import Skip
    from rbs.errors import ScanError

    kept = [source for source in sources if not source.restored]
    if not kept:
        fault = f"it holds only restored {sources[0].kind}s"
        raise ScanError(fault, file=folder, remedy="name the originals")
    return kept, [Skip(source.path, "was restored by rbs already") for source in sources if source.restored]


def scans_at(path: Path) -> Folder:
    """The scans that IN names: a file, or those of a folder.

    Raises:
        ScanError: It names none, or pictures or videos.
    """
    from rbs.clinic.sources import Folder, source_of, sources_in
    from rbs.errors import ScanError

    found = sources_in(path) if path.is_dir() else Folder([source_of(path)])
    if (kind := found.sources[0].kind) != "scan":
        fault = f"it holds {kind}s" if path.is_dir() else f"it is a {kind}"
        raise ScanError(f"{fault}, and regions are those of scans", file=path, remedy="name DICOM files")
    if found.passed_over:
        print(printable(f"passed over: {found}"), file=sys.stderr)
    return found


def originals_at(path: Path) -> tuple[Sequence[Source], dict[Path, str]]:
    """The scans that IN names but those rbs restored, and their names within a folder.

    Raises:
        ScanError: It names none, or pictures or videos, or only scans that rbs restored.
    """
    sources = scans_at(path).sources
    if not path.is_dir():
        return sources, {}
    sources, skipped = originals(sources, path)
    for skip in skipped:
        print(printable(f"skipped: {skip.source} {skip.reason}"), file=sys.stderr)
    return sources, {source.path: str(source.path.relative_to(path)) for source in sources}


def names_a_folder(target: str) -> bool:
    """True for an OUT that is a folder: it is one, ends in /, or is new and has no suffix."""
    path = Path(target)
    return path.is_dir() or target.endswith("/") or not (path.suffix or path.exists())


def place_of(path: Path, root: Path | None) -> Path:
    """The path of a file below the folder of all, or its name where it lies elsewhere."""
    return path.relative_to(root) if root and path.is_relative_to(root) else Path(path.name)


@dataclass(frozen=True)
class Processed:
    """The end of all files.

    Attributes:
        outcomes: Those of the files, as far as they went.
        fault: What ended the work before its end: a full disk, or a table that cannot be written.
    """

    outcomes: Sequence[Outcome]
    fault: RbsError | None = None


def process(
    work: Iterable[Outcome],
    skipped: Sequence[Outcome],
    args: argparse.Namespace,
    root: Path | None,
    *,
    total: int,
    unit: str,
    quiet: bool | None = None,
) -> Processed:
    """Do the work, with a progress bar, a line for each file that is done, and the log.

    Args:
        work: Does a file whenever it is asked for the next outcome.
        skipped: Outcomes of files that need no work.
        args: The command's: `log_file` and `json`.
        root: Folder of the files; None for a single file.
        total: Number of files that are worked on.
        unit: Kind of the files.
        quiet: True for no bar; None for one where there is a terminal.
    """
    from itertools import chain

    from tqdm import tqdm

    from rbs.errors import DiskFullError

    outcomes: list[Outcome] = []
    with _Log(args.log_file, root) as log, tqdm(total=total, unit=unit, disable=quiet) as bar:
        try:
            for outcome in chain(skipped, work):
                outcomes.append(outcome)
                log.write(outcome)
                if outcome.outcome != "skipped":
                    bar.update()
                if outcome.outcome not in ("skipped", "refused") and not args.json:
                    tqdm.write(str(outcome))
        except DiskFullError as error:  # the files that follow would meet the same
            return Processed(outcomes, error)
    return Processed(outcomes)


class _Log:
    """The file of --log-file, to which a line a file is appended; none without that option."""

    def __init__(self, path: Path | None, root: Path | None) -> None:
        self.path, self.root = path, root

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
        name = place_of(outcome.source, self.root)
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


def summarise(
    processed: Processed,
    args: argparse.Namespace,
    root: Path | None,
    *,
    word: str,
    passed_over: Sequence[Path] = (),
    more: Mapping[str, Any] | None = None,
) -> None:
    """Say what was skipped and refused.

    Args:
        processed: The end of all files.
        args: The command's: `json`.
        root: Folder of the files; None for a single file.
        word: Outcome of a file that was done.
        passed_over: Files that were not looked at.
        more: Further entries of the JSON document.

    Raises:
        RbsError: Some file was refused, or done in part, or the work ended before its end.
    """
    from rbs.clinic.outcomes import Skip

    outcomes = processed.outcomes
    if args.json:
        print_result(args, {**_document(outcomes, word, passed_over), **(more or {})}, "")
    skips = [outcome for outcome in outcomes if isinstance(outcome, Skip)]
    with_output = sum(skip.reason == HAS_OUTPUT for skip in skips)
    for skip in skips:
        if skip.reason != HAS_OUTPUT:
            print(printable(f"skipped: {skip.source} {skip.reason}"), file=sys.stderr)
    if with_output:
        print(f"skipped: {with_output} of {len(outcomes)} files, whose output exists", file=sys.stderr)
    failed = [outcome.error for outcome in outcomes if outcome.error]
    if failed and not root:
        raise failed[0]
    for error in failed:
        print(f"refused: {error}", file=sys.stderr)
    if processed.fault:
        raise processed.fault
    if failed:
        raise refusals_error(len(failed), len(outcomes) - len(skips))


def _document(outcomes: Sequence[Outcome], word: str, passed_over: Sequence[Path]) -> dict[str, Any]:
    """All outcomes: how many of each, and for every file what is known of it."""
    import rbs

    words = [outcome.outcome for outcome in outcomes]
    counted = {word: words.count(word) for word in (word, "refused", "skipped")}
    files = [{"outcome": outcome.outcome, **vars(outcome)} for outcome in outcomes]
    return {"rbs": rbs.__version__, **counted, "files": files, "passed_over": passed_over}
