"""Files: those of a folder, written whole or not at all, and the versions of a run."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import stat
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rbs.errors import FULL, DiskFullError, OutputError, RbsError

FINISHED = "finished"
"""Name of the empty file that marks a version whose training ran to its end."""


def versions(run: Path, name: str = "") -> list[Path]:
    """Folders `version_N` of a run by N; with `name` the files of that name in them."""
    numbered = {int(path.name.split("_")[1]): path / name for path in run.glob("version_*")}
    return [numbered[n] for n in sorted(numbered) if numbered[n].exists()]


def regular_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files in a folder and those below it, without hidden ones, pipes, sockets and devices.

    Links to folders are followed, each real folder once: a link into the tree, or round in a
    circle, adds nothing. A folder that is reached both ways keeps its own path.

    Returns:
        The files, links that lead nowhere among them (opening one says so); and the folders below
        it that cannot be searched. Both sorted.

    Raises:
        RbsError: The folder itself cannot be searched.
    """
    files: list[Path] = []
    closed: list[Path] = []
    seen: set[str] = set()
    waiting = deque([folder])
    while waiting:
        for place, below, names in os.walk(
            waiting.popleft(), onerror=lambda error: closed.append(Path(error.filename))
        ):
            if (real := os.path.realpath(place)) in seen:
                below.clear()
                continue
            seen.add(real)
            below[:] = sorted(name for name in below if not name.startswith("."))
            waiting.extend(path for name in below if (path := Path(place, name)).is_symlink())
            paths = (Path(place, name) for name in names if not name.startswith("."))
            files += [path for path in paths if _kind(path) == "a file"]
    if folder in closed:
        raise RbsError(_CLOSED, file=folder, remedy="check the permissions")
    return sorted(files), sorted(closed)


def leads_round(folder: Path) -> bool:
    """True for a link to one of the folders that its path passes through."""
    return folder.is_symlink() and any(folder.samefile(parent) for parent in folder.absolute().parents)


_CLOSED = "it cannot be searched (Permission denied)"


def require_regular(path: Path, error: type[RbsError] = RbsError) -> None:
    """Refuse a pipe, a socket or a device, whose reading may never end, and a folder.

    What cannot be looked at passes: opening it says why.

    Raises:
        RbsError: It is one; of the class `error`.
    """
    if (kind := _kind(path)) == "a folder" and not os.access(path, os.R_OK | os.X_OK):
        raise error(_CLOSED, file=path, remedy="check the permissions")
    if kind != "a file":
        raise error(f"it is {kind}, not a file", file=path, remedy="name a file")


def _kind(path: Path) -> str:
    """A file, or what else it is; a file where nothing tells."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return "a file"
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "a file")


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
        OutputError: `path` exists already, or the folder cannot be written.
        DiskFullError: There is no room for it, on the disk or in the user's quota.
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
        if _disk_is_full(error):
            fault = "the disk is full; nothing was written"
            raise DiskFullError(fault, file=path, remedy="free some space") from error
        if not isinstance(error, OSError):
            raise
        fault = f"it cannot be written ({error.strerror or error})"
        raise OutputError(fault, file=path, remedy=_remedy(error)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            temporary.parent.rmdir()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have errors of the system name the file that is written to, which those of writing do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_text(path: str | Path, text: str, *, overwrite: bool = True) -> None:
    """Write a text in UTF-8 by `whole_file`; bytes of names that are no text are escaped."""
    with whole_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, content: Any, **options: Any) -> None:
    """Write JSON by `whole_file`, in place of an older file; options are those of `json.dumps`."""
    write_text(path, json.dumps(content, **{"indent": 2, **options}) + "\n")


def write_csv(
    path: str | Path,
    head: Sequence[str],
    rows: Iterable[Iterable[Any]],
    *,
    overwrite: bool = True,
    errors: str = "backslashreplace",
) -> None:
    """Write a table as CSV in UTF-8 by `whole_file`; bytes that are no text are escaped."""
    with (
        whole_file(path, overwrite=overwrite) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors=errors) as out,
    ):
        csv.writer(out, lineterminator="\n").writerows([head, *rows])


def write_rows(path: str | Path, rows: Sequence[Mapping[str, Any]], head: Sequence[str] = ()) -> None:
    """Write a table of named values by `write_csv`; a number that is not finite is an empty cell.

    Args:
        path: The file; an older one is replaced.
        rows: Rows with the same names; numbers are written with six digits.
        head: Names of the columns of a table without rows.
    """
    cells = ([_cell(value) for value in row.values()] for row in rows)
    write_csv(path, list(rows[0]) if rows else head, cells)


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.6g}" if math.isfinite(value) else ""


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


def _remedy(error: OSError) -> str:
    if error.errno == errno.ENAMETOOLONG:
        return "choose a shorter name"
    if error.errno == errno.EROFS:
        return "name a folder on a disk that can be written"
    return "check the folder and its permissions"


def _disk_is_full(error: BaseException | None) -> bool:
    """True if a full disk caused the error: libraries wrap that of the system, or quote it."""
    while error is not None:
        if getattr(error, "errno", None) in FULL or os.strerror(errno.ENOSPC) in str(error):
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
