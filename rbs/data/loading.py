"""The arrays of a case: its files opened, joined and laid on one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rbs.data.manifest import Case
from rbs.data.matching import check_together, unlike
from rbs.errors import ManifestError, ScanError
from rbs.scans.censoring import completed, cut_counts
from rbs.scans.facts import Facts, facts_of
from rbs.scans.registration import Motion, estimate_motion
from rbs.scans.scan import REGIONS, Array, Scan, View, align
from rbs.utils.files import read_npz


@dataclass(frozen=True)
class LoadedCase:
    """The arrays of a case, all aligned (anterior first, posterior mirrored) and on one pixel grid.

    Attributes:
        rapid: Raw counts of the rapid scan, float32 (V, H, W), or None without one.
        standard: Raw counts of the standard scan, float32 (V, H, W).
        cut: Counts of both up to this number were set to 0 by the export and are drawn anew here
            (`rbs.scans.censoring.completed`); 0 where none were.
        exposure: Exposure of the rapid scan relative to the standard one; None without a rapid
            scan.
        labels: Region labels, uint8 (V, H, W), 0 background and k + 1 for REGIONS[k]; None where
            neither a truth file nor label files hold them.
        expectation: Expected counts of the standard scan, float32 (V, H, W); None without truth.
        views: The view of each of the V channels.
        spacing_mm: Row and column spacing, mm.
        motion: From the standard scan to the rapid one; None where no motion was found, or where
            it was not estimated.
        facts: What the manifest states of the child, or else the header of the standard scan.
        expectation_rapid: Expected standard counts of the camera that took the rapid scan, where
            that is another one, float32 (V, H, W); None where it is not.
    """

    rapid: Array | None
    standard: Array
    exposure: float | None
    labels: Array | None
    expectation: Array | None
    views: tuple[View, ...]
    spacing_mm: tuple[float, float]
    motion: Motion | None = None
    cut: int = 0
    facts: Facts = field(default_factory=Facts)
    expectation_rapid: Array | None = None


def load_case(case: Case, *, register: bool = False, require_raw: bool = True) -> LoadedCase:
    """Open the files of a case and lay them on one grid.

    Args:
        case: A row of the manifest.
        register: Whether to find out how the patient moved between the two scans, which takes about
            a second.
        require_raw: Whether to refuse counts that are not raw (see `rbs.scans.noise`).

    Raises:
        ScanError: A scan cannot be read or, asked to register, holds next to nothing; or the
            velocity of a rapid scan or its standard scan is unknown.
        ManifestError: Two files of the case differ in patient, shape, views, spacing or velocity
            (both are named), the rapid scan is no faster than the standard one or shares counts
            with it, or a truth or label file does not hold what it should.
    """
    from rbs.data.shared_counts import shared_counts

    standards = _read_files(case.standard, case.standard_velocity, case.stated_views, require_raw)
    rapids = _read_files(case.rapid, case.rapid_velocity, case.stated_views, require_raw)
    check_together(case.rapid, rapids, case.standard, standards)
    standard = _join(standards)
    rapid, exposure = None, None
    if rapids:
        rapid = _join(rapids)
        # The standard scan is asked first, so that the one without a velocity is the one named.
        standard.exposure_of()
        exposure = rapid.exposure_of(standard.velocity)  # type: ignore[arg-type]
        if fault := shared_counts(rapids, standards):
            raise ManifestError(
                fault,
                file=case.rapid[0],
                remedy="pair it with an independent scan, such as one made of what `rbs thin --remainder`"
                " left over, or leave rapid empty",
            )
    views = tuple(sorted(standard.views))  # "anterior" sorts before "posterior", as Scan.aligned orders them
    expectation, labels = (
        _read_truth(case.truth, case.standard[0], standard, views) if case.truth else (None, None)
    )
    cut = max(scan.cut for scan in (*standards, *rapids))
    stated = Facts(case.age_y, case.height_cm, case.weight_kg)
    facts = stated.filled(facts_of(standard.provenance.header))
    standard = _complete(standard, cut)
    rapid = None if rapid is None else _complete(rapid, cut)
    if case.labels:
        labels = _read_labels(case.labels, standards, standard)
    motion = None if rapid is None or not register else _motion(case, rapid, standard)
    return LoadedCase(
        rapid=None if rapid is None else rapid.aligned(),
        standard=standard.aligned(),
        exposure=exposure,
        labels=labels,
        expectation=expectation,
        views=views,
        spacing_mm=standard.spacing_mm,
        motion=motion,
        cut=cut,
        facts=facts,
    )


def _read_files(
    files: Sequence[Path], velocity: float | None, stated: Mapping[Path, View], require_raw: bool
) -> list[Scan]:
    from rbs.scans.dicom.reader import read_nm

    views = [(stated[file],) if file in stated else None for file in files]
    return [
        read_nm(file, velocity=velocity, views=own, require_raw=require_raw)
        for file, own in zip(files, views, strict=True)
    ]


def _join(scans: Sequence[Scan]) -> Scan:
    """One scan of one file, or of files of one view each; of cut ones as much is cut from all."""
    views = tuple(view for scan in scans for view in scan.views)
    cut = max(scan.cut for scan in scans)
    counts = np.concatenate([cut_counts(scan.counts, cut) for scan in scans])
    return scans[0].with_counts(counts, views=views, cut=cut)


def _complete(scan: Scan, cut: int) -> Scan:
    """The scan with the counts that were cut, or that another scan of the case lacks, drawn."""
    return scan.with_counts(completed(scan.counts, cut), cut=0)


def _motion(case: Case, rapid: Scan, standard: Scan) -> Motion | None:
    try:
        found = estimate_motion(standard.aligned(), rapid.aligned(), standard.spacing_mm)
    except ScanError as error:
        raise ScanError(error.fault, file=case.rapid[0], remedy="leave the pair out") from error
    return None if found.kind == "none" else found


def _read_labels(files: Sequence[Path], scans: Sequence[Scan], whole: Scan) -> Array:
    """Labels of the views, aligned; see `LoadedCase`."""
    from rbs.data.labels import read_labels

    frames = [read_labels(file, scan) for file, scan in zip(files, scans, strict=True)]
    return whole.with_counts(np.concatenate(frames)).aligned().astype(np.uint8)


def _read_truth(file: Path, scan_file: Path, scan: Scan, views: tuple[View, ...]) -> tuple[Array, Array]:
    """Expectation and labels of the views, aligned; see `LoadedCase`."""
    try:
        content = read_npz(file)
        expectation, labels = content["expectation"], content["labels"]
    except (ValueError, KeyError) as error:
        fault = f"it is no truth file ({error})"
        remedy = "give an .npz with the arrays expectation and labels"
        raise ManifestError(fault, file=file, remedy=remedy) from error
    shape = scan.counts.shape[1:]
    if expectation.shape != labels.shape or expectation.ndim != 3 or expectation.shape[1:] != shape:
        raise unlike(
            file, scan_file, f"shape: {expectation.shape}, labels {labels.shape}, and {shape} pixels"
        )
    # Frames are stored as the camera writes them: anterior, posterior (not mirrored), or the one
    # view.
    frames = (View.ANTERIOR, View.POSTERIOR) if len(expectation) == 2 else views
    if len(frames) != len(expectation) or not set(views) <= set(frames):
        raise unlike(file, scan_file, f"views: {len(expectation)} frames and {', '.join(views)}")
    if (
        not np.isfinite(expectation).all()
        or (expectation < 0).any()
        or labels.max() > len(REGIONS)
        or labels.min() < 0
    ):
        raise ManifestError(
            "the truth is not finite, negative or has unknown labels", file=file, remedy="make it anew"
        )
    index = [frames.index(view) for view in views]
    return align(expectation[index], views).astype(np.float32), align(labels[index], views).astype(np.uint8)
