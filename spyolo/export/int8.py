"""Weights as 8-bit integers: symmetric, one scale an output channel; activations stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spyolo.export.graph import import_onnx

if TYPE_CHECKING:
    import onnx


def quantise(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[O, ...] fp32 -> int8 of the same shape and scales [O]: weight is about values * scale, off by at most half a scale."""
    largest = np.abs(weight).reshape(len(weight), -1).max(1)
    scale = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    values = np.rint(weight / scale.reshape(-1, *(1,) * (weight.ndim - 1)))
    return np.clip(values, -127, 127).astype(np.int8), scale


def to_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with every convolution's weight stored as int8 behind a DequantizeLinear node. Changes `model` and returns it."""
    onnx = import_onnx()
    graph = model.graph
    weights = {t.name: t for t in graph.initializer}
    wanted = dict.fromkeys(node.input[1] for node in graph.node if node.op_type == "Conv" and node.input[1] in weights)
    nodes = []
    for name in wanted:
        values, scale = quantise(onnx.numpy_helper.to_array(weights[name]))
        graph.initializer.remove(weights[name])
        graph.initializer.append(onnx.numpy_helper.from_array(values, f"{name}.int8"))
        graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{name}.scale"))
        inputs = [f"{name}.int8", f"{name}.scale"]
        nodes.append(onnx.helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}.dequantise", axis=0))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes + rest)
    onnx.checker.check_model(model, full_check=True)
    return model
