"""A DICOM node: receive rapid scans, restore them, send the results where they belong."""
