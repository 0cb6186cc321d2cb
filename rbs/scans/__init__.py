"""What a scan is: counts, geometry, velocity, and the DICOM files it lives in."""
