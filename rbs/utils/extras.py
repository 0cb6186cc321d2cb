"""Extras of the installation: the one that a missing package belongs to."""

from __future__ import annotations

import re
from importlib.metadata import requires

from rbs.errors import RbsError

_DISTRIBUTIONS = {"skimage": "scikit-image", "yaml": "pyyaml", "grpc": "grpcio"}
"""Distributions by the name of their module, where that differs by more than a hyphen."""

_OF_AN_EXTRA = re.compile(r"([\w.-]+)[^;]*;.*\bextra == [\"']([\w-]+)[\"']")


def missing_package(error: ModuleNotFoundError) -> RbsError | None:
    """Say which extras install the package that an import did not find.

    Returns:
        The error to show to a user; None for a module that no extra of rbs installs.
    """
    module = (error.name or "").partition(".")[0]
    wanted = _DISTRIBUTIONS.get(module, module.replace("_", "-")).lower()
    requirements = filter(None, map(_OF_AN_EXTRA.match, requires("rbs") or ()))
    found = [one.groups() for one in requirements if one[1].lower() == wanted != "rbs"]
    if not found:
        return None
    told = " or ".join(f"'{extra}'" for _, extra in found)
    commands = " or ".join(f"`pip install '.[{extra}]'`" for _, extra in found)
    return RbsError(
        f"this needs {found[0][0]}, which the extra {told} installs",
        remedy=f"run {commands} in the clone of rbs, or `make setup` for all extras",
    )
