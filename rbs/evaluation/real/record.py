"""Finished restorations, a file each, by which an evaluation is continued or extended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rbs.evaluation.methods import Method
from rbs.evaluation.real.foci import COLUMNS
from rbs.evaluation.real.scans import RealScan, Speed
from rbs.scans.scan import Array
from rbs.utils.files import read_npz, whole_file, write_json
from rbs.utils.version import VERSION

SCORES = ("view", "nc_nmse", "nc_psnr", "count_bias", *COLUMNS)
FORMAT = 2
"""Raised whenever the same restoration would get other scores."""


@dataclass(frozen=True)
class Job:
    """A restoration: of one draw of one scan at one speed, by one method.

    Attributes:
        scan: The slow scan.
        speed: Speed of the rapid scan.
        draw: Number of the draw, its seed.
        method: The method.
        pictured: Whether the restoration itself is kept, for pictures.
    """

    scan: RealScan
    speed: Speed
    draw: int
    method: Method
    pictured: bool

    @property
    def key(self) -> str:
        """Hash of all that decides the scores; names of scans and of peers do not."""
        method = self.method.settings or {"name": self.method.name}
        share = self.speed.share(self.scan.velocity)
        facts = [FORMAT, VERSION, self.scan.digest, repr(share), self.draw, method]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


class Record:
    """Finished restorations in a folder.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def scores(self, job: Job) -> list[dict[str, Any]] | None:
        """Scores of a restoration, one entry a view; None where it is not finished."""
        try:
            scores = json.loads((self.folder / f"{job.key}.json").read_text(encoding="utf-8"))
            rows = [{name: row[name] for name in SCORES} for row in scores]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return None if job.pictured and self.picture(job) is None else rows

    def save(self, job: Job, scores: Sequence[Mapping[str, Any]], estimate: Array) -> None:
        """Keep the scores of a restoration, and the restoration itself where it is pictured.

        Raises:
            OutputError: They cannot be written.
        """
        if job.pictured:
            with whole_file(self.folder / f"{job.key}.npz", overwrite=True) as path:
                np.savez_compressed(path, estimate=estimate.astype(np.float16))
        write_json(self.folder / f"{job.key}.json", scores)

    def picture(self, job: Job) -> Array | None:
        """A kept restoration, standard counts (V, H, W); None without one."""
        try:
            return read_npz(self.folder / f"{job.key}.npz")["estimate"].astype(np.float32)
        except (ValueError, KeyError):
            return None
