"""Silence of pydicom, whose warnings quote header values, and names of patients with them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_PYDICOM = logging.getLogger("pydicom")


@contextmanager
def quiet() -> Iterator[None]:
    """Neither show nor log what pydicom warns of."""
    before, _PYDICOM.disabled = _PYDICOM.disabled, True
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        _PYDICOM.disabled = before


def quiet_for_good() -> None:
    """The same until the process ends: `quiet` may end in one thread while another reads."""
    _PYDICOM.disabled = True
    warnings.simplefilter("ignore", UserWarning)
