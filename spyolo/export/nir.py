"""Sequence models of LIF neurons as NIR (Pedersen et al., Nat. Commun. 15:8122, 2024), and back.

NIR describes neurons in continuous time; our steps are its Euler steps of length `dt`. What maps onto what, exactly:

    LTC with a static gate (update fraction f, hard reset)      LIF, tau = dt / f, r = 1, v_reset = 0
    LIF with decay a (soft reset, one step later)               LI, tau = dt / (1 - a), then Threshold, and a Scale that feeds each spike
                                                                back to take the threshold off (NIR's own LIF resets hard)
    synapses and readouts                                       Affine or Linear; a leak is an LI
    recurrent synapse                                           Linear, from the spikes back to the neuron, one step later

Everything else is refused by name rather than approximated.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from spyolo.detection import SpikingYOLO
from spyolo.errors import InputError
from spyolo.files import replace_file, shortened
from spyolo.neurons import Cell, LIFUnit, LTCUnit, StaticGate
from spyolo.neurons.readout import Readout
from spyolo.neurons.stack import Stack

if TYPE_CHECKING:
    import nir

DT = 1e-3  # seconds a step, where nothing else is said
ROUNDING = 1e-6  # by which tau may be shorter than a step: files keep fp32 too


def import_nir() -> Any:
    """The package `nir`.

    Raises:
        InputError: it is not installed.
    """
    try:
        import nir
    except ImportError as error:
        raise InputError('NIR needs the package nir: pip install "spyolo[export]"') from error
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


def read_nir(path: str | Path) -> Stack:
    """A `Stack` from a file that `write_nir` wrote.

    Raises:
        InputError: no such file, not NIR, or a graph of another make or with numbers that Euler steps of its `dt` do not follow.
    """
    library = import_nir()
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        graph = library.read(path)
    except Exception as error:  # h5py and nir raise nearly anything
        raise InputError(f"{path}: not a NIR file ({type(error).__name__}: {error})") from error
    return from_nir(graph)


def from_nir(graph: nir.NIRGraph) -> Stack:
    """The `Stack` that `to_nir` made the graph of.

    Raises:
        InputError: a graph that is no chain of the patterns `to_nir` writes, or a node whose tau is no number of at least one step.
    """
    return _Reading(graph, import_nir()).stack()


class _Reading:
    """A graph being walked from its input to its output."""

    def __init__(self, graph: Any, library: Any) -> None:
        self.graph, self.nir = graph, library
        self.dt = step_of(graph.metadata.get("dt", DT))
        self.after: dict[str, list[str]] = {}
        for source, target in graph.edges:
            self.after.setdefault(source, []).append(target)

    def stack(self) -> Stack:
        cells: list[Cell] = []
        here, neuron = self.start(), ""
        while True:
            synapse = self.next(here, self.nir.Affine, self.nir.Linear, besides=neuron)
            neuron = self.next(synapse, self.nir.LIF, self.nir.LI, self.nir.Output)
            kind, leads_on = self.graph.nodes[neuron], self.after.get(neuron, [])
            if isinstance(kind, self.nir.Output) or (isinstance(kind, self.nir.LI) and self.is_last(leads_on)):
                return Stack(cells, self.readout(synapse, neuron))
            spikes = neuron if isinstance(kind, self.nir.LIF) else self.next(neuron, self.nir.Threshold)
            back = self.fed_back(spikes, neuron, self.nir.Linear)
            recurrent = as_linear(back[0]) if back else None
            cells.append(Cell(as_linear(self.graph.nodes[synapse]), self.unit(neuron, spikes), recurrent))
            here = spikes

    def start(self) -> str:
        found = [name for name, node in self.graph.nodes.items() if isinstance(node, self.nir.Input)]
        if len(found) != 1:
            raise InputError(f"a NIR graph with {len(found)} inputs; only chains of LIF layers are read")
        return found[0]

    def is_last(self, names: list[str]) -> bool:
        return len(names) == 1 and isinstance(self.graph.nodes[names[0]], self.nir.Output)

    def next(self, name: str, *kinds: type, besides: str = "") -> str:
        """The one node of these kinds behind `name`, besides those that feed back to the neuron `besides`."""
        found = [n for n in self.after.get(name, []) if isinstance(self.graph.nodes[n], kinds) and besides not in self.after.get(n, [])]
        if len(found) != 1:
            wanted = " or ".join(k.__name__ for k in kinds)
            raise InputError(f"NIR node {name}: expected one {wanted} behind it, found {len(found)}; only chains of LIF layers are read")
        return found[0]

    def fed_back(self, spikes: str, neuron: str, kind: type) -> list[Any]:
        """Nodes of a kind through which the spikes come back to their neuron."""
        names = [n for n in self.after.get(spikes, []) if isinstance(self.graph.nodes[n], kind) and neuron in self.after.get(n, [])]
        return [self.graph.nodes[n] for n in names]

    def unit(self, neuron: str, spikes: str) -> nn.Module:
        node = self.graph.nodes[neuron]
        fraction = self.fraction(neuron, node.tau)
        plain = self.same(neuron, "v_leak", node.v_leak) == 0
        if isinstance(node, self.nir.LIF):
            if not plain or np.any(node.v_reset) or not np.allclose(node.r, 1):
                raise InputError(f"NIR node {neuron}: only r = 1, v_leak = 0, v_reset = 0 is read")
            gate = StaticGate(len(fraction)).to(torch.float64)
            gate.logit.data = logit_of(fraction)
            return LTCUnit(gate, threshold=self.same(neuron, "v_threshold", node.v_threshold))
        alpha = 1 - self.same(neuron, "tau", fraction)
        threshold = self.same(spikes, "threshold", self.graph.nodes[spikes].threshold)
        scale = self.same(neuron, "r", node.r) * (1 - alpha)
        resets = self.fed_back(spikes, neuron, self.nir.Scale)
        if not plain or len(resets) != 1 or not np.allclose(resets[0].scale * scale, -threshold):
            raise InputError(f"NIR node {neuron}: its reset does not take one threshold off; only that is read")
        unit = LIFUnit(alpha, threshold)
        unit.scale = scale
        return unit

    def fraction(self, name: str, tau: np.ndarray) -> np.ndarray:
        """The part dt / tau of the way to its input that a membrane goes in a step, of each neuron: in (0, 1], or a step overshoots."""
        with np.errstate(divide="ignore", invalid="ignore"):
            fraction = self.dt / np.asarray(tau, np.float64)
        if not ((fraction > 0) & (fraction <= 1 + ROUNDING)).all():  # not a number compares as False
            raise InputError(f"NIR node {name}: its tau must be finite and at least one step of {self.dt:g} s; export it with a smaller dt")
        return np.minimum(fraction, 1.0)

    def same(self, name: str, field: str, values: np.ndarray) -> float:
        """The one number that all neurons of a node share."""
        values = np.asarray(values, np.float64)
        if not np.allclose(values, values.flat[0], rtol=1e-12):
            raise InputError(f"NIR node {name}: its neurons differ in {field}; one number a layer is read")
        return float(values.flat[0])

    def readout(self, synapse: str, name: str) -> Readout:
        last = self.graph.nodes[name]
        linear = as_linear(self.graph.nodes[synapse])
        kind = "learned" if isinstance(last, self.nir.LI) else "linear"
        readout = Readout(linear.in_features, linear.out_features, kind, bias=linear.bias is not None)
        readout.linear = linear
        if kind == "learned":
            readout.logit.data = logit_of(1 - self.fraction(name, last.tau)).to(linear.weight.dtype)
        return readout


def step_of(value: Any) -> float:
    """Seconds a step. Raises InputError for a `dt` in a graph's metadata that is none."""
    try:
        dt = float(np.asarray(value))
    except (TypeError, ValueError):
        dt = math.nan
    if not 0 < dt < math.inf:
        raise InputError(f"NIR metadata: dt must be a number of seconds over 0, got {shortened(value)}")
    return dt


def logit_of(share: np.ndarray) -> Tensor:
    """Infinite at 0 and at 1, where a sigmoid gives these again."""
    with np.errstate(divide="ignore"):
        return torch.from_numpy(np.log(share) - np.log1p(-share))


def as_linear(node: Any) -> nn.Linear:
    weight = torch.from_numpy(np.array(node.weight))
    bias = torch.from_numpy(np.array(node.bias)) if hasattr(node, "bias") else None
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).to(weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    return linear


