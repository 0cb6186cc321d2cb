"""Restoring scans by ONNX Runtime, without PyTorch: the shipped weights, or an export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rbs.errors import CheckpointError, RbsError, ScanError
from rbs.inference.devices import onnx_providers
from rbs.scans.counts import standard_scale, where_scanned
from rbs.scans.scan import Array
from rbs.utils.description import KEY
from rbs.utils.guard import wants_memory
from rbs.utils.memory import WHOLE
from rbs.utils.schema import shown
from rbs.utils.threads import thread_count, waits_actively
from rbs.weights import shipped
from rbs.weights.shipped import check_recorded, file_sha256

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

VIEWS = 2

_EXPORT = "write it with `rbs export`"


@dataclass(frozen=True)
class OnnxRestorer:
    """A restorer of scans in ONNX Runtime, used as `rbs.restorers.checkpoint.LoadedRestorer` is.

    Attributes:
        session: The network.
        name: Its class and the file its weights came from, for headers and reports.
        sha256: Of the file of its weights, hexadecimal.
        provenance: What was recorded about their making.
        file: The file it was read from.
    """

    session: InferenceSession
    name: str
    sha256: str
    provenance: dict[str, Any]
    file: Path
    shows: ClassVar[str] = "scans"

    def restore(self, rapid: Array, exposure: float) -> Array:
        """Restore a whole scan: `rbs.restorers.checkpoint.LoadedRestorer.restore` says how.

        Args:
            rapid: Raw counts, aligned (V, H, W).
            exposure: Exposure relative to the standard scan.

        Returns:
            Standard counts (V, H, W), float32.

        Raises:
            ScanError: It is too large to be restored at once, and the file is an export.
            CheckpointError: The network, of another making, cannot be run or answers with another
                shape.
        """
        if rapid[0].size > WHOLE:
            return self._in_tiles(rapid, exposure)
        x = standard_scale(np.asarray(rapid, dtype=np.float32)[None], exposure)
        both = np.repeat(x, VIEWS // len(rapid), axis=1)
        given = {"rapid": both, "exposure": np.array([exposure], np.float32)}
        try:
            (answer,) = self.session.run(None, given)
        except Exception as error:  # ONNX Runtime has kinds of its own for what cannot be computed
            if wants_memory(error):
                raise MemoryError from error
            fault = f"ONNX Runtime cannot restore {both.shape} pixels with it ({type(error).__name__})"
            raise CheckpointError(fault, file=self.file, remedy=_EXPORT) from error
        if answer.shape != both.shape:
            fault = f"it answers with {answer.shape} pixels instead of {both.shape}"
            raise CheckpointError(fault, file=self.file, remedy=_EXPORT)
        counts = answer[0] if len(rapid) == VIEWS else answer[0].mean(axis=0, keepdims=True)
        return where_scanned(counts, rapid)

    def _in_tiles(self, rapid: Array, exposure: float) -> Array:
        """Restore by PyTorch, which shows the averages over the whole scan that tiles need."""
        if self.file.suffix == ".onnx":
            fault = f"its views have {rapid[0].size:,} pixels, and an ONNX file restores {WHOLE:,} at once"
            raise ScanError(fault, remedy="name the weights that the file was exported from")
        from rbs.restorers.checkpoint import load_restorer

        loaded = load_restorer(self.file)
        if "CUDAExecutionProvider" in self.session.get_providers():
            loaded.restorer.to("cuda")
        return loaded.restore(rapid, exposure)


def load_shipped(device: str = "cpu") -> OnnxRestorer:
    """The restorer that comes with rbs: its weights, put into the graph that lies beside them.

    Args:
        device: One of `rbs.inference.devices.DEVICES`.

    Raises:
        CheckpointError: One of the two files is missing or not the one its card tells of.
        RbsError: ONNX Runtime is not installed.
    """
    from safetensors import safe_open

    weights, graph = shipped.SHIPPED, shipped.GRAPH
    sha256 = file_sha256(weights, "name a weight file with --checkpoint")
    check_recorded(weights, sha256)
    check_recorded(graph, file_sha256(graph, "install rbs again"))
    try:
        with safe_open(weights, framework="np") as content:
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            description = json.loads(content.metadata()[KEY])
        session = session_of(graph.read_bytes(), arrays, device)
        architecture = json.loads(session.get_modelmeta().custom_metadata_map[KEY])["architecture"]
    except (RbsError, MemoryError):
        raise
    except Exception as error:  # ONNX Runtime has kinds of its own for what does not fit
        fault = f"it does not fit {graph.name} ({type(error).__name__})"
        raise CheckpointError(fault, file=weights, remedy="install rbs again") from error
    if any(description.get(name) != value for name, value in architecture.items()):
        fault = f"it holds another architecture than {graph.name}"
        raise CheckpointError(fault, file=weights, remedy="install rbs again")
    kind = architecture["class_path"].rpartition(".")[2]
    provenance = description.get("provenance", {})
    return OnnxRestorer(session, f"{kind} {weights.name} (ONNX)", sha256, provenance, weights)


def load_onnx(path: Path, device: str = "cpu") -> OnnxRestorer:
    """Read what `rbs export` wrote of a restorer of scans.

    Args:
        path: An .onnx file.
        device: One of `rbs.inference.devices.DEVICES`.

    Raises:
        CheckpointError: The file is missing, cannot be read, is damaged, or is not of `rbs export`,
            or not of scans.
        RbsError: ONNX Runtime is not installed.
    """
    from rbs.inference.onnx_file import described

    check_recorded(path, file_sha256(path))
    try:
        model = path.read_bytes()
        about = described(model)
        if about.restores != "scans":
            raise CheckpointError(
                f"it restores {about.restores}, not scans",
                file=path,
                remedy="name the weights it was exported from",
            )
        session = session_of(model, device=device)
        _require_a_restorer(session)
    except KeyError:
        raise CheckpointError("it does not say which restorer it holds", file=path, remedy=_EXPORT) from None
    except (RbsError, MemoryError):
        raise
    except ValueError as error:
        raise CheckpointError(
            f"it is no intact export of a restorer ({error})", file=path, remedy=_EXPORT
        ) from None
    except Exception as error:  # ONNX Runtime has kinds of its own for what is no model
        fault = f"it is truncated or not an ONNX file of a whole network ({type(error).__name__})"
        raise CheckpointError(fault, file=path, remedy=_EXPORT) from None
    return OnnxRestorer(session, f"{about.name} (ONNX)", about.weights_sha256, about.provenance, path)


def _require_a_restorer(session: InferenceSession) -> None:
    """Require the inputs and outputs of an export of a restorer of scans.

    Raises:
        ValueError: It has others.
    """
    given = [(i.name, i.type, len(i.shape)) for i in session.get_inputs()]
    if given != [("rapid", "tensor(float)", 4), ("exposure", "tensor(float)", 1)]:
        raise ValueError(f"it takes {shown([name for name, _, _ in given])}, not rapid and exposure")
    if [(o.type, len(o.shape)) for o in session.get_outputs()] != [("tensor(float)", 4)]:
        raise ValueError("it does not answer with one restoration")


def session_of(
    model: bytes, weights: Mapping[str, Array] | None = None, device: str = "cpu"
) -> InferenceSession:
    """A network, on the processor on as many threads as `OMP_NUM_THREADS` says, or as it may have.

    Args:
        model: An ONNX file.
        weights: What it left out, by name; float32 or half of it.
        device: One of `rbs.inference.devices.DEVICES`.

    Raises:
        RbsError: ONNX Runtime is not installed, or not for that device. What it says of a faulty
            model is of kinds of its own.
    """
    try:
        from onnxruntime import InferenceSession, OrtValue, SessionOptions
    except ImportError as error:
        raise RbsError(f"ONNX Runtime is not there ({error})", remedy="pip install onnxruntime") from error
    options = SessionOptions()
    # By itself it takes one for each core of the machine, also where the process was given few.
    options.intra_op_num_threads = thread_count()
    # It would print names that are in the file, as they are; errors are raised, too.
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if waits_actively() else "0")
    weights = weights or {}
    # They must outlive the session's making, which copies them.
    values = [OrtValue.ortvalue_from_numpy(np.asarray(array, np.float32)) for array in weights.values()]
    if values:
        options.add_external_initializers(list(weights), values)
    return InferenceSession(model, options, providers=onnx_providers(device))
