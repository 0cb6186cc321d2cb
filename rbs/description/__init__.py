"""Describing scans in sentences of a closed grammar: what is seen where, and how sure that is."""
