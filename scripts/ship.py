"""Put trained weights into rbs/weights: restorer and graph, uncertainty, teacher.

    python scripts/ship.py runs/shipped_restorer runs/adapt_sam/teacher

All weights that ship may take 12 MB. Half precision rounds a weight by 2e-4 of itself; what that
changes in a restored scan is printed. Hashes go to the cards, whose other facts (data, commands,
figures) are written by hand.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from rbs.inference.onnx_export import export_onnx
from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.restorers.uncertainty import head_file, load_uncertainty, save_uncertainty
from rbs.synthetic.cohort import make_patient
from rbs.weights.shipped import FOLDER, GRAPH, SHIPPED, file_sha256


def main() -> None:
    """Ship them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "f1", type=Path, help="folder of restorer.safetensors and restorer_uncertainty.safetensors"
    )
    parser.add_argument(
        "teacher", type=Path, nargs="?", help="folder of teacher.safetensors and teacher.json"
    )
    args = parser.parse_args()
    trained = load_restorer(args.f1 / SHIPPED.name)
    head = load_uncertainty(trained, head_file(args.f1 / SHIPPED.name))
    rapid = make_patient(1, seed=1).rapid
    before = trained.restore(rapid, 0.5)
    save_restorer(SHIPPED, trained.restorer.half(), trained.provenance)
    sha256 = file_sha256(SHIPPED)
    record(SHIPPED.with_suffix(".json"), sha256=sha256)
    save_uncertainty(head_file(SHIPPED), head.head, sha256, head.provenance)
    head_sha256 = file_sha256(head_file(SHIPPED))
    record(head_file(SHIPPED).with_suffix(".json"), sha256=head_sha256, f1_sha256=sha256)
    shipped = load_restorer()
    export_onnx(shipped, GRAPH, graph_only=True, overwrite=True)
    record(GRAPH.with_suffix(".json"), sha256=file_sha256(GRAPH))
    if args.teacher:
        for name in ("teacher.safetensors", "teacher.json"):
            shutil.copyfile(args.teacher / name, FOLDER / "teacher" / name)
        weights = FOLDER / "teacher" / "teacher.safetensors"
        record(weights.with_name("card.json"), sha256=file_sha256(weights))
    change = np.abs(shipped.restore(rapid, 0.5) - before).max() / before.max()
    whole = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.suffix in (".safetensors", ".onnx"))
    print(f"largest change of a pixel: {change:.1g} of the peak; all that ships: {whole / 1e6:.2f} MB")


def record(card: Path, **values: Any) -> None:
    """Write values to a card."""
    card.write_text(json.dumps(json.loads(card.read_text()) | values, indent=2) + "\n")


if __name__ == "__main__":
    main()
