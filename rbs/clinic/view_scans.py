"""Scans in, a page out: rapid, restored and standard images for the eye, and pairs for readers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbs.clinic.acquisitions import Acquisition, acquisitions, join_views, pair_views, path_of
from rbs.clinic.outcomes import Refusal
from rbs.clinic.restore_scans import ScanRestorer, restore_scan
from rbs.clinic.segment_scans import segment_acquisition
from rbs.clinic.sources import Source
from rbs.data.manifest import read_rows
from rbs.data.matching import refuse_other_grid, refuse_two_patients
from rbs.errors import ManifestError, RbsError, ScanError
from rbs.inference.censored import filled
from rbs.inference.strengths import Strength, apply
from rbs.report.viewer import Image, Mark, geometry, packed, packed_scan, shared_black
from rbs.scans.counts import standard_scale
from rbs.scans.dicom.reader import is_processed, read_nm
from rbs.scans.scan import STANDARD_VELOCITY, Scan, View
from rbs.segmentation.measures.hot_spots import HotSpot, find_hot_spots
from rbs.utils.guard import attempt
from rbs.utils.version import VERSION

if TYPE_CHECKING:
    from rbs.inference.segmentation import AnySegmenter


class ScanViewer:
    """Making scans ready for the page, study by study.

    Args:
        restorer: The restorer, with the options of reading.
        segmenter: Finds the regions whose contours can be shown; None for no contours.
        standard: The standard scan of the only scan; None where there is none.
        named: Whether the page shows names of files, which may tell who the patient is.
    """

    def __init__(
        self,
        restorer: ScanRestorer,
        segmenter: AnySegmenter | None = None,
        standard: Scan | None = None,
        *,
        named: bool = False,
    ) -> None:
        self.restorer, self.segmenter, self.standard, self.named = restorer, segmenter, standard, named

    def packed(self, sources: Iterable[Source]) -> Iterator[tuple[Acquisition, dict[str, Any]] | Refusal]:
        """Restore scans at each strength and pack them; a refused one does not stop the others.

        Args:
            sources: The files. Two that hold a view each of one acquisition are one scan.

        Yields:
            What was acquired and how the page holds it, as of `packed_scan`; or why a file is not
            shown.

        Raises:
            RbsError: There are several scans, and a standard scan, which is that of one.
        """
        number = 0
        found = acquisitions(sources, self.restorer.read, named=self.named)
        for acquired in _only(found) if self.standard else found:
            if isinstance(acquired, Refusal):
                yield acquired
                continue
            number += 1
            paths = acquired.paths
            name = " + ".join(path.stem for path in paths) if self.named else f"scan {number}"
            shown = attempt(paths[0], self._packed, acquired, name)
            if isinstance(shown, RbsError):
                number -= 1
                yield from acquired.refusals(shown, paths)
            else:
                yield acquired, shown

    def _packed(self, acquired: Acquisition, name: str) -> dict[str, Any]:
        loaded, velocity = self.restorer.loaded, self.restorer.standard_velocity
        exposure = acquired.scan.exposure_of(velocity)
        rapid = filled(acquired.scan, loaded, exposure)
        images = [_as_counted("rapid scan", rapid, exposure, cut=acquired.scan.cut)]
        strong = restore_scan(rapid, loaded, velocity, strength=Strength.STRONG)
        for strength in Strength:
            given = strong.aligned(), rapid.aligned(), exposure, rapid.spacing_mm
            counts = rapid.unaligned(apply(strength, *given))
            about = f"restored, strength {strength} (rbs {VERSION}, weights {loaded.sha256[:12]})"
            images.append(Image(f"restored ({strength})", about, counts, restored=True))
        if self.standard:
            images.append(self._standard_image(acquired))
        labels, marks = None, []
        doubts: tuple[str, ...] = ()
        if self.segmenter:
            segmented = segment_acquisition(acquired, self.segmenter, velocity, name)
            labels, doubts = rapid.unaligned(segmented.labels), segmented.warnings
            spots = find_hot_spots(
                acquired.scan.aligned(), segmented.probabilities, rapid.spacing_mm, segmented.views
            )
            marks = [_mark(spot, rapid.shape[1]) for spot in spots if spot.focus]
        warnings = dict.fromkeys((*(w for path in acquired.paths for w in acquired.warnings[path]), *doubts))
        acquired_counts = " and ".join(f"{int(view.sum()):,}" for view in acquired.scan.counts)
        about = f"{', '.join(rapid.views)}; {acquired_counts} counts at {rapid.velocity:.4g} cm/min"
        return packed_scan(
            rapid,
            images,
            name=name,
            about=about,
            exposure=exposure,
            labels=labels,
            marks=marks,
            warnings=list(warnings),
        )

    def _standard_image(self, acquired: Acquisition) -> Image:
        """The standard scan, its frames in the order of the rapid one.

        Raises:
            ManifestError: It is of another patient, or has other views or pixels.
        """
        assert self.standard is not None
        rapid, standard = acquired.scan, self.standard
        files = [acquired.paths[0], path_of(standard)]
        refuse_two_patients(files, [rapid.patient_id, standard.patient_id])
        refuse_other_grid(files[0], rapid, files[1], standard)
        order = [standard.views.index(view) for view in rapid.views]
        ordered = standard.with_counts(standard.counts[order], views=rapid.views)
        return _as_counted("standard scan", ordered, standard.exposure_of(self.restorer.standard_velocity))


def _only(found: Iterable[Acquisition | Refusal]) -> list[Acquisition | Refusal]:
    """Refuse a second scan before the first is restored."""
    read: list[Acquisition | Refusal] = []
    for one in found:
        read.append(one)
        if sum(isinstance(acquired, Acquisition) for acquired in read) > 1:
            raise RbsError("--standard is that of one scan", remedy="name one SCAN")
    return read


def read_standard(files: Sequence[Path], reading: Mapping[str, Any]) -> Scan:
    """Read the standard scan, of one file or of two that hold a view each.

    Args:
        files: Its files.
        reading: Options of `read_nm` for files that do not say all.

    Raises:
        ScanError: A file cannot be read, or two are not the views of one acquisition.
    """
    groups = pair_views([read_nm(file, **reading) for file in files])
    if len(groups) > 1:
        fault = "it and the other file are not the two views of one acquisition"
        raise ScanError(fault, file=files[0], remedy="name the standard scan of the rapid one")
    return join_views(groups[0])


PAIR_COLUMNS = ("pair", "a", "b")
"""Columns of the table of pairs: a name, and two DICOM files, relative to the table."""


def packed_pairs(
    table: Path, reading: Mapping[str, Any], standard_velocity: float = STANDARD_VELOCITY
) -> list[dict[str, Any]]:
    """Read the pairs of a reader study and pack them, as `rbs.report.reader_study` takes them.

    Raw counts are brought to the exposure of the standard scan; restored and other derived images
    are shown at the scale of their real world values.

    Args:
        table: CSV file with the columns `PAIR_COLUMNS`.
        reading: Options of `read_nm` for files that do not say all.
        standard_velocity: cm/min of your standard scans.

    Raises:
        ManifestError: The table is none, two pairs have one name, or the two files of a pair differ
            in patient, views or pixels.
        ScanError: A file cannot be read, or its velocity is unknown.
    """
    rows = [row for _, row in read_rows(table, PAIR_COLUMNS, PAIR_COLUMNS)]
    names = [row["pair"] for row in rows]
    if not rows or len(set(names)) < len(names) or not all(names):
        fault = "it holds no pair, or two pairs of one name, or one without a name"
        raise ManifestError(fault, file=table, remedy="give every pair a name of its own")
    return [_packed_pair(row, table.parent, reading, standard_velocity) for row in rows]


def _packed_pair(
    row: Mapping[str, str], folder: Path, reading: Mapping[str, Any], standard_velocity: float
) -> dict[str, Any]:
    files = {side: folder / row[side] for side in "ab"}
    scans = {side: _shown(file, reading, standard_velocity) for side, file in files.items()}
    a, b = scans["a"], scans["b"]
    refuse_two_patients(list(files.values()), [a.patient_id, b.patient_id])
    refuse_other_grid(files["a"], a, files["b"], b)
    b = b.with_counts(b.counts[[b.views.index(view) for view in a.views]], views=a.views)
    images = {"a": a.counts, "b": b.counts}
    return {
        "name": row["pair"],
        "files": {side: row[side] for side in "ab"},
        "scan": {**geometry(a), "black": shared_black(list(images.values()))},
        "images": {side: packed(counts) for side, counts in images.items()},
    }


def _shown(file: Path, reading: Mapping[str, Any], standard_velocity: float) -> Scan:
    """A scan at the exposure of the standard one, whatever was done to it before."""
    scan = read_nm(file, **reading, require_raw=False, processed=True)
    header = scan.provenance.header
    if header is not None and is_processed(header):
        return scan
    return scan.with_counts(standard_scale(scan.counts, scan.exposure_of(standard_velocity)), cut=0)


def _as_counted(name: str, scan: Scan, exposure: float, cut: int = 0) -> Image:
    """A scan that was acquired, at the exposure of the standard scan.

    Counts up to `cut` were filled in.
    """
    scaled = "" if exposure == 1 else f", counts x {1 / exposure:.3g}"
    estimated = f", counts up to {cut} cut from the file and filled in by the restorer" if cut else ""
    about = f"{name}, {scan.velocity:.4g} cm/min{scaled}{estimated}"
    return Image(name, about, standard_scale(scan.counts.astype("float32"), exposure))


def _mark(spot: HotSpot, columns: int) -> Mark:
    column = columns - 1 - spot.column if spot.view == View.POSTERIOR else spot.column
    return Mark(spot.view, spot.row, column, str(spot.focus))
