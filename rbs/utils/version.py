"""Version of the package, as the installation states it."""

from importlib.metadata import version

VERSION = version("rbs")
