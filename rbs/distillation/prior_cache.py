"""Semantic priors on disk, so that a frozen teacher looks at each image once."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from rbs.errors import CheckpointError, RbsError, printable
from rbs.scans.scan import Array, Spacing
from rbs.segmentation.prior import SemanticPrior
from rbs.utils.checkpoint import digest_of, read_tensors
from rbs.utils.files import whole_file
from rbs.utils.version import VERSION

log = logging.getLogger(__name__)

PriorSource = Callable[[Array, float, Spacing], SemanticPrior]
"""From a whole rapid image, counts (V, H, W) or colours (3, H, W), its exposure and spacing to its
prior (1, V, ...) on the CPU, rounded (`SemanticPrior.rounded`)."""


class PriorCache:
    """Priors keyed by what they were computed from.

    Embeddings are kept in half precision, masks in steps of 1/255. The prior is rounded before it
    is returned the first time, so training with the cache and training with the frozen teacher see
    the same numbers. Several processes may share the folder. A file carries a digest of its content
    and its name: a damaged or exchanged one counts as absent, and a line in the log says so.

    Args:
        folder: Where the files lie.
        digest: Whatever else the prior depends on: SHA-256 of the segmenter and of the restorer.
        max_bytes: The files used longest ago are removed when the folder grows beyond this; those
            used since this cache was opened stay.
    """

    def __init__(self, folder: Path, digest: str, max_bytes: int = 20 * 2**30) -> None:
        self.folder = Path(folder)
        self.digest = digest
        self.max_bytes = max_bytes
        self._opened = time.time() - 1  # file systems keep time coarsely
        self._bytes: int | None = None
        self._warned = False

    def get_or_compute(
        self, counts: Array, exposure: float, spacing_mm: Spacing, compute: PriorSource
    ) -> SemanticPrior:
        """The prior of an image, from its file, or computed and stored.

        Args:
            counts: The whole image, (C, H, W).
            exposure: Its exposure.
            spacing_mm: Its row and column spacing, mm.
            compute: Makes the prior, in single precision.

        Returns:
            The rounded prior.

        Raises:
            RbsError: It made one that is not finite.
        """
        path = self._path(counts, exposure, spacing_mm)
        prior = self._read(path)
        if prior is None:
            computed = compute(counts, exposure, spacing_mm)
            if not (computed.embedding.half().isfinite().all() and computed.masks.isfinite().all()):
                fault = "the teacher gave a semantic prior that is not finite"
                raise RbsError(fault, file=path, remedy="adapt another teacher with `make adapt-sam`")
            self._store(path, computed)
            prior = computed.to("cpu").rounded()
        return prior

    def read(self, counts: Array, exposure: float, spacing_mm: Spacing) -> SemanticPrior:
        """The prior of an image that was stored; opens files alone, as worker processes need it.

        Raises:
            RbsError: It is not there.
        """
        prior = self._read(self._path(counts, exposure, spacing_mm))
        if prior is None:
            fault = "a semantic prior that this training had stored is missing or damaged"
            remedy = "start again with --ckpt_path last, which computes it anew"
            raise RbsError(fault, file=self.folder, remedy=remedy)
        return prior

    def key(self, counts: Array, exposure: float, spacing_mm: Spacing) -> str:
        """Name of the file of one image's prior."""
        array = np.ascontiguousarray(counts, np.float32)
        spacing = " x ".join(f"{side:.4f}" for side in spacing_mm)
        about = f"{VERSION} {self.digest} exposure {exposure:.6f} {array.shape} of {spacing} mm"
        return hashlib.sha256(about.encode() + array.tobytes()).hexdigest()

    def _path(self, counts: Array, exposure: float, spacing_mm: Spacing) -> Path:
        return self.folder / f"{self.key(counts, exposure, spacing_mm)}.safetensors"

    def _store(self, path: Path, prior: SemanticPrior) -> None:
        stored = prior.to("cpu").rounded()
        tensors = {"embedding": stored.embedding.contiguous(), "masks": stored.masks.contiguous()}
        strides = {"embedding_stride": str(prior.embedding_stride), "mask_stride": str(prior.mask_stride)}
        digest = digest_of(tensors, strides | {"file": path.name})
        with whole_file(path, overwrite=True) as part:
            save_file(tensors, part, metadata=strides | {"digest": digest})
        if self._bytes is not None:
            self._bytes += path.stat().st_size
        if self._bytes is None or self._bytes > self.max_bytes:
            self._bytes = self._prune()

    def _read(self, path: Path) -> SemanticPrior | None:
        """The prior in a file; None where there is none, or none that is whole."""
        if not path.is_file():
            return None
        try:
            tensors, metadata = read_tensors(path)
            digest = metadata.pop("digest", None)
            if digest != digest_of(tensors, metadata | {"file": path.name}):
                raise CheckpointError("it is damaged", file=path)
            strides = int(metadata["embedding_stride"]), int(metadata["mask_stride"])
            prior = SemanticPrior(tensors["embedding"], tensors["masks"], *strides)
        except (CheckpointError, KeyError, ValueError):
            if not self._warned:
                log.warning("%s: it is damaged; such semantic priors are computed again", printable(path))
                self._warned = True
            return None
        with suppress(OSError):
            os.utime(path)
        return prior

    def _prune(self) -> int:
        """Remove the oldest files down to nine tenths of `max_bytes`; returns the bytes left."""
        files = []
        for file in self.folder.glob("*.safetensors"):
            with suppress(FileNotFoundError):
                status = file.stat()
                files.append((status.st_mtime, status.st_size, file))
        total = sum(size for _, size, _ in files)
        if total > self.max_bytes:
            for used, size, file in sorted(files):
                if total <= 0.9 * self.max_bytes or used >= self._opened:
                    break
                file.unlink(missing_ok=True)
                total -= size
        return total
