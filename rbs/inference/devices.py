"""The device that networks compute on, as the option --device names it."""

from __future__ import annotations

from rbs.errors import RbsError

DEVICES = ("auto", "cpu", "cuda")


def torch_device(name: str) -> str:
    """PyTorch's name of a device; "auto" is CUDA where there is one.

    Args:
        name: One of `DEVICES`.

    Raises:
        RbsError: CUDA was asked for and there is none.
    """
    import torch

    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise RbsError("PyTorch finds no CUDA device", remedy="use --device cpu")
    return "cuda" if there and name != "cpu" else "cpu"


def onnx_providers(name: str) -> list[str]:
    """ONNX Runtime's providers for a device; "auto" is CUDA where it is installed.

    Args:
        name: One of `DEVICES`.

    Raises:
        RbsError: CUDA was asked for and there is none.
    """
    from onnxruntime import get_available_providers

    there = "CUDAExecutionProvider" in get_available_providers()
    if name == "cuda" and not there:
        remedy = "pip install onnxruntime-gpu, or use --device cpu"
        raise RbsError("ONNX Runtime has no CUDA provider here", remedy=remedy)
    cuda = ["CUDAExecutionProvider"] if there and name != "cpu" else []
    return [*cuda, "CPUExecutionProvider"]
