"""Hospital side: is this scan fit, and restore it from DICOM to DICOM."""
