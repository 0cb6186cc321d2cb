"""Single architectures of `spandrel`, without all the others."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


def architecture(name: str) -> ModuleType:
    """The module `spandrel.architectures.<name>`.

    The package's own `__init__` imports every architecture, and with one of them torchvision and
    `torch._dynamo`: half of the time that `rbs restore` took to start. It is not run before an
    attribute of it is used.

    Args:
        name: As `spandrel` spells it, such as "NAFNet".
    """
    if "spandrel" not in sys.modules:
        sys.modules["spandrel"] = _later("spandrel")
    return importlib.import_module(f"spandrel.architectures.{name}")


def _later(name: str) -> ModuleType:
    """A package that is run when it lacks an attribute; its submodules can be imported before."""
    # Not importlib's LazyLoader: it runs the package at the import of any submodule.
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    loader, package = spec.loader, module_from_spec(spec)

    def run(attribute: str) -> Any:
        if attribute.startswith("__"):  # asked for by code that inspects all modules
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        del package.__getattr__
        loader.exec_module(package)
        return getattr(package, attribute)

    package.__getattr__ = run  # type: ignore[method-assign]
    return package
