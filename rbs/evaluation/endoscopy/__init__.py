"""Evaluation of colour frames: what differs from that of scans. Tables and statistics are the same."""
