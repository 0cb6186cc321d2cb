"""Counts from 8-bit pictures."""
