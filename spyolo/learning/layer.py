"""A layer as the trace rules see it: its weights in groups, its step, and the way the learning signal takes through it downward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spyolo.learning.local import Derivatives, LocalLTC, LocalUnit, gate_weights
from spyolo.learning.sequence_rule import Loss
from spyolo.neurons.cells import Cell, LTCUnit
from spyolo.neurons.gates import SumLinearGate


class Group(NamedTuple):
    """Weights that share an input: line a of neuron j is (weight @ pre)[index of a, j]."""

    weight: Tensor  # [len(lines) n, K], or [n] for one weight a neuron (K = 1)
    bias: Tensor | None  # [len(lines) n]
    lines: tuple[int, ...]


def add_grad(weight: Tensor, grad: Tensor) -> None:
    """Accumulate, as backward does."""
    if not weight.requires_grad:
        return
    grad = grad.reshape(weight.shape)
    if weight.grad is None:
        weight.grad = grad.clone()
    else:
        weight.grad += grad


def with_one(pre: Tensor, bias: bool) -> Tensor:
    """[B, K] -> [B, K + 1] with a one for the bias."""
    return torch.cat([pre, pre.new_ones(len(pre), 1)], -1) if bias else pre


def output_error(output: Tensor, target: Any, weight: float, loss: Loss) -> tuple[Tensor, Tensor]:
    """A step's weighted loss as the readout sees it: dE/do [B, outputs], and the unweighted loss (a scalar without graph)."""
    with torch.enable_grad():
        leaf = output.detach().requires_grad_()
        value = loss(leaf, target)
        return torch.autograd.grad(weight * value, leaf)[0], value.detach()


def add_readout_grad(linear: nn.Linear, error: Tensor, read: Tensor) -> None:
    """The readout's own gradient, from its error [B, outputs] and what it read, with a one for the bias: [B, features + 1]."""
    grad = error.T @ read
    add_grad(linear.weight, grad[:, :-1])
    if linear.bias is not None:
        add_grad(linear.bias, grad[:, -1])


def units_of(cell: Cell) -> int:
    """Neurons of a dense cell."""
    gru = hasattr(cell.unit, "combine")  # its synapse has three of the four lines
    return int(cell.synapse.out_features // (3 if gru else getattr(cell.unit, "lines", 1)))


class TracedLayer(ABC):
    """Runs its cell without graph, keeps eligibility traces of its weights, and turns learning signals into gradients.

    Args:
        cell: synapse (and recurrent synapse) Linear.
        local: the unit's own derivatives.
        decay: of a leaky readout: traces are then filtered with it, F_t = decay F_{t-1} + (1 - decay) e_t; 0: none.
        membrane: signals are for the first field of the state, not for the output (a readout of the membrane).
    """

    def __init__(self, cell: Cell, local: LocalUnit, decay: float = 0.0, membrane: bool = False) -> None:
        self.cell, self.local, self.decay, self.membrane = cell, local, decay, membrane
        self.derivatives: Derivatives | None = None

    @property
    def synapse(self) -> nn.Linear:
        assert isinstance(self.cell.synapse, nn.Linear)
        return self.cell.synapse

    def reset(self) -> None:
        """Before the first step of a batch."""
        self.derivatives = None

    @abstractmethod
    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """x [B, m] and the state before (None: at rest) -> output [B, n] and the state after; traces move on."""

    @abstractmethod
    def learn(self, signal: Tensor) -> None:
        """Add to `.grad` what a learning signal dE/dy (or dE/du of the membrane) [B, n] makes of the traces."""

    @abstractmethod
    def nbytes(self, batch: int, itemsize: int) -> int:
        """Memory of the traces."""

    def below(self, signal: Tensor) -> Tensor:
        """dE/dy [B, n] -> dE/dx [B, m] within the step: through the unit and the input synapse, not through time."""
        d = self.derivatives
        assert d is not None
        reached = self.local.membrane(d) if self.membrane else d.shown
        on_lines = [signal * (reached * d.lines[:, a]).sum(0) for a in range(self.local.lines)]
        if isinstance(self.local, LocalLTC):
            on_lines = [self._through_gates(on_lines, self.local.unit)]
        n_synapse = self.synapse.out_features // signal.shape[-1]
        return torch.cat(on_lines[:n_synapse], -1) @ self.synapse.weight  # GRU: its fourth line is the recurrent synapse's

    @staticmethod
    def _through_gates(on_lines: list[Tensor], unit: LTCUnit) -> Tensor:
        """The own share of the gates is in line 0 already; the whole of it instead."""
        on_current = on_lines[0]
        for line, gate in zip(on_lines[1:], (unit.gate, unit.adaptation_gate)):
            weights = None if gate is None else gate_weights(gate)
            if weights is not None:
                on_current = on_current + line @ weights[0] - line * weights[0].diagonal()
        return on_current

    def groups(self) -> list[Group]:
        """Which weights drive which lines; `pres` are their inputs, in this order."""
        n_lines = range(self.local.lines)
        gru = hasattr(self.cell.unit, "combine")
        ltc = isinstance(self.local, LocalLTC)
        found = [Group(self.synapse.weight, self.synapse.bias, (0, 1, 2) if gru else (0,) if ltc else tuple(n_lines))]
        if self.cell.recurrent is not None:
            assert isinstance(self.cell.recurrent, nn.Linear)
            lines = (0, 1, 3) if gru else found[0].lines
            found.append(Group(self.cell.recurrent.weight, self.cell.recurrent.bias, lines))
        if ltc:
            for line, gate in enumerate((self.cell.unit.gate, self.cell.unit.adaptation_gate), start=1):
                if gate is not None:
                    dense = gate_weights(gate) is not None
                    found.append(Group(gate.linear.weight if dense else gate.logit, gate.linear.bias if dense else None, (line,)))
        return found

    def run(self, x: Tensor, state: Any) -> tuple[Tensor, Any, Derivatives, list[Tensor]]:
        """The cell's step: output, state after, derivatives, and each group's input [B, K]."""
        current = self.synapse(x)
        if state is None:
            state = self.cell.unit.initial_state(current)
        pres = [with_one(x, self.synapse.bias is not None)]
        if self.cell.recurrent is not None:
            pres.append(with_one(state[self.local.transmits], self.cell.recurrent.bias is not None))
        current = self.cell.drive(current, state)
        if isinstance(self.local, LocalLTC):
            lines = [current]
            for gate, field in ((self.cell.unit.gate, state.u), (self.cell.unit.adaptation_gate, state.b)):
                if gate is None:
                    continue
                lines.append(gate(current, field).expand_as(current))
                if gate_weights(gate) is None:
                    pres.append(current.new_ones(len(current), 1))
                else:
                    pres.append(with_one(current + field if isinstance(gate, SumLinearGate) else torch.cat([current, field], -1), True))
        else:
            lines = list(current.chunk(self.local.lines, -1))
        y, state, derivatives = self.local.step(lines, state)
        return y, state, derivatives, pres
