"""Put a trained f1 and its uncertainty into rbs/weights: f1 in half precision, hashes on their cards.

    python scripts/ship.py runs/shipped_f1

All weights that ship may take 12 MB. Half precision rounds a weight by 2e-4 of itself; what that changes in a
restored scan is printed. The rest of the cards (data, commands, figures) is written by hand.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from rbs.scans.cohort import make_patient
from rbs.shipped import FOLDER, SHIPPED, file_sha256
from rbs.uncertainty import head_file, load_uncertainty, save_uncertainty
from rbs.weights import load_restorer, save_restorer


def main() -> None:
    """Ship them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="holds f1.safetensors and f1_uncertainty.safetensors")
    source = parser.parse_args().folder / SHIPPED.name
    trained = load_restorer(source)
    head = load_uncertainty(trained, head_file(source))
    rapid = make_patient(1, seed=1).rapid
    before = trained.restore(rapid, 0.5)
    save_restorer(SHIPPED, trained.restorer.half(), trained.provenance)
    sha256 = file_sha256(SHIPPED)
    record(SHIPPED, sha256=sha256)
    save_uncertainty(head_file(SHIPPED), head.head, sha256, head.provenance)
    record(head_file(SHIPPED), sha256=file_sha256(head_file(SHIPPED)), f1_sha256=sha256)
    change = np.abs(load_restorer().restore(rapid, 0.5) - before).max() / before.max()
    whole = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.suffix in (".safetensors", ".onnx"))
    print(f"largest change of a pixel: {change:.1g} of the peak; all that ships: {whole / 1e6:.2f} MB")


def record(file: Path, **values: Any) -> None:
    """Write values to the card of a file."""
    card = file.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | values, indent=2) + "\n")


if __name__ == "__main__":
    main()
