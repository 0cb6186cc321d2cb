"""Tables over all segmented scans: agreement with known labels, and measures of the regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rbs.clinic.segment_scans import Segmented
from rbs.data.labels import labels_file, read_labels
from rbs.data.loading import load_case
from rbs.data.manifest import Case
from rbs.errors import RbsError, ScanError
from rbs.evaluation.segmentation import (
    RegionScore,
    RegionSummary,
    score_regions,
    summarise_regions,
    write_scores,
)
from rbs.report.regions import ShownScan, shown, write_regions_page
from rbs.scans.scan import Array
from rbs.segmentation.measures.regions import Measured, RegionRow, region_table
from rbs.utils.files import write_rows


class Scores:
    """Dice and surface distances of scans whose labels are known.

    Args:
        cases: Cases of a manifest by the path of each of their scans; labels beside a file
            (`rbs.data.labels`) serve where it is not among them.

    Attributes:
        summaries: The scores over patients, once they were written.
    """

    file: ClassVar[str] = "dice.csv"

    def __init__(self, cases: Mapping[Path, Case]) -> None:
        # A missing extra is told before the work, not after it.
        import rbs.evaluation.statistics.summary  # noqa: F401

        self.cases = cases
        self.scores: list[RegionScore] = []
        self.summaries: list[RegionSummary] = []

    def add(self, segmented: Segmented) -> Sequence[str]:
        """See `rbs.clinic.segment_scans.Report`."""
        truth = self._truth(segmented)
        if truth is None:
            return ("its labels are not known: it is not scored",)
        self.scores += score_regions(
            segmented.labels,
            truth,
            patient=segmented.name,
            views=segmented.views,
            spacing_mm=segmented.scan.spacing_mm,
        )
        return ()

    def _truth(self, segmented: Segmented) -> Array | None:
        """Known labels, aligned (V, H, W)."""
        paths = [scan.provenance.path for scan in segmented.files]
        if case := self.cases.get(paths[0] or Path()):
            loaded = load_case(case)
            if loaded.labels is None:
                return None
            missing = set(segmented.views) - set(loaded.views)
            if missing or loaded.labels.shape[1:] != segmented.labels.shape[1:]:
                raise ScanError("its labels are of other views", file=paths[0], remedy="mend the manifest")
            return loaded.labels[[loaded.views.index(view) for view in segmented.views]]
        beside = [labels_file(path) for path in paths if path]
        if not all(file.exists() for file in beside):
            return None
        read = [read_labels(file, scan) for file, scan in zip(beside, segmented.files, strict=True)]
        labels = segmented.scan.with_counts(np.concatenate(read), cut=0).aligned()
        return labels.astype(np.uint8)

    def write(self, folder: Path) -> None:
        """Write `dice.csv`.

        Raises:
            RbsError: No label was known.
            OutputError: It cannot be written.
        """
        if not self.scores:
            remedy = "name a manifest with truth or labels, or put NAME.labels.npz beside NAME.dcm"
            raise RbsError("no labels are known, so nothing was scored", remedy=remedy)
        write_scores(folder / self.file, self.scores)
        self.summaries = summarise_regions(self.scores)


class Measures:
    """Counts, shares and ratios of the regions of all scans.

    Attributes:
        rows: Name of the scan and its measures.
        last: Those of the scan that was taken in last.
    """

    file: ClassVar[str] = "regions.csv"

    def __init__(self) -> None:
        self.rows: list[tuple[str, RegionRow]] = []
        self.last: list[RegionRow] = []

    def add(self, segmented: Segmented) -> Sequence[str]:
        """See `rbs.clinic.segment_scans.Report`."""
        scan = segmented.scan
        rows = region_table(scan.aligned(), segmented.probabilities, scan.spacing_mm, segmented.views)
        self.rows += [(segmented.name, row) for row in rows]
        self.last = rows
        return ()

    def write(self, folder: Path) -> None:
        """Write `regions.csv`.

        Raises:
            OutputError: It cannot be written.
        """
        rows: list[dict[str, Any]] = [{"patient": name, **row.as_dict()} for name, row in self.rows]
        write_rows(folder / self.file, rows)


class Page:
    """Contours on every scan.

    Args:
        measures: Whose numbers stand beside them, which takes in each scan before the page does.
    """

    file: ClassVar[str] = "index.html"

    def __init__(self, measures: Measures | None) -> None:
        # As in `Scores`.
        import jinja2  # noqa: F401

        self.measures, self.segmenter = measures, ""
        self.scans: list[ShownScan] = []

    def add(self, segmented: Segmented) -> Sequence[str]:
        """See `rbs.clinic.segment_scans.Report`."""
        self.segmenter = segmented.segmenter
        rows = [_row(row) for row in self.measures.last] if self.measures else []
        labels = segmented.scan.unaligned(segmented.labels)
        self.scans.append(shown(segmented.name, segmented.scan, labels, rows, segmented.warnings))
        return ()

    def write(self, folder: Path) -> None:
        """Write `index.html`.

        Raises:
            OutputError: It cannot be written.
        """
        write_regions_page(self.scans, folder / self.file, segmenter=self.segmenter)


def _row(row: RegionRow) -> dict[str, str]:
    """A row of the page: the numbers that a reader compares, each with its uncertainty."""
    region = ", ".join(part for part in (row.plate or row.region, row.side) if part)
    numbers = {
        "counts": (row.counts, 0),
        "share, %": (row.share_percent, 1),
        "per pixel": (row.counts_per_pixel, 2),
        "left : right": (row.left_over_right, 2),
        "peak : shaft": (row.peak_over_shaft, 2),
    }
    texts = {name: _with_error(number, digits) for name, (number, digits) in numbers.items()}
    return {"view": str(row.view), "region": region, **texts}


def _with_error(number: Measured, digits: int) -> str:
    if not np.isfinite(number.value):
        return ""
    error = f" ± {number.sd:,.{digits}f}" if np.isfinite(number.sd) else ""
    return f"{number.value:,.{digits}f}{error}"
