"""Describing scans: by ONNX Runtime, without PyTorch, where that is enough."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from rbs.description.grammar import require_grammar
from rbs.description.sentences import SENTENCES
from rbs.inference.onnx_network import VIEWS, OnnxNetwork
from rbs.scans.counts import standard_scale
from rbs.scans.scan import Array
from rbs.utils.memory import require_whole
from rbs.weights import shipped
from rbs.weights.shipped import NAME

if TYPE_CHECKING:
    from rbs.description.checkpoint import LoadedDescriber

AnyDescriber: TypeAlias = "LoadedDescriber | OnnxDescriber"


@dataclass(frozen=True)
class OnnxDescriber(OnnxNetwork):
    """A description network in ONNX Runtime, used as `LoadedDescriber` is."""

    kind = "description network"
    option = "--describer"
    does = "describes scans"
    takes = MappingProxyType({"rapid": 4, "exposure": 1})
    answers = 2

    def chances(self, counts: Array, exposure: float) -> Array:
        """Probability of each sentence: see `LoadedDescriber.chances`.

        Raises:
            ScanError: It is too large.
            CheckpointError: The network cannot be run.
        """
        _, rows, columns = counts.shape
        require_whole(rows, columns, "described")
        x = standard_scale(np.asarray(counts, np.float32)[None], exposure)
        both = np.repeat(x, VIEWS // len(counts), axis=1)
        return np.exp(self.answer(both, np.array([exposure], np.float32), shape=(1, len(SENTENCES)))[0])


def load_describer_for(checkpoint: str | Path = NAME) -> AnyDescriber:
    """Load a description network; ONNX Runtime starts much sooner than PyTorch.

    Args:
        checkpoint: Weights as .safetensors, or "shipped".

    Raises:
        CheckpointError: The file is missing, cannot be read, or does not describe scans.
        RbsError: ONNX Runtime is not installed.
    """
    if str(checkpoint) == NAME or Path(checkpoint) == shipped.DESCRIBER:
        found = OnnxDescriber.shipped(shipped.DESCRIBER, shipped.DESCRIBER_GRAPH)
        require_grammar(found.provenance, found.file)
        return found
    from rbs.description.checkpoint import load_describer

    return load_describer(checkpoint)
