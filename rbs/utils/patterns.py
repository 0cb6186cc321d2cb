"""Regular expressions that a user gives: searched for with a limit of time.

Some, such as (a+)+b, take time exponential in the length of the text, so that a single path would
hang a command.
"""

from __future__ import annotations

import regex

from rbs.errors import RbsError

LONGEST_S = 2.0
"""Time for one text."""


def compiled(text: str) -> regex.Pattern[str]:
    """The pattern of a regular expression, for `search`.

    Raises:
        ValueError: It is none; the message says why.
    """
    try:
        return regex.compile(text)
    except (regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f"it is no regular expression ({error})") from error


def search(pattern: regex.Pattern[str], text: str) -> regex.Match[str] | None:
    """The first place of a text that a pattern matches.

    Raises:
        RbsError: It takes longer than `LONGEST_S`.
    """
    try:
        return pattern.search(text, timeout=LONGEST_S)
    except TimeoutError:
        fault = f"the regular expression {pattern.pattern} takes too long on '{text}'"
        raise RbsError(fault, remedy="leave out repetitions of repetitions, as in (a+)+") from None
