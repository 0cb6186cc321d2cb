"""Scans in, tables out: regions, hot spots and the open bone scan index of labelled scans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rbs.clinic.acquisitions import Acquisition, examiner, results_of
from rbs.clinic.outcomes import Refusal
from rbs.clinic.segment_scans import Segmented, segment_acquisition
from rbs.clinic.sources import Source
from rbs.errors import printable
from rbs.scans.scan import STANDARD_VELOCITY, View
from rbs.segmentation.measures.bone_index import BoneIndex, bone_index
from rbs.segmentation.measures.hot_spots import HotSpot, find_hot_spots
from rbs.segmentation.measures.regions import RegionRow, region_table
from rbs.utils.words import counted as counted_words

if TYPE_CHECKING:
    from rbs.inference.segmentation import AnySegmenter


SPOT_COLUMNS = (
    *("file", "view", "region", "focus", "left_out", "row", "column"),
    *("probability", "area_cm2", "counts", "contrast", "contrast_sd"),
)
"""Columns of the table hot_spots.csv."""


@dataclass(frozen=True)
class Quantified:
    """Measures of a scan.

    Attributes:
        name: Its file or files, as tables name them.
        sources: Its file; two where each held one view; none where it came from no file.
        columns: Columns of a view.
        index: The open bone scan index.
        spots: Its hot spots, the surest first.
        regions: The table of its regions.
        warnings: What makes them doubtful.
    """

    name: str
    sources: tuple[Path, ...]
    columns: int
    index: BoneIndex
    spots: tuple[HotSpot, ...]
    regions: tuple[RegionRow, ...]
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        area, weighted = self.index.area_percent, self.index.weighted_percent
        where = ", ".join(f"{name} {n}" for name, n in self.index.foci_by_region.items() if n)
        foci = counted_words(self.index.foci, "hot spot") if self.index.foci else "no hot spot"
        share = (
            f": {area.value:.2f} ± {area.sd:.2f} % of the skeleton's area, {weighted.value:.2f} % by the"
            f" weight of an adult's bones ({where})"
        )
        line = f"{self.name}: {foci}{share if self.index.foci else ''}"
        return "\n".join(map(printable, [line, *(f"  warning: {text}" for text in self.warnings)]))

    def index_row(self) -> dict[str, Any]:
        """The row of the table index.csv."""
        numbers = {
            "area_index_percent": self.index.area_percent,
            "weighted_index_percent": self.index.weighted_percent,
            **{f"{name}_percent": value for name, value in self.index.by_region.items()},
        }
        row: dict[str, Any] = {"file": self.name, "hot_spots": self.index.foci}
        for name, value in numbers.items():
            row |= {name: value.value, f"{name}_sd": value.sd}
        row |= {f"{name}_hot_spots": n for name, n in self.index.foci_by_region.items()}
        return row | {"warnings": "; ".join(self.warnings)}

    def spot_rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the table hot_spots.csv; their rows and columns are those of the file."""
        for spot in self.spots:
            mirrored = spot.view == View.POSTERIOR
            column = self.columns - 1 - spot.column if mirrored else spot.column
            place = self.name, str(spot.view), spot.region, spot.focus or "", spot.reason, spot.row, column
            contrast = spot.contrast.value, spot.contrast.poisson
            row = *place, spot.probability, spot.area_cm2, spot.counts, *contrast
            yield dict(zip(SPOT_COLUMNS, row, strict=True))

    def region_rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the table regions.csv."""
        return ({"file": self.name, **row.as_dict()} for row in self.regions)


def quantify_scan(segmented: Segmented, *, counted: float = 1.0) -> Quantified:
    """Measure the regions and the hot spots of a scan whose regions are known.

    Args:
        segmented: Raw counts, or a restored scan, with its regions.
        counted: Of a restored scan the exposure of its rapid scan: Poisson errors are those of the
            counts that were counted.

    Raises:
        ScanError: It holds no counts, or no bone is found in it.
    """
    scan, probabilities = segmented.scan, segmented.probabilities
    given = (scan.aligned(), probabilities, scan.spacing_mm, segmented.views)
    spots = find_hot_spots(*given, exposure=counted)
    sources = tuple(path for file in segmented.files if (path := file.provenance.path))
    return Quantified(
        name=segmented.name or " + ".join(path.name for path in sources),
        sources=sources,
        columns=scan.shape[1],
        index=bone_index(probabilities, spots, segmented.views, scan.spacing_mm),
        spots=tuple(spots),
        regions=tuple(region_table(*given, exposure=counted)),
        warnings=segmented.warnings,
    )


def quantify_files(
    sources: Iterable[Source],
    segmenter: AnySegmenter,
    reading: Mapping[str, Any],
    standard_velocity: float = STANDARD_VELOCITY,
    names: Mapping[Path, str] = MappingProxyType({}),
) -> Iterator[Quantified | Refusal]:
    """Quantify DICOM files, study by study; two files that hold a view each are one scan.

    Args:
        sources: The files. What rbs restored is refused, as by `read_nm`.
        segmenter: The segmenter.
        reading: Options of `read_nm` for files that do not say all.
        standard_velocity: cm/min of your standard scans.
        names: Name of each file, by its path; that of the file by default.

    Yields:
        The measures of each scan, or why a file has none.
    """

    def measure(acquired: Acquisition, name: str) -> Quantified:
        return quantify_scan(segment_acquisition(acquired, segmenter, standard_velocity, name))

    examine = examiner(segmenter.provenance, reading, standard_velocity)
    yield from results_of(sources, examine, measure, names)
