"""Measures of the regions of a labelled scan: counts, ratios, growth plates, hot spots."""
