"""Restoring scans of which an export cut the lowest counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbs.errors import ScanError
from rbs.scans.censoring import expected, local_mean
from rbs.scans.counts import on_pixels_of, where_scanned
from rbs.scans.scan import Array, Scan

if TYPE_CHECKING:
    from rbs.inference.load import Loaded


def filled(scan: Scan, loaded: Loaded, exposure: float) -> Scan:
    r"""Put into the cut pixels of a scan the counts expected there.

    Expectation maximisation (Dempster, Laird & Rubin, J. R. Stat. Soc. B 39 (1977) 1-38), with the
    restorer for the maximisation: the mean of a cut pixel is at first that of the pixels around
    (`rbs.scans.censoring.local_mean`), and then, once, what the restorer finds there. Further steps
    gain nothing on phantoms.

    Args:
        scan: A rapid scan.
        loaded: The restorer.
        exposure: Exposure of the scan relative to the standard scan.

    Returns:
        The scan, cut no more, its counts no longer whole; the same where nothing was cut.

    Raises:
        ScanError: The restorer would be fitted to counts of which the lowest are not known.
    """
    if not scan.cut:
        return scan
    if "adapted" in loaded.provenance:
        fault = f"counts up to {scan.cut} were cut, and fitting the restorer to it needs them all"
        raise ScanError(fault, file=scan.provenance.path, remedy="restore it without --adapt")
    counts = scan.aligned()

    def given(mean: Array) -> Array:
        return where_scanned(expected(counts, scan.cut, mean), counts)

    first = on_pixels_of(loaded.restore(given(local_mean(counts, scan.cut)), exposure), counts)
    return scan.from_aligned(given(first * exposure))
