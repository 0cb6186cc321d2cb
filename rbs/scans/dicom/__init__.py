"""Nuclear Medicine DICOM: reading, writing, de-identification."""
