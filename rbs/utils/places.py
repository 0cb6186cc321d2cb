"""Records without places: where files lie may name a user, a hospital or a patient."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ABSOLUTE = re.compile(
    r"(?P<before>(?:^|[^=]*=))(?P<path>(?:~|/|\.\.[/\\]|[A-Za-z]:[/\\]|\\\\).*)", re.DOTALL
)
"""A path from the root, from a home or from above the current folder, maybe behind `--option=`."""


def without_places(value: Any) -> Any:
    """Plain values with paths reduced to the name of what they lead to.

    A path below the current folder stays as it is: it says what an experiment was made of, and not
    where.

    Args:
        value: Text, a path, or mappings and sequences of such; anything else stays.
    """
    if isinstance(value, Mapping):
        return {without_places(name): without_places(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(item) for item in value]
    if isinstance(value, Path):
        return without_places(str(value))
    if isinstance(value, str) and (found := _ABSOLUTE.fullmatch(value)):
        return found["before"] + re.split(r"[/\\]", found["path"].rstrip("/\\"))[-1]
    return value


def command_without_places(words: list[str]) -> str:
    """A command as it may be typed, its paths reduced by `without_places`."""
    return shlex.join(without_places(words))
