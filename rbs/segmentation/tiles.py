"""Packing long scans into SAM's square picture without padding.

A whole-body scan of 1024 x 256 pixels would fill a quarter of the square. Its upper and lower
halves side by side fill it: 512 x 512. In general a view of H x W pixels is cut into n =
round(sqrt(H / W)) bands along H which lie side by side. Bands consist of whole embedding cells, so
the output of the encoder can be put back on the scan exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

CANVAS = 512
"""Side of the packed picture that fills SAM's input, scan pixels; the zoom of crops and scans."""

_LARGEST = 1.5
"""Widest packed picture, canvases; larger ones are shrunk."""


@dataclass(frozen=True)
class Layout:
    """Geometry of one view in the packed picture.

    Attributes:
        height: Rows of the view, scan pixels.
        width: Columns of the view, scan pixels.
        cell: Side of an embedding cell, scan pixels, before shrinking.
        bands: Number of bands.
        shrink: Whole number by which the picture is made smaller.
        rows: Rows of a band, embedding cells.
        columns: Columns of a band, embedding cells.
    """

    height: int
    width: int
    cell: int
    bands: int
    shrink: int
    rows: int
    columns: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the packed picture, embedding cells."""
        return self.rows, self.bands * self.columns


def plan(height: int, width: int, cell: int) -> Layout:
    """The layout of a height x width view whose embedding cells are `cell` scan pixels wide."""
    bands = max(1, round(math.sqrt(height / width)))
    shrink = 1
    while True:
        side = cell * shrink
        rows, columns = math.ceil(height / (bands * side)), math.ceil(width / side)
        if max(rows, bands * columns) * cell <= _LARGEST * CANVAS:
            return Layout(height, width, cell, bands, shrink, rows, columns)
        shrink += 1


def pack(views: Tensor, layout: Layout) -> Tensor:
    """Lay the bands of views (N, C, H, W) side by side: (N, C, h, w) scan pixels, zeros outside."""
    side = layout.cell * layout.shrink
    band = layout.rows * side
    padded = F.pad(views, (0, layout.columns * side - layout.width, 0, layout.bands * band - layout.height))
    n, c, _, w = padded.shape
    return padded.reshape(n, c, layout.bands, band, w).permute(0, 1, 3, 2, 4).reshape(n, c, band, -1)


def unpack(grid: Tensor, layout: Layout) -> Tensor:
    """Undo `pack` for a packed grid (N, C, h, w) of k x k points an embedding cell.

    Returns:
        (N, C, ceil(H / cell) * k, ceil(W / cell) * k) points lying on the view.
    """
    n, c, h, w = grid.shape
    points = h // layout.rows
    bands = grid.reshape(n, c, h, layout.bands, w // layout.bands).permute(0, 1, 3, 2, 4)
    whole = bands.reshape(n, c, layout.bands * h, -1)
    if layout.shrink > 1:
        whole = F.interpolate(whole, scale_factor=layout.shrink, mode="bilinear")
    rows, columns = (math.ceil(side / layout.cell) * points for side in (layout.height, layout.width))
    return whole[..., :rows, :columns]
