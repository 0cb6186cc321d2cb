"""Large scans restored tile by tile: flat memory, and the answer of the whole scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rbs.restorers.base import Restorer
from rbs.utils.memory import WHOLE, require_whole, return_memory

TILE = 1024
"""Side of a tile, pixels, without its margin."""


AROUND = 4
"""Pixels by which a network around a restorer, such as an uncertainty head, may reach further."""


@dataclass(frozen=True)
class _Tile:
    """A part of a scan, and the larger part that its restoration depends on; pixels.

    Attributes:
        rows: First row and one past the last.
        columns: Likewise.
        margin_rows: The same with the margin.
        margin_columns: Likewise.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    margin_rows: tuple[int, int]
    margin_columns: tuple[int, int]

    def given(self, x: Tensor) -> Tensor:
        """The part of an image (B, C, H, W) with its margin."""
        return x[..., slice(*self.margin_rows), slice(*self.margin_columns)]

    def own(self, features: Tensor, shape: torch.Size) -> Tensor:
        """The tile without its margin, of features that were computed with it, at any scale.

        Args:
            features: (B, C, h, w).
            shape: Rows and columns that the network was given, which may be padded at the end.
        """
        height, width = features.shape[-2:]
        scale = max(1, round(shape[0] / height))
        parts = []
        for (first, last), (start, end), size in (
            (self.rows, self.margin_rows, height),
            (self.columns, self.margin_columns, width),
        ):
            # Padding at the end of a scan belongs to its last tile.
            stop = size if last == end else (last - start) // scale
            parts.append(slice((first - start) // scale, stop))
        return features[..., parts[0], parts[1]]


class _Known(Exception):
    """An average was measured, so that the rest of the network need not be computed yet."""


class _GlobalAverages:
    """The averages over a whole scan that a network's channel attention depends on.

    They depend on each other in the order in which the network takes them: all tiles are computed
    up to the first that is not known, which thereby becomes known, and so on.
    """

    def __init__(self) -> None:
        self.known: list[Tensor] = []
        self.tile: _Tile | None = None
        self._calls = 0
        self._shape = torch.Size()
        self._sums: list[Tensor] = []
        self._pixels = 0

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[None]:
        """Take part in the averages of a network."""
        pools = [module for module in network.modules() if isinstance(module, nn.AdaptiveAvgPool2d)]
        hooks = [pool.register_forward_hook(self._give_or_measure) for pool in pools]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def begin(self, tile: _Tile, shape: torch.Size) -> None:
        """Begin with a tile, given to the network with `shape`."""
        self.tile, self._shape, self._calls = tile, shape, 0

    def learned(self) -> bool:
        """True if the pass over all tiles has measured another average, which is known now."""
        if not self._sums:
            return False
        average = torch.stack(self._sums).sum(dim=0) / self._pixels
        self.known.append(average.float()[..., None, None])
        self._sums, self._pixels = [], 0
        return True

    def _give_or_measure(self, pool: nn.Module, given: tuple[Tensor], own: Tensor) -> Tensor:
        number, self._calls = self._calls, self._calls + 1
        if number < len(self.known):
            return self.known[number].to(own.dtype)
        assert self.tile is not None
        part = self.tile.own(given[0], self._shape)
        self._sums.append(part.double().sum(dim=(-2, -1)))
        self._pixels += part.shape[-2] * part.shape[-1]
        raise _Known


def restore_scan(
    network: Callable[[Tensor, Tensor], Tensor], restorer: Restorer, x: Tensor, exposure: Tensor
) -> Tensor:
    r"""Restore a scan of any size.

    A scan of more than `WHOLE` pixels is restored in tiles, if the restorer says how far its
    receptive field reaches (`Restorer.reach`). With a margin of that width a tile is restored as in
    the whole scan, except for averages over the whole scan (channel attention, as NAFNet's). For
    them the tiles are computed once more for each average, as far as it, and the sums of its parts
    make the average of the whole:

    .. math::
        \bar f = \frac{1}{HW} \sum_{\text{tiles}} \sum_{\text{pixels}} f .

    Averages within tiles, as of the local converter of Chu et al. (ECCV 2022, arXiv 2112.04491),
    would take one pass and give other counts: by 0.3 % of the peak on a whole-body scan.

    Args:
        network: The restorer itself, or a network around it that takes the same input and gives one
            value a pixel.
        restorer: The restorer.
        x: Rapid scan at standard scale, (B, V, H, W).
        exposure: Its exposure, (B,).

    Returns:
        The answer of the network for the whole scan, (B, V, H, W).

    Raises:
        ScanError: The restorer enlarges, and the restoration would have more than `WHOLE` pixels.
    """
    height, width = x.shape[-2:]
    if restorer.scale > 1:
        require_whole(restorer.scale * height, restorer.scale * width, "restored")
    if height * width <= WHOLE or restorer.reach is None or restorer.scale > 1:
        return network(x, exposure)
    return_memory()
    tiles = list(_tiles(height, width, restorer.reach, restorer.multiple))
    averages, answer = _GlobalAverages(), torch.empty_like(x)
    with averages.watching(restorer):
        while True:
            for tile in tiles:
                given = tile.given(x)
                averages.begin(tile, given.shape[-2:])
                with suppress(_Known):
                    restored = network(given, exposure)
                    answer[..., slice(*tile.rows), slice(*tile.columns)] = tile.own(
                        restored, given.shape[-2:]
                    )
            if not averages.learned():
                return answer


def _tiles(height: int, width: int, reach: int, multiple: int) -> Iterator[_Tile]:
    """Tiles whose corners lie on the grid of the network's coarsest level, given at one size."""
    side = max(1, TILE // multiple) * multiple
    margin = -(-(reach + AROUND) // multiple) * multiple
    for rows, given_rows in _sections(height, side, margin, multiple):
        for columns, given_columns in _sections(width, side, margin, multiple):
            yield _Tile(rows, columns, given_rows, given_columns)


def _sections(
    length: int, side: int, margin: int, multiple: int
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """The tiles of one direction and what is given for them, each (first, one past the last).

    At the ends of the scan, where there is no margin, more of its inside is given: memory that was
    freed after one tile then serves the next.
    """
    size = side + 2 * margin
    latest = max(0, (length - size) // multiple * multiple)
    for first in range(0, length, side):
        last = min(first + side, length)
        start = max(0, min(first - margin, latest))
        yield (first, last), (start, start + size if start < latest else length)
