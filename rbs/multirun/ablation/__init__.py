"""Ablations: what each part of the method is worth, paired over patients and seeds."""
