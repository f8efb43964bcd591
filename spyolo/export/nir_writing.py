"""From a `Stack` to a NIR graph and its file; spyolo/export/nir.py says what becomes of what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from spyolo.detection import SpikingYOLO
from spyolo.errors import InputError
from spyolo.files import replace_file
from spyolo.neurons import Cell, LIFUnit, LTCUnit, StaticGate
from spyolo.neurons.readout import Readout
from spyolo.neurons.stack import Stack

if TYPE_CHECKING:
    import nir

DT = 1e-3  # seconds a step, where nothing else is said


def import_nir() -> Any:
    """The package `nir`.

    Raises:
        InputError: it is not installed.
    """
    try:
        import nir
    except ImportError as error:
        raise InputError("NIR needs the package nir: pip install nir") from error
    return nir


def refuse_detector(detector: SpikingYOLO) -> None:
    """Raises InputError: which primitives NIR would need for a detector and does not have."""
    units = {type(getattr(m.unit, "gate", m.unit)).__name__ for m in detector.modules() if isinstance(m, Cell)}
    missing = []
    if "ConvGate" in units:
        missing.append("neurons whose time constant depends on input and membrane (the LTC's gate)")
    if "LeakyReLUUnit" in units:
        missing.append("LeakyReLU")
    missing += ["max pooling", "concatenation and splitting of channels", "upsampling"]
    raise InputError(f"a detector cannot be written as NIR: NIR has no {'; no '.join(missing)}. Export it as ONNX")


def to_nir(model: nn.Module, dt: float = DT) -> nir.NIRGraph:
    """A `Stack` of LIF cells as a NIR graph.

    Args:
        dt: seconds a step stands for; kept in the graph's metadata.

    Raises:
        InputError: a part that NIR cannot say exactly; names it and why.
    """
    if isinstance(model, SpikingYOLO):
        refuse_detector(model)
    if not isinstance(model, Stack):
        raise InputError(f"NIR export takes a Stack of cells, not {type(model).__name__}")
    sketch = _Sketch(import_nir(), dt)
    cells: list[Any] = list(model.cells)
    width = linear_of(cells[0].synapse, "cells.0.synapse").in_features
    sketch.add("input", sketch.nir.Input(input_type={"input": np.array([width])}), None)
    for i, cell in enumerate(cells):
        sketch.cell(f"cells_{i}", cell)
    outputs = sketch.readout(model.readout)
    sketch.add("output", sketch.nir.Output(output_type={"output": np.array([outputs])}), sketch.last)
    return sketch.nir.NIRGraph(sketch.nodes, sketch.edges, metadata={"dt": dt, "made_by": "spyolo"})


def linear_of(module: nn.Module | None, name: str) -> nn.Linear:
    if not isinstance(module, nn.Linear):
        raise InputError(f"{name} is a {type(module).__name__}; only linear synapses are written as NIR")
    return module


def numbers(value: Tensor | float, features: int) -> np.ndarray:
    """One float64 a neuron."""
    return np.broadcast_to(np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, np.float64), features).copy()


class _Sketch:
    """Nodes and edges in the making; `last` is where the next node is attached."""

    def __init__(self, library: Any, dt: float) -> None:
        self.nir, self.dt = library, dt
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.last = ""

    def add(self, name: str, node: Any, after: str | None) -> None:
        self.nodes[name] = node
        if after is not None:
            self.edges.append((after, name))
        self.last = name

    def synapse(self, name: str, linear: nn.Linear) -> None:
        weight = linear.weight.detach().cpu().numpy()
        if linear.bias is None:
            self.add(name, self.nir.Linear(weight), self.last)
        else:
            self.add(name, self.nir.Affine(weight, linear.bias.detach().cpu().numpy()), self.last)

    def cell(self, name: str, cell: Cell) -> None:
        linear = linear_of(cell.synapse, f"{name}.synapse")
        self.synapse(f"{name}_synapse", linear)
        neuron = f"{name}_neuron"
        if isinstance(cell.unit, LTCUnit):
            self.hard(neuron, cell.unit, linear.out_features)
        elif isinstance(cell.unit, LIFUnit):
            self.soft(neuron, cell.unit, linear.out_features)
        else:
            raise InputError(f"{name}: NIR has no counterpart of {type(cell.unit).__name__}; LIF cells can be written")
        if cell.recurrent is not None:
            back, spikes = linear_of(cell.recurrent, f"{name}.recurrent"), self.last
            if back.bias is not None:
                raise InputError(f"{name}.recurrent has a bias; only the input synapse's can be written as NIR")
            self.add(f"{name}_recurrent", self.nir.Linear(back.weight.detach().cpu().numpy()), spikes)
            self.edges.append((self.last, neuron))
            self.last = spikes

    def hard(self, neuron: str, unit: LTCUnit, features: int) -> None:
        if not isinstance(unit.gate, StaticGate):
            raise InputError(f"{neuron}: NIR has no neurons whose time constant depends on input and membrane ({type(unit.gate).__name__})")
        if unit.adaptation_gate is not None or unit.start != "zeros":
            raise InputError(f"{neuron}: NIR has no adaptive thresholds and no start from random membranes")
        fraction, ones = numbers(torch.sigmoid(unit.gate.logit.double()), features), np.ones(features)
        threshold = numbers(unit.threshold, features)
        self.add(neuron, self.nir.LIF(self.dt / fraction, ones, 0 * ones, threshold, 0 * ones), self.last)

    def soft(self, neuron: str, unit: LIFUnit, features: int) -> None:
        ones, fraction = np.ones(features), 1 - unit.alpha
        gain = unit.scale / fraction  # an Euler step of an LI takes in fraction * r * input
        self.add(neuron, self.nir.LI(self.dt / fraction * ones, gain * ones, 0 * ones), self.last)
        self.add(f"{neuron}_spike", self.nir.Threshold(numbers(unit.threshold, features)), neuron)
        spikes = self.last
        self.add(f"{neuron}_reset", self.nir.Scale(-unit.threshold / unit.scale * ones), spikes)
        self.edges.append((self.last, neuron))
        self.last = spikes

    def readout(self, readout: nn.Module) -> int:
        if not isinstance(readout, Readout) or readout.kind == "gated" or readout.reads != "output":
            told = f"{readout.kind}, reading the {readout.reads}" if isinstance(readout, Readout) else type(readout).__name__
            raise InputError(f"readout ({told}): NIR can say linear, leaky and learned readouts of the output")
        self.synapse("readout", readout.linear)
        features = readout.linear.out_features
        if readout.kind != "linear":
            decay = torch.sigmoid(readout.logit.double()) if readout.kind == "learned" else readout.decay
            ones = np.ones(features)
            self.add("readout_leak", self.nir.LI(self.dt / (1 - numbers(decay, features)), ones, 0 * ones), self.last)
        return features


def write_nir(model: nn.Module, path: str | Path, dt: float = DT) -> Path:
    """`to_nir` into a file (HDF5)."""
    graph = to_nir(model, dt)
    return replace_file(path, lambda temporary: import_nir().write(temporary, graph))
