"""Neurons one by one: a unit's step and the derivatives that eligibility traces are made of.

Every neuron here is a small system of its own: q' = F(c, q, y), y' = O(q'), with c its currents (`lines`: one for a spiking neuron,
four for an LSTM unit), q what it carries on (`fields` of its state) and y its output of the step before. All derivatives are then
numbers a neuron, [B, n], whatever the network. Closed forms for LIF, adaptive LIF and SNU; any other unit goes through torch.func.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spyolo.neurons.cells import ALIFUnit, LIFUnit, LTCUnit
from spyolo.neurons.gates import ConcatLinearGate, StaticGate, SumLinearGate
from spyolo.neurons.lif import ALIFState, LIFState
from spyolo.neurons.ltc import LTCState, ltc_step
from spyolo.neurons.snu import SNUState, SNUUnit


class Derivatives(NamedTuple):
    """Own derivatives of each neuron at one step; D carried fields, A lines."""

    state: Tensor  # dq'/dq, [D, D, B, n]: row d by field e
    before: Tensor | None  # dq'/dy_{t-1} beside the recurrent synapse (the reset), [D, B, n]; None where y is one of q
    lines: Tensor  # dq'/dc, [D, A, B, n]
    shown: Tensor  # dy'/dq', [D, B, n]
    bias: Tensor | None = None  # dy'/d(own bias) beside q' (SNU), [B, n]


class LocalUnit:
    """Any unit whose neurons do not see each other, through torch.func: all fields of the state are carried, y is one of them.

    Args:
        unit: a unit with `initial_state` and `forward(current, state)`.
        detach_reset: keep the gradient out of the reset, whatever the unit does in training by autograd (e-prop).
    """

    depth = 0  # D, where a closed form says so

    def __init__(self, unit: Any, detach_reset: bool = False) -> None:
        self.unit = copy.copy(unit)  # shares the weights
        if detach_reset and hasattr(unit, "detach_reset"):
            self.unit.detach_reset = True
        self.lines = int(getattr(unit, "lines", 1))
        self.transmits = int(getattr(unit, "transmits", 1))
        self.bias: nn.Parameter | None = None
        self.depth = self.depth or sum(field is not None for field in unit.initial_state(torch.zeros(1, 12)))  # 12: lines of three or four

    def step(self, lines: list[Tensor], state: Any) -> tuple[Tensor, Any, Derivatives]:
        """lines [B, n] each and the state before -> output, state after, derivatives."""
        kept = [i for i, field in enumerate(state) if field is not None]

        def after(*args: Tensor) -> tuple[Tensor, ...]:
            fields: list[Tensor | None] = [None] * len(state)
            for i, field in zip(kept, args[self.lines :]):
                fields[i] = field
            new = self._forward(list(args[: self.lines]), type(state)(*fields))
            return tuple(new[i] for i in kept)

        values, pull = torch.func.vjp(after, *lines, *(state[i] for i in kept))[:2]
        rows = [pull(tuple(torch.ones_like(v) if d == e else torch.zeros_like(v) for e, v in enumerate(values))) for d in range(self.depth)]
        fields: list[Tensor | None] = [None] * len(state)
        for i, value in zip(kept, values):
            fields[i] = value
        shown = torch.zeros((self.depth, *values[0].shape), dtype=values[0].dtype, device=values[0].device)
        shown[kept.index(self.transmits)] = 1
        return fields[self.transmits], type(state)(*fields), Derivatives(  # type: ignore[return-value]
            torch.stack([torch.stack(row[self.lines :]) for row in rows]), None,
            torch.stack([torch.stack(row[: self.lines]) for row in rows]), shown,
        )  # fmt: skip

    def _forward(self, lines: list[Tensor], state: Any) -> Any:
        return self.unit(torch.cat(lines, -1), state)[1]

    @staticmethod
    def membrane(derivatives: Derivatives) -> Tensor:
        """d(first field)/dq', [D, B, n]: for readouts of the membrane."""
        one = torch.zeros_like(derivatives.shown)
        one[0] = 1
        return one


class LocalLTC(LocalUnit):
    """LTC neurons; lines are current, gate logit and (with adaptation) adaptation logit.

    A gate sees all neurons' currents and membranes. The own neuron's share of it is kept, the others' are what a local rule drops.
    """

    unit: LTCUnit

    def __init__(self, unit: LTCUnit, detach_reset: bool = False) -> None:
        super().__init__(unit, detach_reset)
        self.lines = 2 if unit.adaptation_gate is None else 3

    def _forward(self, lines: list[Tensor], state: LTCState) -> LTCState:
        unit, current = self.unit, lines[0]
        tau = torch.sigmoid(lines[1] + own_share(unit.gate, current, state.u))
        tau_adp = None
        if unit.adaptation_gate is not None:
            assert state.b is not None
            tau_adp = torch.sigmoid(lines[2] + own_share(unit.adaptation_gate, current, state.b))
        return ltc_step(
            current, tau, state, threshold=unit.threshold, tau_adp=tau_adp, beta=unit.beta, detach_reset=unit.detach_reset,
            surrogate=unit.surrogate,
        )  # fmt: skip


def gate_weights(gate: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Weights of a dense gate on the current and on the membrane, each [n, n]; None for a gate that sees neither."""
    if isinstance(gate, ConcatLinearGate):
        n = gate.linear.out_features
        return gate.linear.weight[:, :n], gate.linear.weight[:, n:]
    if isinstance(gate, SumLinearGate):
        return gate.linear.weight, gate.linear.weight
    assert isinstance(gate, StaticGate)
    return None


def own_share(gate: nn.Module, current: Tensor, u: Tensor) -> Tensor:
    """Zero in value; in derivative, the gate's dependence on its own neuron's current and membrane."""
    weights = gate_weights(gate)
    if weights is None:
        return torch.zeros_like(current)
    on_current, on_u = (w.detach().diagonal() for w in weights)
    return on_current * (current - current.detach()) + on_u * (u - u.detach())


class LocalLIF(LocalUnit):
    """LIF in closed form: q = v;  dv'/dv = alpha, dv'/dz = -threshold (0 where the reset is detached), dv'/dx = scale, dz/dv = psi."""

    unit: LIFUnit
    depth = 1

    def step(self, lines: list[Tensor], state: LIFState) -> tuple[Tensor, LIFState, Derivatives]:
        unit, (current,) = self.unit, lines
        z, after = unit(current, state)
        one = torch.ones_like(after.v)
        return z, after, Derivatives(
            (unit.alpha * one)[None, None], (0.0 if unit.detach_reset else -unit.threshold) * one[None], (unit.scale * one)[None, None],
            unit.surrogate(after.v - unit.threshold)[None],
        )  # fmt: skip


class LocalALIF(LocalUnit):
    """Adaptive LIF in closed form: q = (v, a);  da'/da = rho, da'/dz = 1, dz/dv = psi, dz/da = -beta psi."""

    unit: ALIFUnit
    depth = 2

    def step(self, lines: list[Tensor], state: ALIFState) -> tuple[Tensor, ALIFState, Derivatives]:
        unit, (current,) = self.unit, lines
        z, after = unit(current, state)
        one = torch.ones_like(after.v)
        zero = torch.zeros_like(one)
        psi = unit.surrogate(after.v - unit.threshold - unit.beta * after.a)
        return z, after, Derivatives(
            torch.stack([torch.stack([unit.alpha * one, zero]), torch.stack([zero, unit.rho * one])]),
            torch.stack([zero if unit.detach_reset else -unit.threshold * one, one]),
            torch.stack([one, zero])[:, None], torch.stack([psi, -unit.beta * psi]),
        )  # fmt: skip


SLOPES = {  # g'(x) from g(x); at 0 the slope is 1 for ReLU in the authors' code, but autograd's 0 and 0.1 here
    "identity": torch.ones_like,
    "relu": lambda s: (s > 0).to(s.dtype),
    "leaky_relu": lambda s: (s > 0).to(s.dtype) * 0.9 + 0.1,
}


class LocalSNU(LocalUnit):
    """SNU and sSNU in closed form: q = s;  ds'/ds = g' d (1 - y), ds'/dy = -g' d s, ds'/dx = g', dy/ds = dy/db = h'."""

    unit: SNUUnit
    depth = 1

    def __init__(self, unit: SNUUnit, detach_reset: bool = False) -> None:
        super().__init__(unit, detach_reset)
        self.bias = unit.bias

    def step(self, lines: list[Tensor], state: SNUState) -> tuple[Tensor, SNUState, Derivatives]:
        unit, (current,) = self.unit, lines
        y, after = unit(current, state)
        slope = SLOPES[unit.activation](after.s)
        steep = y * (1 - y) if unit.soft else unit.surrogate(after.s + unit.bias)
        return y, after, Derivatives(
            (slope * unit.decay * (1 - state.y))[None, None],
            (torch.zeros_like(slope) if unit.detach_reset else -slope * unit.decay * state.s)[None],
            slope[None, None], steep[None], steep,
        )  # fmt: skip


def local_unit(unit: nn.Module, detach_reset: bool = False) -> LocalUnit:
    """The closed form where there is one, else torch.func."""
    forms: dict[type, type[LocalUnit]] = {LIFUnit: LocalLIF, ALIFUnit: LocalALIF, SNUUnit: LocalSNU, LTCUnit: LocalLTC}
    return forms.get(type(unit), LocalUnit)(unit, detach_reset)
