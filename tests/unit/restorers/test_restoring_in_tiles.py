"""A large scan is restored in tiles: the same counts, in memory that does not grow with it."""

import numpy as np
import pytest
import torch
from nm_files import expectation
from torch import nn

from rbs.restorers import tiles
from rbs.restorers.base import Restorer
from rbs.restorers.checkpoint import LoadedRestorer, load_restorer
from rbs.restorers.dncnn import DnCNN
from rbs.restorers.nafnet import NAFNet
from rbs.restorers.restormer import Restormer
from rbs.restorers.swinir import SwinIR
from rbs.restorers.uncertainty import Uncertainty, UncertaintyHead
from rbs.restorers.unet import UNet

SHAPE = (243, 166)
"""No multiple of anything; each side has tiles within, and a smaller one at its end."""

KINDS = {
    "NAFNet": lambda: NAFNet(width=4, enc_blocks=(1, 1), middle_blocks=1, dec_blocks=(1, 1)),
    "DnCNN": lambda: DnCNN(depth=4, width=8),
    "UNet": lambda: UNet((4, 8)),
    "SwinIR": lambda: SwinIR(width=8, depths=(2,), heads=(2,), window=4),
}


def drawn(make) -> LoadedRestorer:
    """A restorer of random weights that all matter."""
    torch.manual_seed(5)
    restorer: Restorer = make()
    for parameter in restorer.parameters():
        nn.init.normal_(parameter, std=0.15)
    return LoadedRestorer(restorer.eval(), "drawn", "0", "0")


def counts(views: int = 2, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    body = expectation(*shape, level=8.0)
    return np.random.default_rng(0).poisson(np.stack([body, body[:, ::-1]])[:views])


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(tiles, "WHOLE", 128 * 128)
    monkeypatch.setattr(tiles, "TILE", 64)
    return monkeypatch


def test_the_tiles_are_those_of_a_scan_without_gap_or_overlap() -> None:
    for height, width in ((2300, 1100), (2051, 2049), (4096, 1024), (2049, 3000), (1130, 2160)):
        times = np.zeros((height, width), int)
        for tile in tiles._tiles(height, width, reach=44, multiple=8):
            times[slice(*tile.rows), slice(*tile.columns)] += 1
            for (first, last), (start, end), size in (
                (tile.rows, tile.margin_rows, height),
                (tile.columns, tile.margin_columns, width),
            ):
                assert start % 8 == 0
                assert start == 0 or start <= first - 44
                assert end == size or end >= last + 44
                assert end - start <= tiles.TILE + 2 * 48 + 8
        assert (times == 1).all()


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_give_the_counts_of_the_whole_scan(kind: str, views: int, small_tiles) -> None:
    loaded, rapid = drawn(KINDS[kind]), counts(views)
    tiled = loaded.restore(rapid, 0.5)
    small_tiles.setattr(tiles, "WHOLE", 2**30)
    whole = loaded.restore(rapid, 0.5)
    assert np.abs(tiled - whole).max() <= 1e-5 * whole.max()


@pytest.mark.parametrize("kind", KINDS)
def test_no_pixel_reaches_further_than_stated(kind: str) -> None:
    restorer = drawn(KINDS[kind]).restorer
    for pool in [module for module in restorer.modules() if isinstance(module, nn.AdaptiveAvgPool2d)]:
        pool.register_forward_hook(lambda _, given, own: torch.ones_like(own))  # whose reach has no end
    x = torch.as_tensor(counts(), dtype=torch.float32)[None]
    changed = x.clone()
    middle = tuple(side // 2 for side in SHAPE)
    changed[..., middle[0], middle[1]] += 100
    with torch.inference_mode():
        difference = (restorer(x, torch.ones(1)) - restorer(changed, torch.ones(1))).abs().amax((0, 1))
    reached = [
        int((where - start).abs().max()) for where, start in zip(difference.nonzero().T, middle, strict=True)
    ]
    assert 8 < max(reached) <= restorer.reach


def test_the_deviation_is_that_of_the_whole_scan(small_tiles) -> None:
    loaded, rapid = drawn(KINDS["NAFNet"]), counts()
    head = UncertaintyHead(4, 4)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3)
    uncertainty = Uncertainty(loaded, head.eval().requires_grad_(False), "head", "0", "0")
    tiled = uncertainty.deviation(rapid, 0.5)
    small_tiles.setattr(tiles, "WHOLE", 2**30)
    whole = uncertainty.deviation(rapid, 0.5)
    assert not np.array_equal(tiled, whole)
    assert np.abs(tiled - whole).max() <= 1e-5 * whole.max()


def test_the_shipped_weights_in_tiles(small_tiles) -> None:
    from rbs.inference.onnx import load_shipped

    rapid = counts(shape=(200, 136))
    small_tiles.setattr("rbs.inference.onnx.WHOLE", 128 * 128)
    tiled = load_shipped().restore(rapid, 0.5)
    small_tiles.setattr("rbs.inference.onnx.WHOLE", 2**30)
    whole = load_shipped().restore(rapid, 0.5)
    assert np.abs(tiled - whole).max() <= 1e-5 * whole.max()
    # Averages of each tile's own would not do: they differ from those of the whole.
    small_tiles.setattr(tiles._GlobalAverages, "_give_or_measure", lambda *_: None)
    apart = np.abs(load_restorer().restore(rapid, 0.5) - whole).max()
    assert apart > 1e-4 * whole.max()


def test_no_network_is_given_more_than_a_tile_with_its_margin(small_tiles) -> None:
    loaded = drawn(KINDS["NAFNet"])
    pixels: list[int] = []
    largest = []
    loaded.restorer.backbone.intro.register_forward_pre_hook(lambda _, x: pixels.append(x[0][0, 0].numel()))
    for rows in (256, 512):
        loaded.restore(counts(shape=(rows, 256)), 0.5)
        largest.append(max(pixels))
    assert largest[0] == largest[1] < 256 * 256 / 2


def test_a_network_without_a_reach_is_given_the_whole_scan(small_tiles) -> None:
    """Restormer's attention is over the whole image; tiles would change what it gives."""
    loaded = drawn(lambda: Restormer(width=4, blocks=(1, 1, 1, 1)))
    assert loaded.restorer.reach is None
    rapid = counts(shape=(160, 136))
    tiled = loaded.restore(rapid, 0.5)
    small_tiles.setattr(tiles, "WHOLE", 2**30)
    np.testing.assert_array_equal(tiled, loaded.restore(rapid, 0.5))


def test_up_to_the_bound_nothing_is_tiled(small_tiles) -> None:
    loaded, rapid = drawn(KINDS["NAFNet"]), counts(shape=(128, 128))
    small_tiles.setattr(tiles, "_tiles", None)
    assert loaded.restore(rapid, 0.5).shape == rapid.shape
