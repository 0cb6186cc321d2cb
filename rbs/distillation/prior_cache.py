"""Semantic priors on disk, so that a frozen teacher looks at each image once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import rbs
from rbs.segmentation.prior import SemanticPrior
from rbs.utils.files import whole_file


class PriorCache:
    """Priors keyed by what they were computed from.

    Embeddings are kept in half precision, masks in steps of 1/255. The prior is rounded before it
    is returned the first time, so training with the cache and training with the frozen teacher see
    the same numbers. Several processes may share the folder. A damaged file counts as absent.

    Args:
        folder: Where the files lie.
        digest: Whatever else the prior depends on: the teacher's digest, the restorer's, settings.
        max_bytes: The files used longest ago are removed when the folder grows beyond this.
    """

    def __init__(self, folder: Path, digest: str, max_bytes: int = 20 * 2**30) -> None:
        self.folder = Path(folder)
        self.digest = digest
        self.max_bytes = max_bytes
        self._bytes: int | None = None

    def get_or_compute(
        self, counts: Tensor, compute: Callable[[Tensor], SemanticPrior], settings: str = ""
    ) -> SemanticPrior:
        """The priors of `counts`, each from its file, or computed alone and stored.

        Args:
            counts: What the prior is keyed by and computed from, (B, V, H, W) counts.
            compute: The teacher, given (1, V, H, W) of them.
            settings: What else they are keyed by.

        Returns:
            The prior of the batch, float32, on the device of `counts`.
        """
        priors = [self._one(counts[i : i + 1], compute, settings) for i in range(len(counts))]
        return SemanticPrior.cat(priors).to(counts.device)

    def key(self, counts: Tensor, settings: str = "") -> str:
        """Name of the file of one image's prior."""
        array = np.ascontiguousarray(counts.detach().cpu().float().numpy())
        content = hashlib.sha256(f"{rbs.__version__} {self.digest} {settings} {array.shape}".encode())
        content.update(array.tobytes())
        return content.hexdigest()

    def _one(
        self, counts: Tensor, compute: Callable[[Tensor], SemanticPrior], settings: str
    ) -> SemanticPrior:
        path = self.folder / f"{self.key(counts, settings)}.safetensors"
        prior = _read(path)
        if prior is None:
            with torch.no_grad():
                computed = compute(counts)
            tensors = _rounded(computed)
            self._store(path, tensors, computed)
            prior = _restored(tensors, computed.embedding_stride, computed.mask_stride)
        return prior

    def _store(self, path: Path, tensors: dict[str, Tensor], prior: SemanticPrior) -> None:
        strides = {"embedding_stride": str(prior.embedding_stride), "mask_stride": str(prior.mask_stride)}
        with whole_file(path, overwrite=True) as part:
            save_file(tensors, part, metadata=strides)
        if self._bytes is not None:
            self._bytes += path.stat().st_size
        if self._bytes is None or self._bytes > self.max_bytes:
            self._bytes = self._prune()

    def _prune(self) -> int:
        """If there is too much, remove the files used longest ago, to nine tenths; returns the bytes left."""
        files = []
        for file in self.folder.glob("*.safetensors"):
            with suppress(FileNotFoundError):
                status = file.stat()
                files.append((status.st_mtime_ns, status.st_size, file))
        total = sum(size for _, size, _ in files)
        if total > self.max_bytes:
            for _, size, file in sorted(files):
                if total <= 0.9 * self.max_bytes:
                    break
                file.unlink(missing_ok=True)
                total -= size
        return total


def _rounded(prior: SemanticPrior) -> dict[str, Tensor]:
    return {
        "embedding": prior.embedding.detach().cpu().half().contiguous(),
        "masks": (prior.masks.detach().cpu() * 255).round().to(torch.uint8).contiguous(),
    }


def _restored(tensors: dict[str, Tensor], embedding_stride: int, mask_stride: int) -> SemanticPrior:
    return SemanticPrior(
        tensors["embedding"].float(), tensors["masks"].float() / 255, embedding_stride, mask_stride
    )


def _read(path: Path) -> SemanticPrior | None:
    try:
        with safe_open(path, framework="pt") as file:
            strides = file.metadata()
            tensors = {name: file.get_tensor(name) for name in ("embedding", "masks")}
        os.utime(path)
    except (OSError, SafetensorError):
        return None
    return _restored(tensors, int(strides["embedding_stride"]), int(strides["mask_stride"]))
