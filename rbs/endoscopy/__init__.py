"""Endoscopy: colour frames, how they are degraded, read and listed."""
