"""Describing scans: by ONNX Runtime, without PyTorch, where that is enough."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from rbs.description.coarse import coarse_counts
from rbs.description.foci import FocusOdds, seen_foci, with_foci
from rbs.description.grammar import require_grammar
from rbs.description.sentences import SENTENCES
from rbs.errors import CheckpointError
from rbs.inference.onnx_network import VIEWS, OnnxNetwork
from rbs.inference.segmentation import AnySegmenter, load_segmenter_for
from rbs.scans.counts import standard_scale
from rbs.scans.scan import Array, Scan
from rbs.utils.memory import require_whole
from rbs.utils.schema import checked, parsed
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


@dataclass(frozen=True)
class ScanDescriber:
    """A description network, and a segmenter by whose hot spots foci of raised uptake are told.

    Attributes:
        network: The description network.
        segmenter: Finds hot spots.
        odds: How often these are foci.
    """

    network: AnyDescriber
    segmenter: AnySegmenter
    odds: FocusOdds

    def chances(self, scan: Scan, exposure: float, *, hot_spots: bool) -> Array:
        """Probability of each sentence of the grammar within its topic, float32 (S,).

        Args:
            scan: Raw counts.
            exposure: Exposure relative to the standard scan.
            hot_spots: Whether hot spots tell of foci of raised uptake. On coarse pixels, or unlike
                the scans that the segmenter was trained on, the description network does.

        Raises:
            ScanError: It is too large, or its pixels are of another size.
            CheckpointError: A network cannot be run, or gave values that are no probabilities.
        """
        chances = self.network.chances(coarse_counts(scan), exposure)
        _require_finite(self.network.name, chances)
        if not hot_spots:
            return chances
        counts = scan.aligned()
        probabilities = self.segmenter.probabilities(counts, exposure, scan.spacing_mm)
        _require_finite(self.segmenter.name, probabilities)
        views = tuple(sorted(scan.views))  # "anterior" before "posterior", as `Scan.aligned`
        return with_foci(chances, seen_foci(counts, probabilities, scan.spacing_mm, views), self.odds)


def _require_finite(name: str, values: Array) -> None:
    if not np.isfinite(values).all():
        raise CheckpointError(f"{name} gave values that are not finite", remedy="use other weights")


def load_scan_describer(checkpoint: str | Path = NAME) -> ScanDescriber:
    """Load a description network and the shipped segmenter.

    Args:
        checkpoint: Weights of the description network as .safetensors, or "shipped".

    Raises:
        CheckpointError: A file is missing, cannot be read, or does not describe scans, or the
            segmenter is not that whose hot spots were counted.
        RbsError: ONNX Runtime is not installed.
    """
    card = shipped.DESCRIBER.with_suffix(".json")
    try:
        content = parsed(card.read_bytes())
        odds, fitted_to = checked(FocusOdds, content["foci"]), content["foci_of_segmenter"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        fault = f"it does not say how often hot spots are foci ({type(error).__name__})"
        raise CheckpointError(fault, file=card, remedy="install rbs again") from error
    segmenter = load_segmenter_for()
    if segmenter.sha256 != fitted_to:
        fault = f"its odds of foci hold for another segmenter than {segmenter.name}"
        remedy = "install rbs again, or fit them with scripts/fit_foci.py"
        raise CheckpointError(fault, file=card, remedy=remedy)
    return ScanDescriber(load_describer_for(checkpoint), segmenter, odds)
