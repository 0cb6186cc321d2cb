"""Restorers, segmenters and description networks as ONNX, for programs that have no PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from rbs.description.checkpoint import LoadedDescriber
from rbs.errors import CheckpointError
from rbs.inference.onnx_file import with_description
from rbs.inference.onnx_network import session_of
from rbs.restorers.base import Restorer
from rbs.restorers.checkpoint import LoadedRestorer
from rbs.segmentation.checkpoint import LoadedSegmenter
from rbs.segmentation.segmenter import Segmenter
from rbs.utils.files import whole_file

TOLERANCE = 1e-3
"""The largest difference between ONNX Runtime and PyTorch that is let pass, as a share of the
peak."""

_CHECKED = ((1, 96, 160), (2, 141, 77))
"""Batch, rows and columns that are tried, none of them those of the export."""


Loaded: TypeAlias = LoadedRestorer | LoadedSegmenter


@dataclass(frozen=True)
class Parity:
    """Difference between the answers of ONNX Runtime and of PyTorch.

    Attributes:
        largest: Absolute difference of a pixel, as a share of the peak.
        inputs: Images that the model takes, in words.
        others: Its other inputs, in words.
    """

    largest: float
    inputs: str
    others: str


def export_onnx(
    loaded: Loaded, path: str | Path, *, graph_only: bool = False, overwrite: bool = False
) -> Parity:
    """Write a network as an ONNX model of any number of images of any size, and try it.

    Inputs are those of its `forward`: `rapid`, counts at standard scale (raw counts / exposure),
    float32 (B, 2, H, W), and `exposure`, (B,); of colour frames `rapid` is (B, 3, H, W), sRGB 0..1,
    and `exposure` 1. A segmenter takes `spacing_mm`, too, (B, 2); of frames 1.

    A restorer answers `restored`, of the shape of `rapid`, or (B, 2, 2 H, 2 W) where it enlarges; a
    scan of one view is given twice, and the mean of the two answers taken. Rows that were not
    scanned are not taken out, see `LoadedRestorer.restore`. A segmenter answers `probabilities`,
    (B, V, 1 + K, H, W); of a scan of one view, given twice, the normalised geometric mean of the
    two answers is taken, see `rbs.inference.segmentation.OnnxSegmenter.probabilities`.

    Args:
        loaded: The restorer or segmenter.
        path: File to write; it carries name, version, SHA-256 and provenance of the weights in its
            metadata.
        graph_only: Leave the weights out, and what tells of them: the file then is the
            architecture's, good for any weights of it, which `rbs.inference.onnx_network` hands to
            ONNX Runtime by their names.
        overwrite: Whether an older file may be replaced.

    Raises:
        CheckpointError: The architecture cannot be exported, or ONNX Runtime computes something
            else.
        OutputError: The file cannot be written.
    """
    network = _network(loaded)
    answer = "probabilities" if isinstance(loaded, LoadedSegmenter) else "restored"
    program = _exported(network, _drawn(loaded, 2, 64, 48), answer, loaded.name)
    about: dict[str, Any] = {"version": loaded.version}
    if isinstance(network, Segmenter):
        about |= {"segments": network.images.shows, "regions": network.labels.names}
    else:
        if network.reads_facts:
            fault = f"{loaded.name} reads facts of the child, for which an export has no input"
            raise CheckpointError(fault, remedy="use the weights themselves instead")
        about |= {"restores": network.images.shows, "scale": network.scale}
    if graph_only:
        about |= {"architecture": {name: network.spec()[name] for name in ("class_path", "init_args")}}
        _leave_out(program.model, network.state_dict())
    else:
        about |= {"name": loaded.name, "weights_sha256": loaded.sha256, "provenance": loaded.provenance}
    with whole_file(path, overwrite=overwrite) as temporary:
        program.save(temporary)
        temporary.write_bytes(with_description(temporary.read_bytes(), about))
        weights = (
            {name: tensor.numpy() for name, tensor in network.state_dict().items()} if graph_only else {}
        )
        largest = _difference(loaded, session_of(temporary.read_bytes(), weights))
        if not largest <= TOLERANCE:
            fault = f"ONNX Runtime differs from PyTorch by {largest:.2g} of the peak"
            raise CheckpointError(fault, file=Path(path), remedy="use the weights themselves instead")
    others = "exposure (B,), spacing_mm (B, 2)" if isinstance(network, Segmenter) else "exposure (B,)"
    return Parity(largest, f"{network.images.values} (B, {network.images.channels}, H, W)", others)


def export_description_graph(loaded: LoadedDescriber, path: str | Path) -> float:
    """Write the network of `rbs describe` without its weights, and try it with them.

    It takes `rapid`, counts of coarse pixels at standard scale, float32 (B, 2, H, W), and
    `exposure`, (B,), and answers `sentences`, logarithms of probabilities, (B, S).

    Returns:
        The largest difference of a probability between ONNX Runtime and PyTorch.

    Raises:
        CheckpointError: ONNX Runtime computes something else.
        OutputError: The file cannot be written.
    """
    network = loaded.describer
    program = _exported(network, _drawn_scans(2, 64, 48), "sentences", loaded.name, folds=False)
    about = {"version": loaded.version, "architecture": network.spec()}
    _leave_out(program.model, network.state_dict())
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    with whole_file(path, overwrite=True) as temporary:
        program.save(temporary)
        temporary.write_bytes(with_description(temporary.read_bytes(), about))
        session, largest = session_of(temporary.read_bytes(), weights), 0.0
        for size in _CHECKED:
            given = _drawn_scans(*size)
            with torch.inference_mode():
                ours = network(*given.values()).exp().numpy()
            (theirs,) = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
            largest = max(largest, float(np.abs(np.exp(theirs) - ours).max()))
        if not largest <= TOLERANCE:
            fault = f"a probability of ONNX Runtime differs from PyTorch's by {largest:.2g}"
            raise CheckpointError(fault, file=Path(path), remedy="use the weights themselves instead")
    return largest


def _network(loaded: Loaded) -> Restorer | Segmenter:
    return loaded.segmenter if isinstance(loaded, LoadedSegmenter) else loaded.restorer


def _exported(
    network: nn.Module, given: Mapping[str, Tensor], answer: str, name: str, *, folds: bool = True
) -> Any:
    """PyTorch's program, without its notes on where each node comes from, an eighth of the file.

    What depends on weights alone becomes a constant where it `folds`.
    """
    import onnxscript  # noqa: F401 - PyTorch calls its absence an error of its own kind

    free = torch.export.Dim.DYNAMIC
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(StringIO()):
            program = torch.onnx.export(
                network,
                tuple(given.values()),
                input_names=list(given),
                output_names=[answer],
                dynamic_shapes=tuple(
                    {0: free, 2: free, 3: free} if x.ndim == 4 else {0: free} for x in given.values()
                ),
                dynamo=True,
                optimize=folds,
            )
    except Exception as error:  # whatever an architecture does that ONNX has no words for
        fault = f"{name} cannot be written as ONNX ({type(error).__name__})"
        raise CheckpointError(fault, remedy="export NAFNet, U-Net, DnCNN or DynUNet") from error
    assert program is not None  # it is with dynamo
    graph = program.model.graph
    outputs = (value for node in graph for value in node.outputs)
    for noted in (*graph, *graph.inputs, *graph.initializers.values(), *outputs):
        noted.metadata_props.clear()
    return program


def _leave_out(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Put a name in the place of each weight, as of a file that is not there."""
    import onnx_ir

    absent = sorted(weights.keys() - model.graph.initializers.keys())
    if absent:
        fault = f"ONNX keeps {len(absent)} of its weights under no name of their own ({absent[0]})"
        raise CheckpointError(fault, remedy="export it with its weights")
    for name in weights:
        value = model.graph.initializers[name]
        known = value.const_value
        value.const_value = onnx_ir.ExternalTensor(
            "weights", None, None, known.dtype, shape=known.shape, name=name
        )


def _difference(loaded: Loaded, session: Any) -> float:
    """The largest difference of a pixel as a share of the peak, over images of several sizes."""
    found = []
    for batch, rows, columns in _CHECKED:
        given = _drawn(loaded, batch, rows, columns)
        with torch.inference_mode():
            ours = _network(loaded)(*given.values()).numpy()
        (theirs,) = session.run(None, {name: tensor.numpy() for name, tensor in given.items()})
        found.append(np.abs(theirs - ours).max() / ours.max())
    return float(max(found))


def _drawn(loaded: Loaded, batch: int, rows: int, columns: int) -> dict[str, Tensor]:
    """Inputs to try: Poisson scans of half the standard exposure, or noise of all colours."""
    images = _network(loaded).images
    if images.shows == "frames":
        shape, noise = (batch, images.channels, rows, columns), torch.Generator().manual_seed(rows)
        given = {"rapid": torch.rand(shape, generator=noise), "exposure": torch.ones(batch)}
    else:
        given = _drawn_scans(batch, rows, columns)
    if isinstance(loaded, LoadedSegmenter):
        given["spacing_mm"] = (
            torch.ones(batch, 2) if images.shows == "frames" else torch.full((batch, 2), 2.4)
        )
    return given


def _drawn_scans(batch: int, rows: int, columns: int) -> dict[str, Tensor]:
    """Poisson scans of half the standard exposure."""
    noise = torch.Generator().manual_seed(rows)
    hill = torch.outer(torch.hann_window(rows), torch.hann_window(columns)).expand(batch, 2, -1, -1)
    rapid = torch.poisson(5 * hill, generator=noise) / 0.5
    return {"rapid": rapid, "exposure": torch.full((batch,), 0.5)}
