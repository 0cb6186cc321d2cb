"""Degradation of good images: fewer counts, poorer optics."""
