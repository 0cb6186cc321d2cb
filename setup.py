"""The packages of the wheel: rbs/, experiments/ as rbs.experiments, sweeps/ as rbs.sweeps."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["rbs*"]), "rbs.experiments", "rbs.sweeps"])
