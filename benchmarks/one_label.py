"""One labelled scan: labels carried by registration, against students trained on them.

    python benchmarks/one_label.py carry MANIFEST FOLDER --method ours
    python benchmarks/one_label.py carry MANIFEST FOLDER --method elastix
    python benchmarks/one_label.py student MANIFEST FOLDER --hint --seed 1
    python benchmarks/one_label.py table FOLDER docs/results/one_label.csv

One training child is labelled (`--atlas`), 40 others are not. Their standard scans are used, on
pixels of `--binning` times the side. Labels are carried to them and to the rapid scans of the test
children; both are scored by their own labels. `carry --method ours` comes first: students take its
labels. What is done already is kept in FOLDER. Elastix (`pip install itk-elastix`) starts from the
same frames of the body, with its own affine and B-spline registration of both views.
"""

from __future__ import annotations

import argparse
import csv
import pickle
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from rbs.data.datasets import collate
from rbs.data.labelled_scans import LabelledScans, binned
from rbs.data.loading import LoadedCase, load_case
from rbs.data.manifest import Case, Manifest
from rbs.data.one_label import carried
from rbs.evaluation.statistics.summary import interval
from rbs.scans.scan import REGIONS
from rbs.segmentation.atlas import Body, body_of, carry_labels, places_of
from rbs.segmentation.checkpoint import LoadedSegmenter, load_segmenter, save_segmenter
from rbs.segmentation.dynunet import DynUNet
from rbs.tasks.one_label import OneLabelTask

CHILDREN = 40
STEPS = 900
LARGE = ("skull", "thorax", "pelvis", "legs")
COLUMNS = [
    *("method", "atlas", "pixel_mm", "scans", "children", "seeds", "core_s"),
    *("large", "large_low", "large_high", *(name.replace(" ", "_") for name in REGIONS)),
    *("minus_registration", "minus_registration_low", "minus_registration_high"),
    *("minus_plain", "minus_plain_low", "minus_plain_high"),
]


def main() -> None:
    """Run one part of the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=("carry", "student", "table"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--atlas", default="P0009")
    parser.add_argument("--binning", type=int, choices=(2, 4), default=2)
    parser.add_argument("--method", choices=("ours", "elastix"), default="ours")
    parser.add_argument("--scored", choices=("train", "test"), default="train")
    parser.add_argument("--hint", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    {"carry": carry, "student": student, "table": table}[args.part](args)


# --- scans


def scans_of(args: argparse.Namespace, split: str) -> list[tuple[Case, LoadedCase]]:
    """Cases and scans of a split on coarser pixels; of "train" the atlas first, then 40 others."""
    atlas = args.atlas
    kept = args.target / f"scans-{atlas}-{args.binning}-{split}.pickle"
    if kept.exists():
        read: list[tuple[Case, LoadedCase]] = pickle.loads(kept.read_bytes())
        return read
    args.target.mkdir(parents=True, exist_ok=True)
    cases = Manifest.read(args.source).split(split)
    if split == "train":
        others = [case for case in cases if case.patient != atlas][:CHILDREN]
        cases = [next(case for case in cases if case.patient == atlas), *others]
    scans = [(case, replace(binned(load_case(case), args.binning), expectation=None)) for case in cases]
    kept.write_bytes(pickle.dumps(scans))
    return scans


def rapid(scan: LoadedCase) -> LoadedCase:
    """The case with its rapid scan in place of the standard one."""
    return replace(scan, standard=scan.rapid)


# --- labels by registration


def carry(args: argparse.Namespace) -> None:
    """Carry the labels of the atlas to the training children, or to the test children."""
    (_, atlas), *train = scans_of(args, "train")
    scans = [scan for _, scan in train]
    if args.scored == "test":
        scans = [rapid(scan) for _, scan in scans_of(args, "test")]
    began = time.process_time()
    found = (carried if args.method == "ours" else by_elastix)(atlas, scans)
    seconds = (time.process_time() - began) / len(scans)
    labels = np.stack([scan.labels for scan in found])
    scores = dice(labels, np.stack([scan.labels for scan in scans]))
    name = f"{args.method}-{args.atlas}-{args.binning}-{args.scored}"
    np.savez_compressed(args.target / name, labels=labels, dice=scores, seconds=seconds)
    print(name, f"{seconds:.2f} s", summary(scores), flush=True)


def by_elastix(atlas: LoadedCase, scans: list[LoadedCase]) -> list[LoadedCase]:
    """Labels carried by elastix: affine, then B-splines of 16 pixels, correlation of both views."""
    import itk

    def image(view: Any) -> Any:
        return itk.image_view_from_array(np.ascontiguousarray(view))

    settings = itk.ParameterObject.New()
    for kind, levels, iterations in (("affine", 4, 200), ("bspline", 3, 300)):
        given = dict(settings.GetDefaultParameterMap(kind, levels, 16.0))
        two = ("FixedImagePyramid", "MovingImagePyramid", "Interpolator")
        given |= {name: [given[name][0]] * 2 for name in two if name in given}
        given |= {
            "Registration": ["MultiMetricMultiResolutionRegistration"],
            "Metric": ["AdvancedNormalizedCorrelation"] * 2,
            "ImageSampler": ["RandomCoordinate"] * 2,
            "NewSamplesEveryIteration": ["true"],
            "NumberOfSpatialSamples": ["3000"],
            "MaximumNumberOfIterations": [str(iterations)],
            "AutomaticTransformInitialization": ["false"],
        }
        settings.AddParameterMap({name: list(values) for name, values in given.items()})
    frame = body_of(atlas.standard, atlas.spacing_mm)
    found = []
    for scan in scans:
        body = body_of(scan.standard, scan.spacing_mm)
        moving, fixed = ([image(view) for view in b.roots.numpy()] for b in (frame, body))
        elastix = itk.ElastixRegistrationMethod.New(fixed[0], moving[0])
        elastix.AddFixedImage(fixed[1])
        elastix.AddMovingImage(moving[1])
        elastix.SetParameterObject(settings)
        elastix.SetLogToConsole(False)
        elastix.SetNumberOfThreads(1)
        elastix.UpdateLargestPossibleRegion()
        transform = itk.TransformixFilter.New(moving[0])
        transform.SetTransformParameterObject(elastix.GetTransformParameterObject())
        transform.SetComputeDeformationField(True)
        transform.SetLogToConsole(False)
        transform.SetOutputDirectory(tempfile.gettempdir())  # the field goes there, too
        transform.UpdateLargestPossibleRegion()
        field = itk.array_from_image(transform.GetOutputDeformationField())[..., ::-1]
        phi = torch.from_numpy(np.moveaxis(field, -1, 0) + np.indices(field.shape[:2])).float()
        found.append(_labelled(atlas, scan, phi, frame, body))
    return found


def _labelled(atlas: LoadedCase, scan: LoadedCase, phi: torch.Tensor, frame: Body, body: Body) -> LoadedCase:
    places = places_of(phi, frame, body, scan.standard.shape[1:])
    return replace(scan, labels=carry_labels(atlas.labels, places))


# --- students


def student(args: argparse.Namespace) -> None:
    """Train a student and score it on the rapid scans of the test children."""
    name = "-".join(
        [
            "carried",
            args.atlas,
            str(args.binning),
            "hint" if args.hint else "plain",
            str(args.seed),
        ]
    )
    cases, scans = zip(*scans_of(args, "train"), strict=True)
    labels = np.load(args.target / f"ours-{args.atlas}-{args.binning}-train.npz")["labels"]
    given = [replace(scan, labels=own) for scan, own in zip(scans[1:], labels, strict=True)]
    began = time.process_time()
    L.seed_everything(args.seed, verbose=False)
    task = OneLabelTask(DynUNet(), hinted=args.hint, warmup_steps=20)
    data = LabelledScans(
        cases,
        [replace(scans[0], rapid=None), *(replace(scan, rapid=None) for scan in given)],
        [1.0] * len(cases),
        length=2 * STEPS,
        seed=args.seed,
        lesions=None,
        exposures=(0.1, 0.99),
        zoom=(0.8, 1.25),
        canvas=(1024 // args.binning, 256 // args.binning),
        binning=args.binning,
        single_view_probability=0.25,
    )
    trainer = L.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        precision="bf16-mixed",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[L.pytorch.callbacks.EMAWeightAveraging(decay=0.97)],
    )
    trainer.fit(task, DataLoader(data, batch_size=2, collate_fn=collate))
    seconds = time.process_time() - began
    weights = args.target / f"{name}.safetensors"
    save_segmenter(weights, task.segmenter, {"steps": STEPS, "seed": args.seed})
    loaded = load_segmenter(weights)
    held = [scan for _, scan in scans_of(args, "test")]
    regions = np.stack([found(loaded, scan.rapid, scan.exposure, scan) for scan in held])
    scores = dice(regions, np.stack([scan.labels for scan in held]))
    np.savez_compressed(args.target / f"{name}-test", labels=regions, dice=scores, seconds=seconds)
    print(name, f"{seconds:.0f} s", summary(scores), flush=True)


def found(segmenter: LoadedSegmenter, counts: Any, exposure: float, scan: LoadedCase) -> Any:
    """Most probable regions, uint8 (V, H, W)."""
    return segmenter.probabilities(counts, exposure, scan.spacing_mm).argmax(axis=1).astype(np.uint8)


# --- scores


def dice(labels: Any, truths: Any) -> Any:
    """Dice (N, K) of N children, pixels of both views together; NaN without the region."""
    values = np.arange(1, len(REGIONS) + 1)[:, None, None, None, None]
    there, seen = truths[None] == values, labels[None] == values
    both, sizes = ((there & seen).sum((2, 3, 4)), there.sum((2, 3, 4)) + seen.sum((2, 3, 4)))
    return np.where(there.any((2, 3, 4)), 2 * both / np.maximum(sizes, 1), np.nan).T


def summary(scores: Any) -> str:
    """Mean Dice by region, and of all regions, in one line."""
    means = np.nanmean(scores, axis=0)
    regions = " ".join(f"{name} {mean:.3f}" for name, mean in zip(REGIONS, means, strict=True))
    return f"mean {means.mean():.3f} {regions}"


def table(args: argparse.Namespace) -> None:
    """Write the table: means over children and seeds, intervals over children."""
    runs: dict[str, list[Any]] = {}
    for file in sorted(args.source.glob("*.npz")):
        labels, atlas, binning, *how, scored = file.stem.split("-")
        name = "-".join([labels, atlas, binning, *how[:-1], scored])
        runs.setdefault(name, []).append(np.load(file))
    rows = []
    for name, found_runs in runs.items():
        labels, atlas, binning, *how, scored = name.split("-")
        scores = np.nanmean([run["dice"] for run in found_runs], axis=0)
        registered = _means(runs, f"ours-{atlas}-{binning}-{scored}")
        plain = _means(runs, name.replace("-hint-", "-plain-"))
        seconds = np.mean([float(run["seconds"]) for run in found_runs])
        rows.append(
            [
                f"registration, {labels}" if not how else f"student, {' '.join(how)}",
                atlas,
                4.52 if binning == "2" else 9.04,
                {"train": "standard", "test": "rapid"}[scored],
                len(scores),
                len(found_runs) if how else "",
                f"{seconds:.1f}",
                *_with_interval(_large(scores)),
                *(f"{mean:.3f}" for mean in np.nanmean(scores, axis=0)),
                *_gain(scores, None if name.startswith("ours") else registered),
                *_gain(scores, plain if "hint" in how else None),
            ]
        )
    with args.target.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


def _means(runs: dict[str, list[Any]], name: str) -> Any:
    """Dice over the seeds of a method, None without one."""
    return np.nanmean([run["dice"] for run in runs[name]], axis=0) if name in runs else None


def _large(scores: Any) -> Any:
    """Mean over the large regions of each child."""
    return np.nanmean(scores[:, [REGIONS.index(region) for region in LARGE]], axis=1)


def _gain(scores: Any, others: Any) -> list[str]:
    """Difference of the large regions, child by child; of the first where one has fewer."""
    if others is None:
        return ["", "", ""]
    least = min(len(scores), len(others))
    return _with_interval(_large(scores)[:least] - _large(others)[:least])


def _with_interval(values: Any) -> list[str]:
    return [f"{value:.3f}" for value in (values.mean(), *interval([values], np.mean))]


if __name__ == "__main__":
    main()
