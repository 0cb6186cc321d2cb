"""Pages of one file that load nothing from elsewhere."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rbs.errors import printable
from rbs.utils.version import VERSION
from rbs.utils.words import counted


def render(
    template: str,
    content: dict[str, Any],
    *,
    filters: dict[str, Callable[..., Any]] | None = None,
    finalize: Callable[[Any], Any] | None = None,
) -> str:
    """Fill a template of this package; values are escaped.

    Args:
        template: Its file name; it extends `base.html`.
        content: Values by name, besides `version` and `written`.
        filters: Filters besides `counted` and `printable`.
        finalize: Applied to each value before it is escaped.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    environment.filters |= {"counted": counted, "printable": printable, **(filters or {})}
    written = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    return environment.get_template(template).render(version=VERSION, written=written, **content)
