"""Means, intervals and paired differences over patients."""
