"""Put trained weights into rbs/weights: restorer, uncertainty, teacher, segmenter, describer.

    python scripts/ship.py runs/shipped_texture runs/adapt_sam/teacher
    python scripts/ship.py --segmenter runs/segment/segmenter.safetensors
    python scripts/ship.py --describer runs/describe/describer.safetensors
    python scripts/ship.py --enlarging runs/enlarge/nafnet

The graphs of their networks are written with them. All weights that ship may take 17 MB, those of
segmenter and describer 2 MB each. Half precision rounds a weight by 2e-4 of itself; what that
changes in a restored scan, its regions or its sentences is printed. Hashes, seed, steps and ranges
go to the cards, whose other facts (data, commands, figures) are written by hand.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rbs.description.checkpoint import load_describer, save_describer
from rbs.description.coarse import FINE
from rbs.inference.onnx_export import export_description_graph, export_onnx
from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.restorers.uncertainty import head_file, load_uncertainty, save_uncertainty
from rbs.scans.counts import block_sums
from rbs.scans.scan import align
from rbs.segmentation.checkpoint import load_segmenter, save_segmenter
from rbs.synthetic.cohort import make_patient
from rbs.synthetic.skeleton.child import SPACING_MM, VIEWS
from rbs.weights.shipped import (
    DESCRIBER,
    DESCRIBER_GRAPH,
    ENLARGING,
    ENLARGING_GRAPH,
    FOLDER,
    GRAPH,
    SEGMENTER,
    SEGMENTER_GRAPH,
    SHIPPED,
    file_sha256,
)

MOST_MB = 2
"""Most that the segmenter and its graph may take, and the describer and its, MB."""


def main() -> None:
    """Ship them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "f1", type=Path, nargs="?", help="folder of restorer.safetensors and restorer_uncertainty.safetensors"
    )
    parser.add_argument(
        "teacher", type=Path, nargs="?", help="folder of teacher.safetensors and teacher.json"
    )
    parser.add_argument("--segmenter", type=Path, help="segmenter.safetensors")
    parser.add_argument("--enlarging", type=Path, help="folder of a restorer.safetensors that enlarges")
    parser.add_argument("--describer", type=Path, help="describer.safetensors")
    args = parser.parse_args()
    if args.f1:
        ship_restorer(args.f1)
    if args.teacher:
        ship_teacher(args.teacher)
    if args.segmenter:
        ship_segmenter(args.segmenter)
    if args.enlarging:
        ship_enlarging(args.enlarging)
    if args.describer:
        ship_describer(args.describer)
    print(f"all that ships: {megabytes(FOLDER.rglob('*')):.2f} MB")


def ship_restorer(folder: Path) -> None:
    """Ship a restorer, its graph and its uncertainty head."""
    trained = load_restorer(folder / SHIPPED.name)
    head = load_uncertainty(trained, head_file(folder / SHIPPED.name))
    rapid = make_patient(1, seed=1).rapid
    before = trained.restore(rapid, 0.5)
    save_restorer(SHIPPED, trained.restorer.half(), trained.provenance)
    sha256 = file_sha256(SHIPPED)
    record(SHIPPED.with_suffix(".json"), sha256=sha256, **of_training(trained.provenance))
    save_uncertainty(head_file(SHIPPED), head.head, sha256, head.provenance)
    head_sha256 = file_sha256(head_file(SHIPPED))
    made = of_training(head.provenance) | {"factor": round(float(head.head.factor), 4)}
    record(head_file(SHIPPED).with_suffix(".json"), sha256=head_sha256, f1_sha256=sha256, **made)
    shipped = load_restorer()
    export_onnx(shipped, GRAPH, graph_only=True, overwrite=True)
    record(GRAPH.with_suffix(".json"), sha256=file_sha256(GRAPH))
    change = np.abs(shipped.restore(rapid, 0.5) - before).max() / before.max()
    print(f"largest change of a pixel: {change:.1g} of the peak")


def ship_enlarging(folder: Path) -> None:
    """Ship a restorer of coarse scans, and its graph."""
    trained = load_restorer(folder / SHIPPED.name, scale=2)
    rapid = block_sums(make_patient(1, seed=1).rapid, 2, 2)
    before = trained.restore(rapid, 0.5)
    save_restorer(ENLARGING, trained.restorer.half(), trained.provenance)
    record(ENLARGING.with_suffix(".json"), sha256=file_sha256(ENLARGING), **of_training(trained.provenance))
    shipped = load_restorer(ENLARGING, scale=2)
    export_onnx(shipped, ENLARGING_GRAPH, graph_only=True, overwrite=True)
    record(ENLARGING_GRAPH.with_suffix(".json"), sha256=file_sha256(ENLARGING_GRAPH))
    change = np.abs(shipped.restore(rapid, 0.5) - before).max() / before.max()
    print(f"largest change of a pixel: {change:.1g} of the peak")


def ship_teacher(folder: Path) -> None:
    """Ship an adapted teacher."""
    for name in ("teacher.safetensors", "teacher.json"):
        shutil.copyfile(folder / name, FOLDER / "teacher" / name)
    weights = FOLDER / "teacher" / "teacher.safetensors"
    record(weights.with_name("card.json"), sha256=file_sha256(weights))


def ship_segmenter(file: Path) -> None:
    """Ship a segmenter and its graph."""
    trained = load_segmenter(file)
    child = make_patient(1, seed=1)
    before = trained.probabilities(child.rapid, 0.5, (SPACING_MM, SPACING_MM))
    made = trained.provenance
    with TemporaryDirectory() as folder:
        weights, graph = Path(folder) / SEGMENTER.name, Path(folder) / SEGMENTER_GRAPH.name
        save_segmenter(weights, trained.segmenter.half(), made)
        shipped = load_segmenter(weights)
        export_onnx(shipped, graph, graph_only=True)
        size = small_enough(weights, graph)
        shutil.copyfile(weights, SEGMENTER)
        shutil.copyfile(graph, SEGMENTER_GRAPH)
    record(SEGMENTER.with_suffix(".json"), sha256=file_sha256(SEGMENTER), **of_training(made))
    record(SEGMENTER_GRAPH.with_suffix(".json"), sha256=file_sha256(SEGMENTER_GRAPH))
    after = shipped.probabilities(child.rapid, 0.5, (SPACING_MM, SPACING_MM))
    change, moved = np.abs(after - before).max(), (after.argmax(axis=1) != before.argmax(axis=1)).mean()
    print(f"largest change of a probability: {change:.1g}; pixels in another region: {100 * moved:.2g} %")
    print(f"segmenter and graph: {size:.2f} MB, at most {MOST_MB}")


def ship_describer(file: Path) -> None:
    """Ship a description network and its graph."""
    trained = load_describer(file)
    # Pixels of a phantom summed up 2 x 2.
    rapid = block_sums(align(make_patient(1, seed=1).rapid, VIEWS), FINE, FINE)
    before = trained.chances(rapid, 0.5)
    made = trained.provenance
    with TemporaryDirectory() as folder:
        weights, graph = Path(folder) / DESCRIBER.name, Path(folder) / DESCRIBER_GRAPH.name
        save_describer(weights, trained.describer.half(), made)
        shipped = load_describer(weights)
        export_description_graph(shipped, graph)
        size = small_enough(weights, graph)
        shutil.copyfile(weights, DESCRIBER)
        shutil.copyfile(graph, DESCRIBER_GRAPH)
    record(DESCRIBER.with_suffix(".json"), sha256=file_sha256(DESCRIBER), **of_training(made))
    record(DESCRIBER_GRAPH.with_suffix(".json"), sha256=file_sha256(DESCRIBER_GRAPH))
    change = np.abs(shipped.chances(rapid, 0.5) - before).max()
    print(f"largest change of a probability: {change:.1g}; describer and graph: {size:.2f} MB")


def small_enough(weights: Path, graph: Path) -> float:
    """Size of weights and graph, MB; stops where they are too large to ship."""
    size = megabytes([weights, graph])
    if size > MOST_MB:
        raise SystemExit(f"weights and graph have {size:.2f} MB, at most {MOST_MB} ship: nothing was changed")
    return size


def of_training(provenance: dict[str, Any]) -> dict[str, Any]:
    """Entries of a card that weights carry themselves: seed, steps and ranges."""
    ranges = {name: provenance[name] for name in ("spacing_mm", "counts_per_pixel", "exposure")}
    return {"seed": int(provenance["seed"]), "steps": provenance["steps"], "trained_on": ranges}


def megabytes(files: Iterable[Path]) -> float:
    """Size of weights and graphs, MB."""
    return sum(file.stat().st_size for file in files if file.suffix in (".safetensors", ".onnx")) / 1e6


def record(card: Path, **values: Any) -> None:
    """Write values to a card."""
    card.write_text(json.dumps(json.loads(card.read_text()) | values, indent=2) + "\n")


if __name__ == "__main__":
    main()
