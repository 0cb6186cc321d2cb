"""Inference: arrays in, arrays out."""
