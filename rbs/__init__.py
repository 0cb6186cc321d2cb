"""Restoring rapid whole-body bone scans (40 cm/min) to the quality of standard ones (20 cm/min).

The functions here do what the commands of the same names do:

    import rbs

    scan = rbs.read("rapid.dcm")
    print(rbs.inspect(scan))
    restored = rbs.restore(scan)  # counts at standard exposure: restored.counts

Importing the package imports neither NumPy nor PyTorch; a function imports what it needs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from rbs.clinic.checks import AcceptanceReport
    from rbs.clinic.quantify_scans import Quantified
    from rbs.inference.strengths import Strength
    from rbs.scans.scan import Array, Scan, View

    __version__: str

# Nothing leaves the machine: ONNX Runtime reports its use to Microsoft by default.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["evaluate", "fit", "inspect", "quantify", "read", "restore", "segment", "simulate"]

STANDARD_VELOCITY = 20.0
"""Bed velocity of a standard scan, cm/min."""


def __getattr__(name: str) -> Any:
    """Look the version up on request, since importlib.metadata is slow to import."""
    if name == "__version__":
        from rbs.utils.version import VERSION

        return VERSION
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def read(
    path: str | Path,
    *,
    views: Sequence[View | str] | None = None,
    energy_window: int | None = None,
    velocity: float | None = None,
) -> Scan:
    """Read the raw counts of a whole-body scan from a DICOM Nuclear Medicine file.

    Args:
        path: A file of one or two views.
        views: "anterior" or "posterior" for each frame, for files that do not name them.
        energy_window: Energy window to read, counted from 1, for files with several.
        velocity: Bed velocity, cm/min, for files that do not state it.

    Returns:
        The scan with integer counts (frames, rows, columns), posterior frames not mirrored.

    Raises:
        ScanError: The file cannot be read, is no whole-body scan, or does not hold raw counts.
    """
    from rbs.scans.dicom.reader import read_nm
    from rbs.scans.scan import View

    named = None if views is None else tuple(View(view) for view in views)
    return read_nm(path, views=named, energy_window=energy_window, velocity=velocity)


def inspect(scan: Scan | str | Path, *, standard_velocity: float = STANDARD_VELOCITY) -> AcceptanceReport:
    """Report what was understood of a scan, and whether it is fit for restoring and for training.

    Args:
        scan: A scan, or the path of a DICOM file.
        standard_velocity: Bed velocity of your standard scans, cm/min.

    Returns:
        The report: `print` it, or take `as_dict()`.

    Raises:
        ScanError: The file cannot be read.
    """
    from rbs.clinic.checks import check
    from rbs.scans.dicom.reader import read_nm

    if isinstance(scan, str | Path):
        # The noise of smoothed data and unnamed views are reported here, not refused.
        scan = read_nm(scan, require_raw=False, require_views=False)
    return check(scan, standard_velocity=standard_velocity)


def restore(
    scan: Scan | str | Path,
    *,
    checkpoint: str | Path = "shipped",
    adapt: bool = False,
    strength: Strength | str = "standard",
    standard_velocity: float = STANDARD_VELOCITY,
    scale: int = 1,
) -> Scan:
    """Restore a rapid scan to standard exposure.

    Args:
        scan: A scan, or the path of a DICOM file.
        checkpoint: Weights, .safetensors, .ckpt or .onnx, or "shipped" for those that come with
            rbs. All but .onnx files and the default need PyTorch.
        adapt: Fit the restorer to the scan's own counts first; needs PyTorch.
        strength: "gentle", for reading faint foci, "standard", or "strong", the quietest image.
        standard_velocity: Bed velocity of your standard scans, cm/min.
        scale: 2 restores a scan of coarse pixels to twice as many rows and columns.

    Returns:
        The scan with float32 counts at standard exposure. `rbs restore` writes DICOM files.

    Raises:
        ScanError: The file cannot be read, or the scan is not fit to be restored.
        CheckpointError: The weights cannot be used.
        RbsError: There is no such strength.
    """
    from rbs.clinic.checks import check
    from rbs.clinic.restore_scans import restore_scan
    from rbs.errors import RbsError
    from rbs.inference.load import load_for_scans
    from rbs.inference.strengths import Strength

    if strength not in tuple(Strength):
        raise RbsError(f"there is no strength {strength!r}", remedy=f"name one of {', '.join(Strength)}")
    if isinstance(scan, str | Path):
        scan = read(scan)
    loaded = load_for_scans(checkpoint, adapt=adapt, scale=scale)
    trained_on = loaded.provenance
    report = check(scan, standard_velocity=standard_velocity, trained_on=trained_on, scale=scale)
    report.restoring.require(scan.provenance.path)
    return restore_scan(scan, loaded, standard_velocity, strength=Strength(strength))


def segment(
    scan: Scan | str | Path,
    *,
    segmenter: str | Path = "shipped",
    probabilities: bool = False,
    standard_velocity: float = STANDARD_VELOCITY,
) -> Array:
    """Find the regions of the skeleton in a scan.

    Args:
        scan: A scan, or the path of a DICOM file.
        segmenter: Weights of a segmenter, or "shipped" for those that come with rbs.
        probabilities: Return the probabilities of background and regions in place of the labels.
        standard_velocity: Bed velocity of your standard scans, cm/min.

    Returns:
        Labels of the frames as stored, uint8 (frames, rows, columns): k + 1 for
        `rbs.scans.scan.REGIONS[k]`, 0 for background; or probabilities, float32
        (frames, 1 + regions, rows, columns). `rbs segment` writes DICOM Segmentation objects.

    Raises:
        ScanError: The file cannot be read, or the scan is not fit, or shows no region.
        CheckpointError: The segmenter cannot be used.
    """
    from rbs.clinic.checks import check
    from rbs.clinic.segment_scans import segment_scan
    from rbs.inference.segmentation import load_segmenter_for

    if isinstance(scan, str | Path):
        scan = read(scan)
    check(scan, standard_velocity=standard_velocity).training.require(scan.provenance.path)
    found = segment_scan([scan], load_segmenter_for(segmenter), standard_velocity)
    return scan.unaligned(found.probabilities if probabilities else found.labels)


def quantify(
    scan: Scan | str | Path,
    *,
    segmenter: str | Path = "shipped",
    standard_velocity: float = STANDARD_VELOCITY,
    counted: float = 1.0,
) -> Quantified:
    """Measure the regions and the hot spots of a scan, and an open bone scan index.

    Args:
        scan: A scan of raw counts or a restored one, or the path of a DICOM file.
        segmenter: Weights of a segmenter, or "shipped" for those that come with rbs.
        standard_velocity: Bed velocity of your standard scans, cm/min.
        counted: Of a restored scan the exposure of its rapid scan, 0.5 for one at 40 cm/min: its
            Poisson errors are those of the counts that were counted.

    Returns:
        The measures: `print` them, or see `index`, `spots` and `regions`.

    Raises:
        ScanError: The file cannot be read, the scan holds no counts, or no bone is found in it.
        CheckpointError: The weights cannot be used.
    """
    from rbs.clinic.quantify_scans import quantify_scan
    from rbs.clinic.segment_scans import segment_scan
    from rbs.inference.segmentation import load_segmenter_for

    if isinstance(scan, str | Path):
        scan = read(scan)
    segmented = segment_scan([scan], load_segmenter_for(segmenter), standard_velocity)
    return quantify_scan(segmented, counted=counted)


def simulate(
    out: str | Path,
    *,
    patients: int = 137,
    seed: int = 1,
    rapid_velocity: float = 40.0,
    standard_velocity: float = STANDARD_VELOCITY,
    moving: bool = False,
    dose: float = 1.0,
    workers: int = 1,
) -> Path:
    """Write phantom children: rapid and standard DICOM scans, truth and a manifest.

    Args:
        out: Folder to write; an interrupted cohort in it is finished.
        patients: Number of children, at least 3 so that each split has one.
        seed: Decides everything random.
        rapid_velocity: Bed velocity of the rapid scans, cm/min.
        standard_velocity: That of the standard scans, cm/min.
        moving: Let children move by up to 6 mm between the two scans.
        dose: Administered activity relative to the usual.
        workers: Processes to use.

    Returns:
        Path of the manifest, for `evaluate` and `fit`.

    Raises:
        RbsError: The settings make no cohort, or the folder cannot take it.
    """
    from rbs.synthetic.cohort import Acquisition, write_cohort

    acquisition = Acquisition(rapid_velocity, standard_velocity, moving, dose)
    return write_cohort(Path(out), patients, seed, acquisition=acquisition, workers=workers)


def evaluate(
    manifest: str | Path,
    output: str | Path,
    *,
    stage1: Sequence[str | Path] = (),
    stage2: str | Path | None = None,
    teacher: str | Path | None = None,
    adapt: bool = False,
    strengths: bool = False,
    against: str | None = None,
    split: str = "test",
    overwrite: bool = False,
) -> pd.DataFrame:
    """Score restorers and classical methods on a split of a manifest of scans or frames.

    Args:
        manifest: CSV of the cases.
        output: Folder of the results, which `rbs report` makes a page of.
        stage1: Weights of one restorer or several to compare; "shipped" for those of rbs.
        stage2: Weights of the first restorer of stage 2; the second one is read from
            `cascade.safetensors` beside them.
        teacher: File of the segmenter, or folder of the adapted SAM, whose priors the second
            restorer of stage 2 was trained with.
        adapt: Add a row each of `stage1` fitted to each scan's own counts; scans only.
        strengths: Add a row of each strength to each of `stage1`; scans only.
        against: Method to compare all others with; None for the best peer by each metric.
        split: "train", "val" or "test".
        overwrite: Replace results in the output folder.

    Returns:
        One row for each method and metric, with mean and 95 % interval.

    Raises:
        RbsError: The manifest, a scan or the weights cannot be used, or the output not written.
    """
    from rbs.evaluation.manifests import evaluate_manifest
    from rbs.evaluation.methods import trained_methods
    from rbs.weights.shipped import teacher_folder, weights_path

    trained = trained_methods(
        [weights_path(file) for file in stage1],
        None if stage2 is None else Path(stage2),
        None if teacher is None else teacher_folder(teacher),
        adapt=adapt,
        strengths=strengths,
    )
    return evaluate_manifest(
        Path(manifest), Path(output), trained=trained, against=against, split=split, overwrite=overwrite
    )


def fit(config: str | Path | Mapping[str, Any], **settings: Any) -> Path:
    """Train an experiment in this process.

    Args:
        config: A YAML file, the name of an experiment that comes with rbs ("stage1"), or the
            content of such a file.
        settings: Settings that replace those of the experiment: `trainer={"max_steps": 100}`, or
            with dotted names. `name` names the run; the default is the name of the experiment.

    Returns:
        Folder of the run, `<trainer.default_root_dir>/<name>`: it holds what the task makes, such
        as `restorer.safetensors`, and a folder `version_N` of each training.

    Raises:
        RbsError: A setting is unknown or has no valid value, or the training cannot start.
    """
    from rbs.tasks.fit import fit

    return fit(config, **settings)
