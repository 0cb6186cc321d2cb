"""Weight files of description networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rbs.description.describer import Describer
from rbs.description.grammar import grammar_digest, require_grammar
from rbs.scans.counts import standard_scale
from rbs.scans.scan import Array
from rbs.utils.checkpoint import save_modules
from rbs.utils.memory import require_whole
from rbs.weights.module_file import read_module


@dataclass(frozen=True)
class LoadedDescriber:
    """A description network from a file.

    Attributes:
        describer: In evaluation mode, frozen, on the CPU.
        name: Its class and the file it came from.
        version: The version of rbs that wrote it.
        sha256: Of the file, hexadecimal.
        provenance: Record of its making.
    """

    describer: Describer
    name: str
    version: str
    sha256: str
    provenance: dict[str, Any] = field(default_factory=dict)

    def chances(self, counts: Array, exposure: float) -> Array:
        """Probability of each sentence of the grammar within its topic, float32 (S,).

        Args:
            counts: Raw counts of coarse pixels, aligned (V, H, W).
            exposure: Exposure relative to the standard scan.

        Raises:
            ScanError: It is too large.
        """
        _, rows, columns = counts.shape
        require_whole(rows, columns, "described")
        x = torch.as_tensor(standard_scale(np.asarray(counts, np.float32), exposure))
        with torch.inference_mode():
            given = x.expand(2, -1, -1)[None], torch.tensor([exposure], dtype=torch.float32)
            found: Array = self.describer(*given)[0].exp().numpy()
        return found


def save_describer(path: str | Path, describer: Describer, provenance: dict[str, Any]) -> None:
    """Write the weights of a description network and its spec, replacing an older file whole.

    Raises:
        OutputError: The file cannot be written.
    """
    taught = provenance | {"grammar": grammar_digest()}
    save_modules(path, {"": describer}, {**describer.spec(), "provenance": taught})


def load_describer(path: str | Path) -> LoadedDescriber:
    """Read a description network.

    Raises:
        CheckpointError: The file is missing, truncated, damaged, or holds something else.
    """
    found = read_module(path, Describer, "train one with `make train-describer`, or check the path")
    require_grammar(found.provenance, Path(path))
    return LoadedDescriber(found.module, found.name, found.version, found.sha256, found.provenance)
