"""The name of the shipped weights, wherever a weight file is named."""

from pathlib import Path

from rbs.weights.shipped import SHIPPED, weights_path


def test_the_shipped_weights_have_a_name():
    assert weights_path("shipped") == SHIPPED
    assert SHIPPED.is_file()
    assert weights_path("runs/shipped") == Path("runs/shipped")
    assert weights_path(Path("own.ckpt")) == Path("own.ckpt")
