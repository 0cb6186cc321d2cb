"""Bone scans: counts, geometry, velocity, and the DICOM files they live in."""
