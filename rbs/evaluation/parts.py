"""Finished cases of an evaluation, a file each: an interrupted one goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rbs.scans.scan import Array
from rbs.utils.files import read_npz, whole_file, write_text

_TABLES, _FEATURES = "tables", "features/"


@dataclass(frozen=True)
class Part:
    """Results of one case.

    Attributes:
        scores: Its rows of per_scan.csv.
        regions: Its rows of regions.csv.
        shown: What settings.json says of its pictures; None where it has none.
        pictures: Its arrays of pictures.npz.
        features: Method or reference to the features of its tiles (N, D), for figures of the whole
            split.
    """

    scores: list[dict[str, Any]]
    regions: list[dict[str, Any]]
    shown: dict[str, Any] | None
    pictures: Mapping[str, Array]
    features: Mapping[str, Array] = field(default_factory=dict)


class Parts:
    """The parts in a folder; those that were made from anything else than `inputs` are thrown away.

    Args:
        folder: Where they lie; it is made, so that a place that cannot be written is found out
            first.
        inputs: All that decides the results, as JSON can hold it.

    Raises:
        OutputError: The folder cannot be written.
    """

    def __init__(self, folder: Path, inputs: Mapping[str, Any]) -> None:
        self.folder = folder
        made_from, record = json.dumps(inputs, indent=2, default=str), folder / "inputs.json"
        if record.is_file() and record.read_text(encoding="utf-8") != made_from:
            self.remove()
        write_text(record, made_from)

    def save(self, case: int, part: Part) -> None:
        """Keep the part of a case.

        Raises:
            OutputError: It cannot be written.
        """
        tables = json.dumps({"scores": part.scores, "regions": part.regions, "shown": part.shown})
        features = {_FEATURES + name: array for name, array in part.features.items()}
        with whole_file(self._file(case), overwrite=True) as path:
            np.savez_compressed(path, **{_TABLES: np.array(tables)}, **part.pictures, **features)  # type: ignore[arg-type]

    def load(self, case: int) -> Part | None:
        """The part of a case; None where it is not finished."""
        try:
            arrays = read_npz(self._file(case))
            tables = json.loads(str(arrays.pop(_TABLES)))
            features = {name for name in arrays if name.startswith(_FEATURES)}
            return Part(
                **tables,
                pictures={name: arrays[name] for name in arrays if name not in features},
                features={name.removeprefix(_FEATURES): arrays[name] for name in arrays if name in features},
            )
        except (ValueError, KeyError, TypeError):
            return None

    def remove(self) -> None:
        """Throw all parts away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, case: int) -> Path:
        return self.folder / f"{case}.npz"
