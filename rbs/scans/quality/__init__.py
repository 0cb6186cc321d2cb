"""Quality of a scan: whether it is what it says."""
