"""An export of a restorer of scans, made by hand in a moment: a convolution of both views."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ABOUT = {"version": "0.2.0", "restores": "scans", "name": "Small f1", "weights_sha256": "ab" * 32}


def small_model(*others: Any, shapes: tuple[Any, ...] = (("b", 2, "h", "w"), ("b",))) -> onnx.ModelProto:
    """The model, without a description; `others` are further nodes in front of its own."""
    weight = numpy_helper.from_array(np.full((2, 2, 3, 3), 0.06, np.float32), "weight")
    nodes = [helper.make_node("Conv", ["rapid", "weight"], ["restored"], pads=[1, 1, 1, 1])]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(("rapid", "exposure"), shapes, strict=True)
    ]
    answer = helper.make_tensor_value_info("restored", TensorProto.FLOAT, ("b", 2, "h", "w"))
    graph = helper.make_graph([*others, *nodes], "restorer", inputs, [answer], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def endless_loop() -> Any:
    """A node that repeats nothing for ever."""
    true = helper.make_tensor("true", TensorProto.BOOL, (), [True])
    out = helper.make_tensor_value_info("go", TensorProto.BOOL, ())
    body = helper.make_graph(
        [helper.make_node("Constant", [], ["go"], value=true)],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, ()),
            helper.make_tensor_value_info("was", TensorProto.BOOL, ()),
        ],
        [out],
    )
    return helper.make_node("Loop", ["", ""], [], body=body)
