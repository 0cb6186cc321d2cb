"""ONNX files as `rbs export` writes them, looked through before ONNX Runtime is given them.

ONNX Runtime runs whatever graph it is given, in part already when it loads it. A file from
elsewhere is therefore read as the protocol buffer that it is, without another package: it may hold
known operators alone, no graph within its graph (so no loops), no functions, and no reference
to other files; and its digest must be the one that was written.

The numbers of the fields are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from rbs.utils.description import KEY, Description
from rbs.utils.schema import checked, parsed, shown

# fmt: off
OPERATORS = {
    # Those of our restorers and segmenters,
    "Add", "Clip", "Concat", "Conv", "DepthToSpace", "Div", "Equal", "Expand", "Gather", "Gelu", "Identity",
    "LayerNormalization", "MatMul", "Max", "MaxPool", "Mod", "Mul", "Not", "Pad", "Pow", "Range",
    "Reciprocal", "ReduceL2", "ReduceMean", "Relu", "Reshape", "Resize", "ScatterND", "Shape", "Slice",
    "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
    # and what other networks of this kind are made of.
    "Abs", "And", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Constant", "ConstantOfShape",
    "ConvTranspose", "Elu", "Erf", "Exp", "Flatten", "Floor", "Gemm", "GlobalAveragePool", "Greater",
    "GroupNormalization", "HardSigmoid", "HardSwish", "InstanceNormalization", "LeakyRelu", "Less", "Log",
    "Min", "Neg", "Or", "PRelu", "ReduceMax", "ReduceSum", "Sigmoid", "SpaceToDepth", "Softplus", "Tanh",
    "Tile",
}
# fmt: on
"""Operators that are run. None of them repeats a graph, chooses one, draws, or reads a file."""

LARGEST = 2**16
"""Largest integer argument of an operator: of padding, which takes memory, or of an axis."""

_MODEL = {1, 2, 3, 4, 5, 6, 7, 8, 14}
_GRAPH, _OPSETS, _METADATA = 7, 8, 14
_NODES, _INITIALIZERS = 1, 5
_OPERATOR, _ATTRIBUTES, _DOMAIN, _OVERLOAD = 4, 5, 7, 8
_INTEGER, _SUBGRAPH, _INTEGERS, _SUBGRAPHS = 3, 6, 8, 11
_EXTERNAL, _LOCATION = 13, 14


@dataclass(frozen=True)
class ExportDescription(Description):
    """The description in an export.

    Attributes:
        restores: Kind of image that a restorer restores; empty for a segmenter.
        segments: Kind of image that a segmenter segments; empty for a restorer.
        regions: Names of the regions that a segmenter tells apart.
        scale: Rows and columns of a restoration per row and column of a scan.
        name: Class and file of the weights.
        weights_sha256: SHA-256 of that file.
    """

    restores: Literal["scans", "frames", ""] = ""
    segments: Literal["scans", "frames", ""] = ""
    regions: list[str] = field(default_factory=list)
    scale: Literal[1, 2] = 1
    name: str = ""
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name or not self.weights_sha256 or bool(self.restores) == bool(self.segments):
            raise ValueError("it holds no name, kind or hash of weights")
        if not self.name.isprintable() or len(self.name) > 300 or len(self.weights_sha256) != 64:
            raise ValueError(f"its name is {shown(self.name)}")

    @property
    def does(self) -> str:
        """Its network's purpose, in two words."""
        return f"restores {self.restores}" if self.restores else f"segments {self.segments}"


def described(model: bytes) -> ExportDescription:
    """Look through an export.

    Raises:
        KeyError: It holds no description.
        ValueError: It is no whole ONNX file, is damaged, or holds what no export of rbs does.
    """
    top = list(_fields(memoryview(model)))
    if strange := {number for number, _, _ in top} - _MODEL:
        raise ValueError(f"it holds more than one graph (field {min(strange)})")
    for number, value, _ in top:
        if number == _GRAPH:
            _look_through(_message(value))
        elif number == _OPSETS and any(n == 1 and bytes(v) for n, v, _ in _fields(_message(value))):
            raise ValueError("it needs operators of others")
    values = parsed(_metadata(top)[KEY])
    description = checked(ExportDescription, values)
    if description.digest is not None and values.pop("digest") != _digest(top, values):
        raise ValueError("it is damaged: it is not what was written")
    return description


def with_description(model: bytes, description: dict[str, Any]) -> bytes:
    """An ONNX file that carries a description, with a digest of both."""
    values = json.loads(json.dumps(description))
    values["digest"] = _digest(list(_fields(memoryview(model))), values)
    key, value = KEY.encode(), json.dumps(values, sort_keys=True).encode()
    entry = b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(len(value)) + value
    # A protocol buffer may go on after its end: what follows is merged.
    return model + bytes([_METADATA << 3 | 2]) + _varint(len(entry)) + entry


def _look_through(graph: memoryview) -> None:
    for number, value, _ in _fields(graph):
        if number == _NODES:
            _look_at_node(_message(value))
        elif number == _INITIALIZERS:
            for field, content, _ in _fields(_message(value)):
                if field == _EXTERNAL or (field == _LOCATION and content):
                    raise ValueError("it keeps weights in another file")


def _look_at_node(node: memoryview) -> None:
    for number, value, _ in _fields(node):
        if number == _OPERATOR and (name := bytes(_message(value)).decode()) not in OPERATORS:
            raise ValueError(f"it holds an operator that rbs does not run: {shown(name)}")
        if number in (_DOMAIN, _OVERLOAD) and bytes(_message(value)):
            raise ValueError("it needs operators of others")
        if number == _ATTRIBUTES:
            for field, content, _ in _fields(_message(value)):
                if field in (_SUBGRAPH, _SUBGRAPHS):
                    raise ValueError("it holds a graph within its graph")
                if field in (_INTEGER, _INTEGERS) and any(
                    LARGEST < number < 2**64 - LARGEST for number in _integers(content)
                ):
                    raise ValueError("an operator of it has an argument that is far too large")


_LENGTHS = {1: 8, 5: 4}
"""Bytes of values of fixed length, by their kind."""

_Field = tuple[int, "int | memoryview", memoryview]


def _digest(top: list[_Field], values: dict[str, Any]) -> str:
    """SHA-256 of all of a file but its metadata, and of its description."""
    known = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for number, _, whole in top:
        if number != _METADATA:
            known.update(whole)
    return known.hexdigest()


def _metadata(top: list[_Field]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for number, value, _ in top:
        if number == _METADATA:
            entry = {n: bytes(_message(v)) for n, v, _ in _fields(_message(value))}
            if (name := entry.get(1, b"").decode()) in found:
                raise ValueError("it describes itself twice")
            found[name] = entry.get(2, b"")
    return found


def _fields(data: memoryview) -> Iterator[_Field]:
    """Number, value and all bytes of each field of a message of a protocol buffer.

    Raises:
        ValueError: It is truncated or no protocol buffer.
    """
    place = 0
    while place < len(data):
        start = place
        key, place = _read_varint(data, place)
        value: int | memoryview
        if key & 7 == 0:
            value, place = _read_varint(data, place)
        else:
            length = _LENGTHS.get(key & 7)
            if key & 7 == 2:
                length, place = _read_varint(data, place)
            if length is None or place + length > len(data):
                raise ValueError("it is truncated or not an ONNX file")
            value, place = data[place : place + length], place + length
        yield key >> 3, value, data[start:place]


def _integers(value: int | memoryview) -> Iterator[int]:
    """Integers of a field, which may be packed; negative ones count down from 2**64."""
    if isinstance(value, int):
        yield value
        return
    place = 0
    while place < len(value):
        number, place = _read_varint(value, place)
        yield number


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("it is truncated or not an ONNX file")
    return value


def _read_varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place == len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("it is truncated or not an ONNX file")


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
