"""Data sets: what a manifest lists, and how training samples are cut from it."""
