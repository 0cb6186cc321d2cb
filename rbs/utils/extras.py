"""Extras of the installation: the one that a missing package belongs to."""

from __future__ import annotations

import re
from importlib.metadata import requires

from rbs.errors import RbsError

_DISTRIBUTIONS = {"skimage": "scikit-image", "yaml": "pyyaml", "grpc": "grpcio"}
"""Distributions by the name of their module, where that differs by more than a hyphen."""

_OF_AN_EXTRA = re.compile(r"([\w.-]+)[^;]*;.*\bextra == [\"']([\w-]+)[\"']")


def missing_package(error: ModuleNotFoundError) -> RbsError | None:
    """Say which extra installs the package that an import did not find.

    Returns:
        The error to show to a user; None for a module that no extra of rbs installs.
    """
    module = (error.name or "").partition(".")[0]
    wanted = _DISTRIBUTIONS.get(module, module.replace("_", "-")).lower()
    for requirement in filter(None, map(_OF_AN_EXTRA.match, requires("rbs") or ())):
        name, extra = requirement.groups()
        if name.lower() == wanted != "rbs":
            return RbsError(
                f"this needs {name}, which the extra '{extra}' installs",
                remedy=f"run `pip install '.[{extra}]'` in the clone of rbs, or `make setup` for all extras",
            )
    return None
