"""JSON of files from elsewhere: parsed within bounds, checked against the types of a dataclass."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

LONGEST = 2**20
"""Characters of a text that is parsed."""

DEEPEST = 32
"""Levels of lists and objects within each other."""

MOST = 2**16
"""Values in all."""

LARGEST = 2**63
"""Integers stay below this."""

_Record = TypeVar("_Record")


def parsed(text: str | bytes) -> Any:
    """Parse JSON of bounded size and depth.

    Raises:
        ValueError: It is longer or nested deeper than any file of rbs, no JSON, or holds numbers
            that are not finite.
    """
    if len(text) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} characters")
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    require_plain(content)
    return content


def require_plain(content: object) -> None:
    """Require what JSON can hold: text, finite numbers, None, lists and mappings of them.

    Raises:
        ValueError: It holds something else, or is too deep or too large. Lists that hold each other
            many times count each time, so a small file cannot describe a huge tree.
    """
    level, depth, seen = [content], 0, 1
    while level:
        below: list[object] = []
        for value in level:
            if isinstance(value, dict | list | tuple):
                seen += len(value)
                if depth == DEEPEST or seen > MOST:
                    raise ValueError("it is nested too deeply or holds too many values")
                below += value.values() if isinstance(value, dict) else value
                if isinstance(value, dict) and not all(isinstance(name, str) for name in value):
                    raise ValueError("it has names that are no text")
            elif isinstance(value, int | float) and not _finite(value):
                raise ValueError("it holds a number that is not finite, or too large")
            elif not isinstance(value, str | int | float | NoneType):
                raise ValueError(f"it holds a {type(value).__name__}")
        level, depth = below, depth + 1


def checked(kind: type[_Record], values: object) -> _Record:
    """Build a dataclass of plain values from a mapping that must fit its fields.

    Raises:
        ValueError: Names are missing or unknown, or a value is of another type or out of range
            (`__post_init__` of the dataclass raises it, too).
    """
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := values.keys() - known.keys():
        raise ValueError(f"it holds {shown(min(unknown, key=str))}, which is unknown here")
    hints = get_type_hints(kind)
    for name, field in known.items():
        if name not in values and field.default is field.default_factory is MISSING:
            raise ValueError(f"it holds no {name}")
    require_types(values, hints)
    return kind(**values)


def require_types(values: Mapping[str, object], hints: Mapping[str, Any]) -> None:
    """Require that named values fit the type hints of those names.

    Raises:
        ValueError: One does not.
    """
    for name, value in values.items():
        if not fits(value, hints.get(name, Any)):
            raise ValueError(f"its {name} is {shown(value)}")


def fits(value: object, hint: Any) -> bool:
    """True if a plain value fits a type hint; hints of other than plain types are not judged."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if origin is tuple and Ellipsis not in inner:
        return (
            isinstance(value, list | tuple)
            and len(value) == len(inner)
            and all(fits(item, one) for item, one in zip(value, inner, strict=True))
        )
    if origin in (list, tuple, Sequence):
        return isinstance(value, list | tuple) and all(fits(item, inner[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(fits(item, inner[1]) for item in value.values())
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is float:
        return isinstance(value, int | float) and _finite(value)
    if hint in (str, int, bool, NoneType):
        return isinstance(value, hint)
    return True


def shown(value: object) -> str:
    """A value in a message: short, and printable whatever it holds."""
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _finite(value: float) -> bool:
    return math.isfinite(value) if isinstance(value, float) else abs(value) < LARGEST
