"""Packages of the user's own whose classes weight files may name.

Importing a module runs its code, and weights travel between hospitals: a class that a file names is
imported only where it belongs to rbs or to a package that the user has allowed.
"""

from __future__ import annotations

import os

VARIABLE = "RBS_ALLOW"
"""Environment variable that holds the packages, separated by commas; child processes inherit it."""


def allow(package: str) -> None:
    """Allow the classes of a package or module, here and in every process started from here."""
    os.environ[VARIABLE] = ",".join([*allowed(), package])


def allowed() -> list[str]:
    """Names of the allowed packages and modules."""
    return [package for package in os.environ.get(VARIABLE, "").split(",") if package]
