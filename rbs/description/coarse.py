"""Scans on the coarse pixels that descriptions are made of. Needs no PyTorch."""

from __future__ import annotations

from rbs.errors import ScanError
from rbs.scans.counts import block_sums, scanned_rows
from rbs.scans.scan import Array, Scan

FINE = 2
"""Fine pixels a side in a coarse one."""
COARSE_SPACINGS_MM = (4.1, 5.0)
"""Pixels that are described as they are; those of half the size are summed up."""


def is_fine(scan: Scan) -> bool:
    """True for a scan whose pixels are summed up before it is described."""
    low, high = COARSE_SPACINGS_MM
    return all(low <= mm * FINE <= high for mm in scan.spacing_mm)


def coarse_counts(scan: Scan) -> Array:
    """Aligned counts of the scanned rows on coarse pixels, float32 (V, H, W).

    Raises:
        ScanError: Its pixels are neither coarse nor fine ones.
    """
    low, high = COARSE_SPACINGS_MM
    counts = scan.aligned()
    first, end = scanned_rows(counts)
    counts = counts[:, first:end]
    if all(low <= mm <= high for mm in scan.spacing_mm):
        return counts
    if is_fine(scan):
        return block_sums(counts, FINE, FINE).astype(counts.dtype)
    stated = " x ".join(f"{mm:.3g}" for mm in scan.spacing_mm)
    fault = (
        f"its pixels are {stated} mm, and scans of {low / FINE:g} to {high / FINE:g} mm, or of {low:g} to"
        f" {high:g} mm, are described"
    )
    raise ScanError(fault, file=scan.provenance.path, remedy="describe the scan as it was acquired")
