"""From a NIR graph or file back to a `Stack`: what `nir_writing` writes is read, anything else refused by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from spyolo.errors import InputError
from spyolo.export.nir_writing import DT, import_nir
from spyolo.files import shortened
from spyolo.neurons import Cell, LIFUnit, LTCUnit, StaticGate
from spyolo.neurons.readout import Readout
from spyolo.neurons.stack import Stack

if TYPE_CHECKING:
    import nir

ROUNDING = 1e-6  # by which tau may be shorter than a step: files keep fp32 too


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
        seen: set[str] = set()
        here, neuron = self.start(), ""
        while True:
            synapse = self.next(here, self.nir.Affine, self.nir.Linear, besides=neuron)
            neuron = self.next(synapse, self.nir.LIF, self.nir.LI, self.nir.Output)
            if neuron in seen:
                raise InputError(f"NIR node {neuron}: it is behind itself, through other layers; only chains of LIF layers are read")
            seen.add(neuron)
            kind, leads_on = self.graph.nodes[neuron], self.after.get(neuron, [])
            if isinstance(kind, self.nir.Output) or (isinstance(kind, self.nir.LI) and self.is_last(leads_on)):
                return Stack(cells, self.readout(synapse, neuron))
            spikes = neuron if isinstance(kind, self.nir.LIF) else self.next(neuron, self.nir.Threshold)
            back = self.fed_back(spikes, neuron, self.nir.Linear)
            recurrent = as_linear(back[0], f"the one from {spikes} back to {neuron}") if back else None
            cells.append(Cell(as_linear(self.graph.nodes[synapse], synapse), self.unit(neuron, spikes), recurrent))
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
        linear = as_linear(self.graph.nodes[synapse], synapse)
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


def numbers(values: Any, name: str) -> Tensor:
    """Of a node's weights or biases, in their own precision."""
    found = np.array(values)
    if found.dtype.kind in "iub":
        found = found.astype(np.float64)
    if found.dtype.kind != "f" or not np.isfinite(found).all():
        raise InputError(f"NIR node {name}: its weights must be finite numbers")
    return torch.from_numpy(found)


def as_linear(node: Any, name: str) -> nn.Linear:
    """Raises InputError for weights that are no finite numbers; whole ones become float64."""
    weight = numbers(node.weight, name)
    bias = numbers(node.bias, name) if hasattr(node, "bias") else None
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).to(weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    return linear
