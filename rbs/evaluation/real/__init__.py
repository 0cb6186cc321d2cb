"""Evaluation on slow real scans: thinned to faster ones, and judged by the counts left over."""
