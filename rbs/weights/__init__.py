"""Weights that ship with the package, their hashes and model cards."""
