"""Give the regions of a trained segmenter the right size (`rbs.segmentation.calibration`).

    python scripts/calibrate_segmenter.py runs/segment/segmenter.safetensors calibrated.safetensors

Fitted to the rapid scans of training patients, so that the areas of bones, which a network trained
by Dice draws too wide, are right on average (docs/quantify.md has the errors that remain).
`scripts/ship.py --segmenter` ships the result.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from rbs.data.loading import load_case
from rbs.data.manifest import Manifest
from rbs.scans.scan import REGIONS, Array
from rbs.segmentation.calibration import add_biases, area_biases
from rbs.segmentation.checkpoint import LoadedSegmenter, load_segmenter, save_segmenter
from rbs.segmentation.segmenter import EncoderDecoder


def main() -> None:
    """Calibrate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("segmenter", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--manifest", type=Path, default=Path("data/phantoms/manifest.csv"))
    parser.add_argument("--patients", type=int, default=20, help="training patients (default: %(default)s)")
    args = parser.parse_args()
    loaded = load_segmenter(args.segmenter)
    if not isinstance(loaded.segmenter, EncoderDecoder):
        parser.error(f"{type(loaded.segmenter).__name__} has no last layer of its own")
    biases = area_biases(labelled(loaded, args.manifest, args.patients))
    for name, bias in zip(("background", *REGIONS), biases, strict=True):
        print(f"{name:15} {bias:+.2f}")
    add_biases(loaded.segmenter, biases)
    made = loaded.provenance | {"calibrated_on": args.patients}
    save_segmenter(args.output, loaded.segmenter, made)


def labelled(loaded: LoadedSegmenter, manifest: Path, patients: int) -> Iterator[tuple[Array, Array]]:
    """Probabilities and labels of the scans of the first training patients."""
    for case in tqdm(Manifest.read(manifest).split("train")[:patients], unit="scan"):
        scan = load_case(case)
        assert scan.labels is not None
        counts, exposure = (
            (scan.standard, 1.0)
            if scan.rapid is None or scan.exposure is None
            else (scan.rapid, scan.exposure)
        )
        yield loaded.probabilities(counts, exposure, scan.spacing_mm), scan.labels


if __name__ == "__main__":
    main()
