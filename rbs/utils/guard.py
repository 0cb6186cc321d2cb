"""Work on one file of many: whatever goes wrong is told of that file, and the others go on."""

from __future__ import annotations

import errno
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from rbs.errors import FULL, DiskFullError, RbsError, UnforeseenError
from rbs.utils.extras import missing_package

T = TypeVar("T")
P = ParamSpec("P")

_LOG = logging.getLogger("rbs")

_REMEDIES = {
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EROFS: "name a folder on a disk that can be written",
    errno.ENOENT: "it was moved or removed meanwhile, or a folder above it; check the path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "close other programs, or raise the limit of open files (`ulimit -n`)",
}


def attempt(file: Path, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | RbsError:
    """The result of work on one file, or the reason why it has none, which names the file.

    An interruption and a full disk concern all files, and are raised.

    Args:
        file: The file.
        work: What is to be done with it.
        args: Arguments of `work`.
        kwargs: The same, by name.

    Raises:
        DiskFullError: There is no room for its output.
    """
    try:
        return work(*args, **kwargs)
    except DiskFullError:
        raise
    except RbsError as error:
        return error if error.file else concerning(error, file)
    except Exception as error:  # what is left is a fault of rbs, which must not cost the other files
        told = explained(error, file)
        if isinstance(told, DiskFullError):
            raise told from error
        return told


def concerning(error: RbsError, file: Path) -> RbsError:
    """The same error, about another file."""
    told = type(error)(error.fault, file=file, remedy=error.remedy)
    told.__cause__ = error.__cause__
    return told


def explained(error: Exception, file: Path | None) -> RbsError:
    """One sentence for an error that nothing closer to it has explained.

    It holds no values, which may be a patient's: an unforeseen error is told by its kind and place.

    Args:
        error: The error.
        file: The file that was worked on, if one was.
    """
    if isinstance(error, ModuleNotFoundError) and (missing := missing_package(error)) and file:
        told = concerning(missing, file)
    elif isinstance(error, OSError) and error.strerror:
        told = system_error(error, file)
    elif wants_memory(error):
        told = RbsError("there is not enough memory for it", file=file, remedy="close other programs")
    else:
        fault = f"rbs met an error that it did not foresee ({type(error).__name__} at {_place(error)})"
        told = UnforeseenError(fault, file=file, remedy="please report this line to the authors of rbs")
        _LOG.debug("%s", told, exc_info=error)
    told.__cause__ = error
    return told


def system_error(error: OSError, file: Path | None = None) -> RbsError:
    """One sentence for an error of the operating system.

    Args:
        error: The error.
        file: The file that was worked on; the one that the error names by default.
    """
    file = file or (Path(error.filename) if isinstance(error.filename, str) else None)
    reason = error.strerror or type(error).__name__
    if error.errno in FULL:
        return DiskFullError(f"it cannot be written ({reason})", file=file, remedy="free some space")
    remedy = _REMEDIES.get(error.errno or 0, "check its disk")
    return RbsError(f"it cannot be read or written ({reason})", file=file, remedy=remedy)


def frames_of(error: BaseException) -> list[str]:
    """Lines of the traceback of an error: places in the code, without the values it quotes."""
    return "".join(traceback.format_tb(error.__traceback__)).splitlines()


def _place(error: BaseException) -> str:
    """The last place in rbs that an error passed: file and line."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "rbs" in Path(frame.filename).parts] or frames
    if not own:
        return "an unknown place"
    parts = Path(own[-1].filename).parts
    start = len(parts) - 1 - parts[::-1].index("rbs") if "rbs" in parts else -1
    return f"{'/'.join(parts[start:])}:{own[-1].lineno}"


def wants_memory(error: Exception) -> bool:
    """True for a lack of memory: PyTorch and ONNX Runtime have errors of their own for it."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(
        words in text for words in ("out of memory", "allocate memory", "bad allocation", "bad_alloc")
    )
