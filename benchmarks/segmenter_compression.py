"""The segmenter in 32, 16 and 8 bits: Dice lost, time and size. docs/results/compression.csv.

    python benchmarks/segmenter_compression.py MANIFEST runs/segment/segmenter.safetensors

Rapid scans of the test children. 16 bits: weights rounded, computed in 32 bits, as they ship. 8
bits are those of ONNX Runtime (its quantization tools): static, activations of the convolutions
calibrated on whole rapid scans of training children, all convolutions or all but the first and
the last; dynamic, ranges of activations taken from each scan. Times are medians of a two-view scan,
forms in turn: processor time on one thread, which other work on the machine does not lengthen, and
wall time on two, for which the machine must be idle (--two-threads).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from rbs.data.loading import LoadedCase, load_case
from rbs.data.manifest import Manifest
from rbs.evaluation.statistics.summary import interval
from rbs.inference.onnx_network import session_of
from rbs.inference.segmentation import OnnxSegmenter
from rbs.scans.counts import standard_scale
from rbs.scans.scan import REGIONS, Array
from rbs.segmentation.checkpoint import load_segmenter
from rbs.utils.files import write_csv
from rbs.weights.shipped import SEGMENTER_GRAPH

CALIBRATION = 8
"""Training children."""

REPORTED = ("growth plates", "hot spots")
ROUNDS = 5


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("segmenter", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/results/compression.csv"))
    parser.add_argument("--two-threads", action="store_true")
    args = parser.parse_args()
    manifest = Manifest.read(args.manifest)
    with tempfile.TemporaryDirectory() as folder:
        forms = made(args.segmenter, manifest, Path(folder))
    tests = [load_case(case) for case in manifest.split("test")]
    scores = {name: dice_of(model, tests) for name, (model, _) in forms.items()}
    models, seconds = {name: model for name, (model, _) in forms.items()}, {}
    seconds["ms_1"] = timed(models, tests[0], 1, time.process_time)
    if args.two_threads:
        seconds["ms_2"] = timed(models, tests[0], 2, time.perf_counter)
    exact = scores["32 bits"]
    rows = []
    for name, (_, size) in forms.items():
        child, lost = np.nanmean(scores[name], axis=1), np.nanmean(exact - scores[name], axis=1)
        low, high = interval([lost], np.mean) if lost.any() else (0.0, 0.0)
        regions = np.nanmean(scores[name], axis=0)
        rows.append(
            [
                name,
                f"{size / 1e6:.2f}",
                f"{child.mean():.3f}",
                *(f"{value:.4f}" for value in (lost.mean(), low, high)),
                *(f"{regions[REGIONS.index(region)]:.3f}" for region in REPORTED),
                *(f"{1000 * taken[name]:.0f}" for taken in seconds.values()),
            ]
        )
    head = ["form", "mb", "dice", "lost", "lost_low", "lost_high", "growth_plates", "hot_spots"]
    write_csv(args.output, [*head, *seconds], rows)
    print(args.output.read_text())


def made(file: Path, manifest: Manifest, folder: Path) -> dict[str, tuple[bytes, int]]:
    """ONNX model and size in bytes of each form."""
    whole = onnx.load(SEGMENTER_GRAPH, load_external_data=False)
    weights = load_segmenter(file).segmenter.state_dict()
    for weight in whole.graph.initializer:
        if weight.data_location == onnx.TensorProto.EXTERNAL:
            weight.CopyFrom(onnx.numpy_helper.from_array(weights[weight.name].numpy(), weight.name))
    onnx.save(whole, folder / "32.onnx")
    stored = (folder / "32.onnx").stat().st_size
    elements = round_weights(rounded := onnx.load(folder / "32.onnx"))
    quant_pre_process(folder / "32.onnx", folder / "ready.onnx", skip_symbolic_shape=True)
    convolutions = [
        node.name for node in onnx.load(folder / "ready.onnx").graph.node if node.op_type == "Conv"
    ]
    for name, left_out in (("all", []), ("inner", [convolutions[0], convolutions[-1]])):
        quantize_static(
            folder / "ready.onnx",
            folder / f"{name}.onnx",
            Calibration(manifest),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=left_out,
        )
    quantize_dynamic(
        folder / "ready.onnx",
        folder / "dynamic.onnx",
        op_types_to_quantize=["Conv"],
        weight_type=QuantType.QUInt8,
    )
    forms = {
        "32 bits": (whole.SerializeToString(), stored),
        "16-bit weights": (rounded.SerializeToString(), stored - 2 * elements),
    }
    for name, label in (
        ("all", "8 bits, static"),
        ("inner", "8 bits, static, first and last layer in 32"),
        ("dynamic", "8 bits, dynamic"),
    ):
        model = (folder / f"{name}.onnx").read_bytes()
        forms[label] = model, len(model)
    return forms


def round_weights(model: onnx.ModelProto) -> int:
    """Round the weights of a model to 16 bits in place; their number."""
    elements = 0
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(weight)
            elements += values.size
            weight.CopyFrom(
                onnx.numpy_helper.from_array(values.astype(np.float16).astype(np.float32), weight.name)
            )
    return elements


class Calibration(CalibrationDataReader):
    """Inputs of whole rapid scans of training children."""

    def __init__(self, manifest: Manifest) -> None:
        self.scans: Iterator[dict[str, Array]] = map(
            given, map(load_case, manifest.split("train")[:CALIBRATION])
        )

    def get_next(self) -> dict[str, Array] | None:
        """The next, or None."""
        return next(self.scans, None)


def given(case: LoadedCase) -> dict[str, Array]:
    """Inputs of the network."""
    assert case.rapid is not None
    return {
        "rapid": standard_scale(case.rapid, case.exposure)[None],
        "exposure": np.array([case.exposure], np.float32),
        "spacing_mm": np.array([case.spacing_mm], np.float32),
    }


def segmenter_of(model: bytes, threads: int) -> OnnxSegmenter:
    """A segmenter on a number of threads."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    return OnnxSegmenter(session_of(model), "", "", {}, Path("segmenter.onnx"))


def dice_of(model: bytes, cases: list[LoadedCase]) -> Array:
    """Dice by child and region, (N, K), over both views; NaN where the child has none."""
    segmenter, rows = segmenter_of(model, 1), []
    for case in cases:
        found = segmenter.probabilities(case.rapid, case.exposure, case.spacing_mm).argmax(axis=1)
        row = []
        for label in range(1, 1 + len(REGIONS)):
            a, b = found == label, case.labels == label
            row.append(2 * (a & b).sum() / (a.sum() + b.sum()) if b.any() else np.nan)
        rows.append(row)
    return np.array(rows)


def timed(
    models: dict[str, bytes], case: LoadedCase, threads: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of a scan by form."""
    segmenters = {name: segmenter_of(model, threads) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, segmenter in segmenters.items():
            start = clock()
            segmenter.probabilities(case.rapid, case.exposure, case.spacing_mm)
            seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
