"""Methods that restore real scans: peers as phantoms tuned them, and any trained weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rbs.errors import CheckpointError
from rbs.evaluation.methods import RAPID, Method, load_stage1, restorer_method, stage1_methods
from rbs.evaluation.real.scans import short_names
from rbs.evaluation.scans.classical import available
from rbs.weights.shipped import SHIPPED


def peers() -> list[Method]:
    """The scaled rapid scan and the classical peers, none of them tuned on the scan.

    BM3D is among them where its package is installed.
    """
    return [RAPID, *(peer.method(peer.on_phantoms) for peer in available())]


def restorers(weights: Sequence[Path], *, adapt: bool = False, strengths: bool = False) -> list[Method]:
    """The restorers, named after their files.

    Args:
        weights: .safetensors, .ckpt or .onnx files.
        adapt: Whether each has a second row, fitted to every scan before it is restored.
        strengths: Whether each has a row more of each strength.

    Raises:
        CheckpointError: A file is missing, or does not hold a restorer of scans.
        RbsError: `adapt` with an ONNX file.
    """
    files = list(dict.fromkeys(weights))
    methods: list[Method] = []
    for file, short in zip(files, short_names(files), strict=True):
        loaded = load_stage1(file, "--adapt" if adapt else None)
        if loaded.shows != "scans":
            fault = f"it restores {loaded.shows}, not scans"
            raise CheckpointError(fault, file=file, remedy="name weights that were trained on scans")
        name, label = ("shipped", "Shipped restorer") if file == SHIPPED else (short, short)
        methods += stage1_methods(
            restorer_method(name, label, loaded), loaded, adapt=adapt, strengths=strengths
        )
    return methods
