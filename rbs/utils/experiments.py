"""Experiments, sweeps and ablations of rbs: YAML files, found by name from any folder."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from rbs.errors import RbsError

_PACKAGE = Path(__file__).parents[1]


def experiment_file(name: str | Path) -> Path:
    """Find an experiment by path, or by its name in rbs ("stage1", "overlays/cpu").

    Raises:
        RbsError: There is neither; the message lists those most like it.
    """
    return _named("experiments", name, "**/*.yaml")


def sweep_file(name: str | Path) -> Path:
    """Find a sweep by path, or by its name in rbs ("stage1").

    Raises:
        RbsError: There is neither; the message lists those most like it.
    """
    return _named("sweeps", name)


def ablation_file(name: str | Path) -> Path:
    """Find an ablation by path, or by its name in rbs ("semantics").

    Raises:
        RbsError: There is neither; the message lists those most like it.
    """
    return _named("sweeps/ablations", name)


def _named(kind: str, name: str | Path, pattern: str = "*.yaml") -> Path:
    if Path(name).is_file():
        return Path(name)
    # A wheel holds them inside the package; in a clone they lie beside it.
    folder = _PACKAGE / kind
    folder = folder if folder.is_dir() else _PACKAGE.parent / kind
    files = {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.glob(pattern))}
    if str(name) in files:
        return files[str(name)]
    fault = f"there is no such file, and none of the {kind} of rbs has that name"
    # All names are more than a line holds.
    like = get_close_matches(str(name), files, n=5, cutoff=0.4) or list(files)
    remedy = f"check the path, or name one of those in {folder}, such as {', '.join(like)}"
    raise RbsError(fault, file=name, remedy=remedy)
