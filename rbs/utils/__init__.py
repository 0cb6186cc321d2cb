"""Helpers without knowledge of scans or frames."""
