"""One architecture of spandrel is had without the others, and spandrel stays what it is."""

from __future__ import annotations

import subprocess
import sys

CHECK = """
import sys
from rbs.restorers.nafnet import NAFNet
from rbs.restorers.swinir import SwinIR
ours = type(NAFNet().backbone), type(SwinIR().backbone)
heavy = {"torchvision", "torch._dynamo"} & set(sys.modules)
assert not heavy, heavy
import spandrel
assert not hasattr(spandrel, "__no_such_thing__")
assert "torchvision" not in sys.modules
assert len(list(spandrel.MAIN_REGISTRY.architectures())) > 30
assert "torchvision" in sys.modules
assert ours == (spandrel.architectures.NAFNet.NAFNet, spandrel.architectures.SwinIR.SwinIR)
from spandrel import ModelLoader
try:
    spandrel.no_such_thing
except AttributeError as error:
    assert "no_such_thing" in str(error)
else:
    raise AssertionError
assert type(NAFNet().backbone) is ours[0]
"""


def test_the_others_are_not_imported_before_they_are_asked_for() -> None:
    subprocess.run([sys.executable, "-c", CHECK], check=True)
