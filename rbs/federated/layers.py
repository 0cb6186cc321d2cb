"""The weights of a network that sites share, as arrays without names, and those that stay."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from rbs.errors import RbsError
from rbs.federated.networks import Network

Arrays = list[npt.NDArray[np.float32]]

LOCAL = ("norms", "first")
"""Kinds of layers that can stay at a site."""

_NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._NormBase,
)


def shared_names(network: Network, local: Sequence[str] = ()) -> list[str]:
    """Names of the weights that travel.

    Args:
        network: Their network.
        local: Kinds of layers that stay: "norms", all normalisations; "first", the convolution of
            the input, which takes the noise level beside the counts.

    Raises:
        RbsError: The input meets no convolution of its own.
    """
    modules = dict(network.named_modules())
    kept = [name for name, module in modules.items() if "norms" in local and isinstance(module, _NORMS)]
    if "first" in local:
        channels = getattr(network, "input_channels", None)
        takes = [
            name
            for name, module in modules.items()
            if isinstance(module, nn.Conv2d) and module.in_channels == channels and name != "head"
        ]
        if not takes:
            fault = f"the input of {type(network).__name__} meets no convolution of its own"
            raise RbsError(fault, remedy="leave `first` out of --local")
        kept += takes[:1]
    prefixes = tuple(f"{name}." for name in kept)
    return [
        name
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point() and not name.startswith(prefixes or ("\0",))
    ]


def require_kinds(local: Sequence[str]) -> None:
    """Refuse kinds of local layers that there are not.

    Raises:
        RbsError: One is not known.
    """
    if unknown := set(local) - set(LOCAL):
        fault = f"layers of the kind {', '.join(sorted(unknown))} are not known"
        raise RbsError(fault, remedy=f"name {' or '.join(LOCAL)} as --local")


def arrays_of(network: Network, names: Sequence[str]) -> Arrays:
    """Copies of the weights of those names, in their order."""
    state = network.state_dict()
    return [state[name].detach().cpu().numpy().astype(np.float32) for name in names]


def put(network: Network, names: Sequence[str], arrays: Sequence[npt.NDArray[np.float32]]) -> None:
    """Set the weights of those names; all others stay."""
    state = network.state_dict()
    tensors = {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}
    network.load_state_dict(state | tensors)


def layout(network: Network, names: Sequence[str]) -> str:
    """Digest of names and shapes, by which two sites know that they mean the same network."""
    state = network.state_dict()
    text = "\n".join(f"{name} {tuple(state[name].shape)}" for name in names)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def norm(arrays: Sequence[npt.NDArray[np.float32]]) -> float:
    """Euclidean norm of all numbers together."""
    return float(np.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays)))


def clipped(update: Arrays, longest: float | None) -> Arrays:
    """The update, shortened to the norm `longest` where it is longer; None leaves it as it is."""
    length = norm(update)
    if longest is None or length <= longest:
        return update
    return [array * np.float32(longest / length) for array in update]
