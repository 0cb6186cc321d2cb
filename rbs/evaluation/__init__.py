"""Evaluation of restorations: metrics, their ceilings, classical peers and the table of all."""
