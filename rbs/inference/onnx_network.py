"""Networks in ONNX Runtime, without PyTorch: shipped weights put into their graph, or an export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rbs.errors import CheckpointError, RbsError
from rbs.inference.devices import onnx_providers
from rbs.scans.scan import Array
from rbs.utils.description import KEY
from rbs.utils.guard import wants_memory
from rbs.utils.schema import shown
from rbs.utils.threads import thread_count, waits_actively
from rbs.weights.shipped import check_recorded, file_sha256

if TYPE_CHECKING:
    from typing import Self

    from onnxruntime import InferenceSession

    from rbs.inference.onnx_file import ExportDescription

VIEWS = 2
"""Views that a network of scans takes; a scan of one view is given twice."""

EXPORT = "write it with `rbs export`"


@dataclass(frozen=True)
class OnnxNetwork:
    """A network of scans in ONNX Runtime.

    Attributes:
        session: The network.
        name: Its class and the file its weights came from, for headers and reports.
        sha256: Of the file of its weights, hexadecimal.
        provenance: What was recorded about their making.
        file: The file it was read from.
        scale: Rows and columns of its answer per row and column of an image.
        kind: What it is, in a word.
        does: What it does, as the description of an export says.
        option: Option of the command line that names a weight file of this kind.
        takes: Names and numbers of dimensions of its inputs, float32.
        answers: Number of dimensions of its answer.
    """

    session: InferenceSession
    name: str
    sha256: str
    provenance: dict[str, Any]
    file: Path
    scale: int = 1
    kind: ClassVar[str]
    does: ClassVar[str]
    option: ClassVar[str] = "--checkpoint"
    takes: ClassVar[Mapping[str, int]]
    answers: ClassVar[int]

    @classmethod
    def shipped(cls, weights: Path, graph: Path, device: str = "cpu") -> Self:
        """Put weights that come with rbs into the graph that lies beside them.

        Args:
            weights: The weights, .safetensors.
            graph: Their network, as `rbs.inference.onnx_export` writes it without weights.
            device: One of `rbs.inference.devices.DEVICES`.

        Raises:
            CheckpointError: One of the two files is missing or not the one its card tells of.
            RbsError: ONNX Runtime is not installed.
        """
        from safetensors import safe_open

        sha256 = file_sha256(weights, f"name a weight file with {cls.option}")
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
        family = architecture["class_path"].rpartition(".")[2]
        provenance = description.get("provenance", {})
        scale = architecture["init_args"].get("scale", 1)
        return cls(session, f"{family} {weights.name} (ONNX)", sha256, provenance, weights, scale)

    @classmethod
    def exported(cls, path: Path, device: str = "cpu") -> Self:
        """Read what `rbs export` wrote.

        Args:
            path: An .onnx file.
            device: One of `rbs.inference.devices.DEVICES`.

        Raises:
            CheckpointError: The file is missing, cannot be read, is damaged, is not of `rbs
                export`, or holds a network of another kind.
            RbsError: ONNX Runtime is not installed.
        """
        from rbs.inference.onnx_file import described

        check_recorded(path, file_sha256(path))
        try:
            model = path.read_bytes()
            about = described(model)
            cls._require(about, path)
            session = session_of(model, device=device)
            cls._require_ports(session)
        except KeyError:
            fault = "it does not say which network it holds"
            raise CheckpointError(fault, file=path, remedy=EXPORT) from None
        except (RbsError, MemoryError):
            raise
        except ValueError as error:
            fault = f"it is no intact export of a {cls.kind} ({error})"
            raise CheckpointError(fault, file=path, remedy=EXPORT) from None
        except Exception as error:  # ONNX Runtime has kinds of its own for what is no model
            fault = f"it is truncated or not an ONNX file of a whole network ({type(error).__name__})"
            raise CheckpointError(fault, file=path, remedy=EXPORT) from None
        name, sha256 = f"{about.name} (ONNX)", about.weights_sha256
        return cls(session, name, sha256, about.provenance, path, about.scale)

    @classmethod
    def _require(cls, about: ExportDescription, path: Path) -> None:
        """Require a network of this kind.

        Raises:
            CheckpointError: It is of another.
        """
        cls.require_work(about.does, path)

    @classmethod
    def require_work(cls, does: str, path: Path) -> None:
        """Require that a network does what this kind does.

        Raises:
            CheckpointError: It does something else.
        """
        if does != cls.does:
            fault = f"it {does}; a {cls.kind} that {cls.does} is needed here"
            raise CheckpointError(fault, file=path, remedy="name another file")

    @classmethod
    def _require_ports(cls, session: InferenceSession) -> None:
        """Require the inputs and outputs of this kind of network.

        Raises:
            ValueError: It has others.
        """
        given = [(i.name, i.type, len(i.shape)) for i in session.get_inputs()]
        if given != [(name, "tensor(float)", dimensions) for name, dimensions in cls.takes.items()]:
            names = " and ".join(cls.takes)
            raise ValueError(f"it takes {shown([name for name, _, _ in given])}, not {names}")
        if [(o.type, len(o.shape)) for o in session.get_outputs()] != [("tensor(float)", cls.answers)]:
            raise ValueError(f"it does not answer as a {cls.kind} does")

    def answer(self, *given: Array, shape: tuple[int, ...]) -> Array:
        """The network's answer.

        Args:
            given: Its inputs in the order of `takes`, float32; the first are images.
            shape: Shape that the answer must have.

        Raises:
            CheckpointError: The network, of another making, cannot be run or answers with another
                shape.
        """
        try:
            (answer,) = self.session.run(None, dict(zip(self.takes, given, strict=True)))
        except Exception as error:  # ONNX Runtime has kinds of its own for what cannot be computed
            if wants_memory(error):
                raise MemoryError from error
            fault = f"ONNX Runtime cannot run it on {given[0].shape} pixels ({type(error).__name__})"
            raise CheckpointError(fault, file=self.file, remedy=EXPORT) from error
        if answer.shape != shape:
            fault = f"it answers with {answer.shape} pixels instead of {shape}"
            raise CheckpointError(fault, file=self.file, remedy=EXPORT)
        found: Array = answer
        return found


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
