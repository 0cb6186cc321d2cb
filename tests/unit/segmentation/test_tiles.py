import pytest
import torch

from rbs.segmentation.tiles import pack, plan, unpack

SIZES = [(1024, 256), (512, 128), (1000, 250), (256, 128), (33, 70), (70, 333), (2048, 512), (3000, 301)]


def test_a_whole_body_scan_fills_the_square():
    layout = plan(1024, 256, 16)
    assert (layout.bands, layout.grid, layout.shrink) == (2, (32, 32), 1)
    scan = torch.arange(1024.0)[:, None].expand(1024, 256)[None, None]
    packed = pack(scan, layout)
    assert packed.shape == (1, 1, 512, 512)
    assert packed[0, 0, 0, 0] == 0
    assert packed[0, 0, 0, 256] == 512


@pytest.mark.parametrize("cell", [8, 16])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_unpacking_undoes_packing(height, width, cell):
    layout = plan(height, width, cell)
    scan = torch.rand(2, 3, height, width)
    packed = pack(scan, layout)
    side = cell * layout.shrink
    assert packed.shape[-2:] == tuple(cells * side for cells in layout.grid)
    if layout.shrink == 1:
        back = unpack(packed, layout)
        assert torch.equal(back[..., :height, :width], scan)
        assert back[..., height:, :].abs().sum() + back[..., width:].abs().sum() == 0


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_cells_lie_on_the_scan(height, width):
    """A grid that holds the row of each of its cells comes back in order, whatever the bands."""
    layout = plan(height, width, 16)
    side = 16 * layout.shrink
    rows = torch.arange(float(height))[:, None].expand(height, width)[None, None]
    cells = torch.nn.functional.avg_pool2d(pack(rows, layout), side)
    grid = unpack(cells, layout)
    assert grid.shape[-2:] == (-(-height // 16), -(-width // 16))
    inner = slice(2, height // 16 - 2 * layout.shrink)
    wanted = 16 * torch.arange(float(grid.shape[-2])) + 7.5
    assert torch.allclose(grid[0, 0, inner, 0], wanted[inner], atol=1e-3)
