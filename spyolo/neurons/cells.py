"""Units (neurons on a given current) and the cell: a synapse, an optional recurrent synapse, and a unit.

The same `Cell` is dense, recurrent or convolutional: that is the synapse's business. `cell(x, state) -> (output, state)`; no state
means neurons at rest.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spyolo.neurons.fused import check_shapes, fused_ltc_step
from spyolo.neurons.fused_adaptive import fused_adaptive_step
from spyolo.neurons.gated import GRUUnit, LSTMUnit
from spyolo.neurons.gates import ConvGate, StaticGate, build_gate
from spyolo.neurons.lif import ALIFState, LIFState, alif_step, lif_step
from spyolo.neurons.ltc import LTCState, ltc_step
from spyolo.neurons.snu import SNUUnit
from spyolo.neurons.state import STARTS, start
from spyolo.neurons.surrogate import Surrogate, multi_gaussian


class LTCUnit(nn.Module):
    """LTC neurons: gate(s) and the step.

    Args:
        gate: (current, u) -> logit of tau.
        adaptation_gate: (current, b) -> logit of the adaptation's decay; None for a constant threshold.
        threshold: firing threshold (with adaptation: its resting value b_j0).
        beta: weight of the adaptation on the threshold.
        detach_reset: keep the gradient out of the reset.
        start: membrane before the first step, `zeros` or `uniform` (U(0, 1) from `seed`, the reference's).
        b_start: adaptation before the first step (the reference: b_j0 in its MNIST and DVS models, 0 in its CNNs).
        fused: take the whole step in one pass (`fused_ltc_step`, `fused_adaptive_step`); False follows `ltc_step` operation by operation.
    """

    def __init__(
        self,
        gate: nn.Module,
        *,
        adaptation_gate: nn.Module | None = None,
        threshold: float = 1.0,
        beta: float = 1.8,
        detach_reset: bool = False,
        start: str = "zeros",
        seed: int = 0,
        b_start: float = 0.0,
        surrogate: Surrogate = multi_gaussian,
        fused: bool = True,
    ) -> None:
        super().__init__()
        if start not in STARTS:
            raise ValueError(f"start must be one of {', '.join(STARTS)}; got {start!r}")
        self.gate = gate
        self.adaptation_gate = adaptation_gate
        self.threshold, self.beta, self.detach_reset = threshold, beta, detach_reset
        self.start, self.seed, self.b_start, self.surrogate = start, seed, b_start, surrogate
        self.fused = fused

    def initial_state(self, current: Tensor) -> LTCState:
        u = start(current.shape, current, self.start, self.seed)
        b = None if self.adaptation_gate is None else torch.full_like(u, self.b_start)
        return LTCState(u, torch.zeros_like(current), b)

    def forward(self, current: Tensor, state: LTCState | None) -> tuple[Tensor, LTCState]:
        """No state: neurons at rest. Where rest is zero, the fused step then spares all that has to do with the membrane before."""
        adaptive = self.adaptation_gate is not None
        fused = self.fused and not torch.compiler.is_compiling()  # an export shall see plain operations
        if state is None and not (fused and not adaptive and self.start == "zeros" and isinstance(self.gate, ConvGate | StaticGate)):
            state = self.initial_state(current)
        check_shapes(current, state)  # before the gates: they run kernels too
        logit = self.gate(current, None if state is None else state.u)
        if fused and adaptive:
            assert state is not None and self.adaptation_gate is not None
            state = fused_adaptive_step(
                current, logit, self.adaptation_gate(current, state.b), state, threshold=self.threshold, beta=self.beta,
                detach_reset=self.detach_reset, surrogate=self.surrogate,
            )  # fmt: skip
            return state.s, state
        if fused:
            state = fused_ltc_step(
                current, logit, state, threshold=self.threshold, detach_reset=self.detach_reset, surrogate=self.surrogate
            )
            return state.s, state
        assert state is not None
        tau = torch.sigmoid(logit)
        tau_adp = None if self.adaptation_gate is None else torch.sigmoid(self.adaptation_gate(current, state.b))
        state = ltc_step(
            current,
            tau,
            state,
            threshold=self.threshold,
            tau_adp=tau_adp,
            beta=self.beta,
            detach_reset=self.detach_reset,
            surrogate=self.surrogate,
        )
        return state.s, state


class LIFUnit(nn.Module):
    """LIF neurons with a fixed decay `alpha`; `normalise` scales the current by 1 - alpha to keep the membrane on its scale."""

    def __init__(
        self, alpha: float = 0.5, threshold: float = 1.0, *, normalise: bool = False, detach_reset: bool = False,
        surrogate: Surrogate = multi_gaussian,
    ) -> None:  # fmt: skip
        super().__init__()
        self.alpha, self.threshold, self.detach_reset, self.surrogate = alpha, threshold, detach_reset, surrogate
        self.scale = 1 - alpha if normalise else 1.0

    def initial_state(self, current: Tensor) -> LIFState:
        v = start(current.shape, current)
        return LIFState(v, torch.zeros_like(v))

    def forward(self, current: Tensor, state: LIFState) -> tuple[Tensor, LIFState]:
        state = lif_step(
            self.scale * current, state, alpha=self.alpha, threshold=self.threshold,
            detach_reset=self.detach_reset, surrogate=self.surrogate,
        )  # fmt: skip
        return state.z.to(current.dtype), state


class ALIFUnit(nn.Module):
    """Adaptive LIF neurons with fixed decays `alpha` (membrane) and `rho` (adaptation)."""

    def __init__(
        self, alpha: float = 0.9, rho: float = 0.99, beta: float = 1.6, threshold: float = 1.0, *, detach_reset: bool = False,
        surrogate: Surrogate = multi_gaussian,
    ) -> None:  # fmt: skip
        super().__init__()
        self.alpha, self.rho, self.beta, self.threshold = alpha, rho, beta, threshold
        self.detach_reset, self.surrogate = detach_reset, surrogate

    def initial_state(self, current: Tensor) -> ALIFState:
        v = start(current.shape, current)
        return ALIFState(v, torch.zeros_like(v), torch.zeros_like(v))

    def forward(self, current: Tensor, state: ALIFState) -> tuple[Tensor, ALIFState]:
        state = alif_step(
            current, state, alpha=self.alpha, rho=self.rho, beta=self.beta, threshold=self.threshold,
            detach_reset=self.detach_reset, surrogate=self.surrogate,
        )  # fmt: skip
        return state.z.to(current.dtype), state


class LeakyReLUUnit(nn.Module):
    """The ANN twin's unit: no state, LeakyReLU of slope 0.1."""

    def initial_state(self, current: Tensor) -> None:
        return None

    def forward(self, current: Tensor, state: None) -> tuple[Tensor, None]:
        return nn.functional.leaky_relu(current, 0.1), None


class Cell(nn.Module):
    """synapse(x) + recurrent(s_{t-1}) -> unit. x [B, ...] and the state before -> output [B, ...] and the state after."""

    def __init__(self, synapse: nn.Module, unit: nn.Module, recurrent: nn.Module | None = None) -> None:
        super().__init__()
        self.synapse: Any = synapse
        self.recurrent: Any = recurrent
        self.unit: Any = unit  # a module with `initial_state(current)`

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return self.from_current(self.synapse(x), state)

    def from_current(self, current: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """As a call, for a synaptic current that is known already."""
        if state is None and (self.recurrent is not None or not isinstance(self.unit, LTCUnit)):
            state = self.unit.initial_state(current)
        return self.unit(self.drive(current, state), state)

    def drive(self, current: Tensor, state: Any) -> Tensor:
        """The synapse's current and the recurrent one together: what the unit gets."""
        recurrent = None
        if self.recurrent is not None:
            sent = state[getattr(self.unit, "transmits", 1)]  # the output of the step before: field 1, unless the unit says otherwise
            sent = sent.to(current.dtype)
            plain = type(self.recurrent) is nn.Linear and self.recurrent.bias is None and not hasattr(self.unit, "combine")
            if plain and current.dim() == 2 and not watched(self.recurrent):  # the energy meter counts calls
                return torch.addmm(current, sent, self.recurrent.weight.T)  # the sum without a pass of its own
            recurrent = self.recurrent(sent)
        if hasattr(self.unit, "combine"):  # GRU: its two currents are not simply added
            return self.unit.combine(current, recurrent)
        return current if recurrent is None else current + recurrent


def watched(module: nn.Module) -> bool:
    """Whether hooks wait for calls of this module, which must then not be gone around."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)


DENSE = ("ltc", "lif", "alif", "snu", "ssnu", "lstm", "gru")


def dense_cell(kind: str, inputs: int, features: int, *, recurrent: bool = True, **unit: Any) -> Cell:
    """A dense or recurrent layer of any neuron by name (`DENSE`), [B, inputs] -> [B, features]; `unit` takes the unit's options.

    The recurrent synapse has no bias (the input synapse has it), but for the GRU, whose reset gate acts on it.
    """
    if kind == "ltc":
        return dense_ltc(inputs, features, recurrent=recurrent, **unit)
    if kind not in DENSE:
        raise ValueError(f"cell must be one of {', '.join(DENSE)}; got {kind!r}")
    units: dict[str, Any] = {
        "lif": LIFUnit, "alif": ALIFUnit, "lstm": LSTMUnit, "gru": GRUUnit,
        "snu": partial(SNUUnit, features), "ssnu": partial(SNUUnit, features, soft=True),
    }  # fmt: skip
    lines = {"lstm": 4, "gru": 3}.get(kind, 1)
    back = nn.Linear(features, lines * features, bias=kind == "gru") if recurrent else None
    return Cell(nn.Linear(inputs, lines * features), units[kind](**unit), back)


def dense_ltc(
    inputs: int, features: int, *, recurrent: bool = True, gate: str = "concat_linear", adaptive: bool = True, **unit: Any
) -> Cell:
    """A dense or recurrent layer of LTC neurons, [B, inputs] -> [B, features]; `unit` takes LTCUnit's options."""
    return Cell(
        nn.Linear(inputs, features),
        LTCUnit(build_gate(gate, features), adaptation_gate=build_gate(gate, features) if adaptive else None, **unit),
        nn.Linear(features, features, bias=False) if recurrent else None,  # the input synapse has the bias
    )
