"""One labelled scan in, a segmenter out: it is trained on scans that have no labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rbs.data.datasets import GRID
from rbs.data.labels import labels_file, write_labels
from rbs.data.manifest import Case, write_manifest
from rbs.errors import RbsError, ScanError
from rbs.scans.acceptance import too_few_counts
from rbs.scans.dicom.reader import read_nm
from rbs.scans.scan import STANDARD_VELOCITY, Array, Scan
from rbs.segmentation.atlas import is_cut_off
from rbs.utils.files import claim_folder
from rbs.utils.guard import attempt

EXPERIMENT = "one_label"
"""The training, which comes with rbs."""

FOLDER = "atlas"
"""Folder below the outputs: manifest, log, checkpoints and weights of the student."""

PIXEL_RATIO = 1.5
"""Largest ratio of the pixel sizes of atlas and scan: labels drawn on coarser pixels miss ribs."""


@dataclass(frozen=True)
class Student:
    """A segmenter that was trained from one labelled scan.

    Attributes:
        weights: Its file.
        scans: Number of scans without labels that it was trained on.
        left_out: Scans that took no part, with the reason.
    """

    weights: Path
    scans: int
    left_out: dict[Path, RbsError]


def train_student(
    atlas: Scan,
    labels: Array,
    files: Sequence[Path],
    out: Path,
    *,
    read: Callable[[Path], Scan] = read_nm,
    standard_velocity: float = STANDARD_VELOCITY,
    **settings: object,
) -> Student:
    """Train a segmenter from one labelled scan and scans without labels.

    What it makes lies in `out`/atlas. Called again with the same atlas, it goes on where it was
    interrupted, or finds the weights there.

    Args:
        atlas: The labelled scan, from a file.
        labels: Labels of its frames, from `rbs.data.labels.read_labels`.
        files: Scans without labels, DICOM; the atlas among them is passed over.
        out: Folder of the outputs.
        read: Reader of a DICOM file.
        standard_velocity: cm/min of your standard scans, by which exposures are stated.
        settings: Settings of the training in place of those of the experiment, see `rbs.fit`.

    Raises:
        ScanError: All pixels of the atlas are labelled background, it shows a part of the body,
            or no other scan can be used.
        OutputError: `out` holds the student of another atlas, or cannot be written.
    """
    from rbs.tasks.fit import fit

    path = atlas.provenance.path
    assert path is not None  # it was read from a file
    if not labels.any():
        raise ScanError("all its pixels are labelled background", file=path, remedy="label its bones")
    refuse_cut_off(atlas)
    scans, left_out = _usable(atlas, [file for file in files if not file.samefile(path)], read)
    if not scans:
        reason = next(iter(left_out.values()), None)
        fault = f"no scan besides the atlas can be used{f': {reason.fault}' if reason else ''}"
        raise ScanError(fault, file=path, remedy="give a folder of scans without labels")
    folder = out / FOLDER
    digest = hashlib.sha256(atlas.counts.astype("<i8").tobytes() + labels.tobytes()).hexdigest()
    claim_folder(folder, "atlas.json", {"sha256": digest}, other="the student of another atlas")
    weights = folder / "segmenter.safetensors"
    if not weights.exists():
        write_labels(folder / path.name, labels)
        known = _case("atlas", path, atlas, (labels_file(folder / path.name),))
        numbered = enumerate(scans.items(), start=1)
        cases = [known, *(_case(f"scan-{n}", file, scan) for n, (file, scan) in numbered)]
        write_manifest(folder / "manifest.csv", cases, overwrite=True)
        shapes = [atlas.shape, *(scan.shape for scan in scans.values())]
        rows, columns = (-(-max(sizes) // GRID) * GRID for sizes in zip(*shapes, strict=True))
        data = {"manifest": folder / "manifest.csv", "crop": [rows, columns]}
        data["standard_velocity"] = standard_velocity
        place = {"default_root_dir": out, "limit_val_batches": 0}
        fit(EXPERIMENT, **_merged({**_RUN, "trainer": place, "data": data}, settings))
    return Student(weights, len(scans), left_out)


_RUN = {"name": FOLDER, "ckpt_path": "last", "wandb": "disabled"}


def _merged(settings: Mapping[str, object], others: Mapping[str, object]) -> dict[str, object]:
    """Nested settings, of which the others replace some."""
    merged = dict(settings)
    for name, value in others.items():
        known = merged.get(name)
        nested = isinstance(known, Mapping) and isinstance(value, Mapping)
        merged[name] = _merged(known, value) if nested else value  # type: ignore[arg-type]
    return merged


def _usable(
    atlas: Scan, files: Sequence[Path], read: Callable[[Path], Scan]
) -> tuple[dict[Path, Scan], dict[Path, RbsError]]:
    """Scans that the atlas can be carried to, and why others are left out."""

    def usable(file: Path) -> Scan:
        scan = read(file)
        refuse_unlike(atlas, scan)
        return scan

    results = {file: attempt(file, usable, file) for file in files}
    scans = {file: result for file, result in results.items() if isinstance(result, Scan)}
    return scans, {file: result for file, result in results.items() if isinstance(result, RbsError)}


def refuse_unlike(atlas: Scan, scan: Scan) -> None:
    """Refuse a scan that the labels of the atlas cannot be carried to.

    Raises:
        ScanError: It shows a view that the atlas lacks, its pixels are of another size, it holds
            too few counts, or it is one of a part of the body.
    """
    file = scan.provenance.path
    if lacking := [view for view in scan.views if view not in atlas.views]:
        fault = f"it shows the {lacking[0]} view, which the atlas lacks"
        raise ScanError(fault, file=file, remedy="label a scan of the views of the others")
    ratios = [one / other for one, other in zip(scan.spacing_mm, atlas.spacing_mm, strict=True)]
    if max(*ratios, *(1 / ratio for ratio in ratios)) > PIXEL_RATIO:
        sizes = [" x ".join(f"{size:.2f}" for size in s.spacing_mm) for s in (scan, atlas)]
        fault = f"its pixels are {sizes[0]} mm, those of the atlas {sizes[1]} mm"
        raise ScanError(fault, file=file, remedy="label a scan of the same matrix and zoom")
    if faults := list(too_few_counts(scan, scan.views)):
        raise ScanError(faults[0], file=file, remedy="leave it out")
    refuse_cut_off(scan)


def refuse_cut_off(scan: Scan) -> None:
    """Refuse a scan of a part of the body: a registration would stretch the atlas to it.

    Raises:
        ScanError: It begins or ends within the body.
    """
    if is_cut_off(scan.aligned(), scan.spacing_mm):
        fault = "it begins or ends within the body, and the atlas is carried to whole bodies"
        raise ScanError(fault, file=scan.provenance.path, remedy="choose a scan from head to feet")


def _case(name: str, file: Path, scan: Scan, labels: tuple[Path, ...] = ()) -> Case:
    stated = {file: scan.views[0]} if len(scan.views) == 1 else {}
    return Case(
        name, "train", (), (file,), labels=labels, stated_views=stated, standard_velocity=scan.velocity
    )
