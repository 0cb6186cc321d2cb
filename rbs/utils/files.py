"""Files: written whole or not at all, and the versions of a run."""

from __future__ import annotations

import csv
import errno
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rbs.errors import OutputError, RbsError

FINISHED = "finished"
"""Name of the empty file that marks a version whose training ran to its end."""


def versions(run: Path, name: str = "") -> list[Path]:
    """Folders `version_N` of a run by N; with `name` the files of that name in them."""
    numbered = {int(path.name.split("_")[1]): path / name for path in run.glob("version_*")}
    return [numbered[n] for n in sorted(numbered) if numbered[n].exists()]


@contextmanager
def whole_file(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    A reader therefore sees the old file or the new one, never half of one, even on a full disk.

    Args:
        path: The file. Parent folders are made.
        overwrite: Replace an existing file.

    Yields:
        The temporary path to write to; it has the suffix of `path` and does not exist yet.

    Raises:
        OutputError: `path` exists already, the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        if path.exists() and not overwrite:
            raise OutputError(
                "the output exists already", file=path, remedy="choose another name or remove it first"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=".writing-", dir=path.parent)
        temporary = Path(folder) / path.name
        yield temporary
        if path.exists() and not overwrite:
            raise OutputError(
                "the output appeared while it was being made", file=path, remedy="choose another name"
            )
        # Some writers make files that only their owner can read, but disks are shared.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except RbsError:
        raise
    except Exception as error:
        if not (isinstance(error, OSError) or _disk_is_full(error)):
            raise
        fault, remedy = _explain(error)
        raise OutputError(fault, file=path, remedy=remedy) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            temporary.parent.rmdir()


def write_text(path: str | Path, text: str, *, overwrite: bool = True) -> None:
    """Write a text in UTF-8 by `whole_file`."""
    with whole_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any, **options: Any) -> None:
    """Write JSON by `whole_file`, in place of an older file; options are those of `json.dumps`."""
    write_text(path, json.dumps(content, **{"indent": 2, **options}) + "\n")


def write_csv(
    path: str | Path, head: Sequence[str], rows: Iterable[Iterable[Any]], *, overwrite: bool = True
) -> None:
    """Write a table as CSV in UTF-8 by `whole_file`; bytes that are no text are escaped."""
    with (
        whole_file(path, overwrite=overwrite) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as out,
    ):
        csv.writer(out, lineterminator="\n").writerows([head, *rows])


def claim_folder(folder: Path, name: str, settings: Mapping[str, Any], *, other: str) -> None:
    """Take a folder for a command that can be resumed: new, empty, or of the same settings.

    Args:
        folder: The folder; made where there is none.
        name: Name of the JSON file in it that holds the settings.
        settings: Settings that decide the content.
        other: Content of a folder with other settings, for the message ("a cohort of ...").

    Raises:
        OutputError: The folder holds something else, or cannot be read or written.
    """
    mark = folder / name
    if folder.exists() and not folder.is_dir():
        raise OutputError("it is a file, not a folder", file=folder, remedy="choose another folder")
    try:
        text = mark.read_text(errors="replace") if mark.is_file() else ""
        empty = not folder.is_dir() or not any(folder.iterdir())
    except OSError as error:
        fault = f"it cannot be read ({error.strerror or error})"
        raise OutputError(fault, file=folder, remedy="check its permissions") from error
    if not text and not empty:
        remedy = "choose a new or an empty folder"
        raise OutputError("the folder holds something else", file=folder, remedy=remedy)
    if text and text != json.dumps(settings) + "\n":
        remedy = f"choose another folder, or repeat the settings named in its {name}"
        raise OutputError(f"the folder holds {other}", file=folder, remedy=remedy)
    write_json(mark, settings, indent=None)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _explain(error: Exception) -> tuple[str, str]:
    """Fault and remedy."""
    if _disk_is_full(error):
        return "the disk is full; nothing was written", "free some space"
    reason = getattr(error, "strerror", None) or error
    return f"it cannot be written ({reason})", "check the folder and its permissions"


def _disk_is_full(error: BaseException | None) -> bool:
    """True if a full disk caused the error: libraries wrap that of the system, or quote it."""
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an .npz file by name.

    Raises:
        ValueError: The file is missing, damaged, or no .npz file.
    """
    try:
        with np.load(path) as content:
            return dict(content)
    except Exception as error:  # a flipped bit surfaces in zipfile, zlib or numpy as nearly any exception
        raise ValueError(" ".join(str(error).split())[:150] or type(error).__name__) from error
