"""Writing an ONNX graph by running a network on wires instead of tensors.

The detector's own `forward` code is what draws the graph: where it cuts, joins and pools tensors, a `Wire` writes the node. Only what is
inside a cell is written out by hand (`cells.py`), so graph and network cannot differ in how the cells are connected. (torch.onnx.export
would do too; it takes a minute where this takes a moment, and every node of the result can be found again by the name of its cell.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from spyolo.errors import InputError

if TYPE_CHECKING:
    import onnx

OPSET = 18
IR_VERSION = 9  # readable by onnxruntime 1.16 and later


def import_onnx() -> Any:
    """The package `onnx`.

    Raises:
        InputError: it is not installed.
    """
    try:
        import onnx
        import onnx.helper
    except ImportError as error:
        raise InputError("export needs the package onnx: pip install onnx") from error
    return onnx


class Writer:
    """Collects nodes, constants, inputs and outputs; `model()` makes the ONNX model of them."""

    def __init__(self) -> None:
        self.onnx = import_onnx()
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.scope = ""
        self._count = 0

    def op(self, kind: str, *inputs: Wire | str, outputs: int = 1, **attributes: Any) -> Any:
        """Write a node; returns its output wire, or a list of them."""
        self._count += 1
        name = f"{self.scope}{kind}_{self._count}"
        names = [name if outputs == 1 else f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(kind, [str(i) for i in inputs], names, name=name, **attributes))
        wires = [Wire(self, n) for n in names]
        return wires[0] if outputs == 1 else wires

    def constant(self, value: np.ndarray | Sequence[float] | float | int, dtype: Any = np.float32, name: str | None = None) -> Wire:
        """A constant; written once where it has a name, so that unrolled steps share their weights."""
        if name is None:
            self._count += 1
            name = f"{self.scope}constant_{self._count}"
        if name not in self.constants:
            self.constants[name] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(np.asarray(value, dtype)), name)
        return Wire(self, name)

    def input(self, name: str, dtype: Any, shape: Sequence[int | str], default: np.ndarray | None = None) -> Wire:
        """An input of the graph; one with a default need not be given."""
        self.inputs.append(self._value_info(name, dtype, shape))
        return Wire(self, name) if default is None else self.constant(default, dtype, name)

    def output(self, name: str, wire: Wire, dtype: Any, shape: Sequence[int | str]) -> None:
        self.nodes.append(self.onnx.helper.make_node("Identity", [str(wire)], [name], name=f"output {name}"))
        self.outputs.append(self._value_info(name, dtype, shape))

    def label(self, name: str, wire: Wire) -> Wire:
        """The same value under a name by which it can be found again in the file."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [str(wire)], [name], name=name))
        return Wire(self, name)

    def _value_info(self, name: str, dtype: Any, shape: Sequence[int | str]) -> Any:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.onnx.helper.make_tensor_value_info(name, kind, list(shape))

    def model(self, name: str, metadata: dict[str, str]) -> onnx.ModelProto:
        helper = self.onnx.helper
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, list(self.constants.values()))
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, producer_name="spyolo", opset_imports=[opset], ir_version=IR_VERSION)
        helper.set_model_props(model, metadata)
        self.onnx.checker.check_model(model, full_check=True)
        return model


class Wire:
    """A value in the graph. Knows as much of a tensor as the networks use of one: arithmetic, `chunk`, `torch.cat`, `max_pool2d`."""

    requires_grad = False  # nothing is learned from a drawing

    def __init__(self, writer: Writer, name: str) -> None:
        self.writer, self.name = writer, name

    def __str__(self) -> str:
        return self.name

    def op(self, kind: str, *others: Wire | str, **attributes: Any) -> Any:
        return self.writer.op(kind, self, *others, **attributes)

    def __add__(self, other: Wire) -> Wire:
        return self.op("Add", other)

    def __sub__(self, other: Wire) -> Wire:
        return self.op("Sub", other)

    def __mul__(self, other: Wire) -> Wire:
        return self.op("Mul", other)

    def sigmoid(self) -> Wire:
        return self.op("Sigmoid")

    def chunk(self, chunks: int, dim: int) -> list[Wire]:
        return self.op("Split", axis=dim, num_outputs=chunks, outputs=chunks)

    def split(self, sizes: Sequence[int], axis: int) -> list[Wire]:
        return self.op("Split", self.writer.constant(sizes, np.int64), axis=axis, outputs=len(sizes))

    def reshape(self, *shape: int) -> Wire:
        """0 keeps a dimension as it is, -1 is worked out."""
        return self.op("Reshape", self.writer.constant(shape, np.int64))

    @classmethod
    def __torch_function__(cls, function: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: Any = None) -> Wire:
        if function is torch.cat:
            return join(*args, **(kwargs or {}))
        if function in (torch.max_pool2d, nn.functional.max_pool2d):
            return pool(*args, **(kwargs or {}))
        raise InputError(f"{function} has no ONNX counterpart here, so a network that uses it cannot be exported")


def join(wires: Sequence[Wire], dim: int = 0) -> Wire:
    """torch.cat"""
    return wires[0].op("Concat", *wires[1:], axis=dim)


def pool(wire: Wire, kernel_size: int, stride: Any = None, padding: int = 0, dilation: int = 1, **flags: bool) -> Wire:
    """max_pool2d, as the networks use it."""
    if (stride or kernel_size, padding, dilation) != (kernel_size, 0, 1) or any(flags.values()):
        raise InputError("a network can only be exported if the stride of its max pooling is the kernel")
    return wire.op("MaxPool", kernel_shape=[kernel_size] * 2, strides=[kernel_size] * 2)
