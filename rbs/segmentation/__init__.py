"""Segmenters of scans and frames, among them an adapted Segment Anything; semantic priors."""
