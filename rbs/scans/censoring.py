"""Cut counts: scans in which counts up to a threshold were set to 0 by the export."""

from __future__ import annotations

import numpy as np

from rbs.scans.scan import Array


def cut_counts(counts: Array, cut: int) -> Array:
    """Set counts up to `cut` to 0, as an export did; the same array where `cut` is 0."""
    return np.where(counts > cut, counts, 0).astype(counts.dtype) if cut else counts
