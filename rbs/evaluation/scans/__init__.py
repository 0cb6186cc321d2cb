"""Evaluation of restored scans against standard scans and truth."""
