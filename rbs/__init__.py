"""Restoring rapid whole-body bone scans (40 cm/min) to the quality of standard ones (20 cm/min)."""

from importlib.metadata import version

__version__ = version("rbs")
