"""Evaluation of colour frames; tables and statistics are those of scans."""
