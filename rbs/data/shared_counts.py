"""Check that two scans are independent: no count may be in both.

A restoration of a rapid scan is evaluated, and trained, against a scan that holds none of its
counts. Shared counts would put the noise of the rapid scan into the target and reward keeping it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from math import isclose

from rbs.data.residuals import correlated
from rbs.scans.dicom.reader import THINNED
from rbs.scans.scan import Scan

_PART = re.compile(r"([\d.e+-]+) % of the counts .*, (kept|left over) by binomial thinning, seed (-?\d+)")
"""Description that `rbs thin` writes into the parts of a scan."""


def shared_counts(rapid: Sequence[Scan], standard: Sequence[Scan]) -> str | None:
    """Reason why two scans share counts, a clause about the rapid one; None if there is none.

    Headers tell what was thinned from what one step back; the counts tell the rest. A part nowhere
    exceeds its whole, whereas of two independent scans each exceeds the other in many pixels; and
    where only some counts are in both, the noise of the two is correlated (`rbs.data.residuals`).

    Args:
        rapid: The scan, or its files of one view each, as `read_nm` gave them.
        standard: Likewise.
    """
    for a, b in product(rapid, standard):
        file, uid = b.provenance.path, b.provenance.sop_instance_uid
        if uid is not None and uid == a.provenance.sop_instance_uid:
            return f"it and {file} are one and the same acquisition"
        if uid in _sources(a) or _is_part(a, b):
            return f"it was thinned out of {file}, so its counts are in both"
        if a.provenance.sop_instance_uid in _sources(b):
            return f"{file} was thinned out of it, so its counts are in both"
        if _sources(a) & _sources(b) and not _are_disjoint(a, b):
            return f"it and {file} were thinned out of one scan each on its own, so they share counts"
        if correlated(a.counts, b.counts):
            return f"it and {file} share counts: their noise is correlated"
    return None


def _is_part(a: Scan, b: Scan) -> bool:
    pairs = [(a.counts[a.views.index(v)], b.counts[b.views.index(v)]) for v in set(a.views) & set(b.views)]
    return any(part.any() and (part <= whole).all() for part, whole in pairs)


def _sources(scan: Scan) -> set[str]:
    """SOP Instance UIDs of what the scan was thinned out of."""
    header = scan.provenance.header
    if header is None:
        return set()
    codes = header.get("DerivationCodeSequence") or []
    if all((c.get("CodeValue"), c.get("CodingSchemeDesignator")) != THINNED[:2] for c in codes):
        return set()
    sources = header.get("SourceImageSequence") or []
    return {str(source.get("ReferencedSOPInstanceUID")) for source in sources}


def _are_disjoint(a: Scan, b: Scan) -> bool:
    """True for the two parts of one scan that one draw kept and left over."""
    parts = [
        _PART.match(str(part.provenance.header.get("DerivationDescription") or ""))  # type: ignore[union-attr]
        for part in (a, b)
    ]
    if None in parts:
        return False
    (share, role, seed), (rest, other, again) = (part.groups() for part in parts if part)
    return role != other and seed == again and isclose(float(share) + float(rest), 100, abs_tol=0.1)
