"""Rules of traces and learning signals: e-prop (Bellec et al., 2020) and OSTL (Bohnstingl et al., 2023).

Both factorise the gradient, dE/dw = sum_t L_t e_t: traces e go forward in time with the network (`own_traces`, `full_traces`), the
learning signal L is of the present step only. They differ in what a trace leaves out and in how the signal reaches a layer:

    e-prop   traces without the recurrent synapse and without the reset; signal through the readout's weights, or random ones
    ostl     traces with the recurrent synapse (`with_h`) or without it; signal by backpropagation within the step

A leaky readout filters the traces. That is exact in the last layer; below it, what the filter remembers of a step is led through the layer
above as that is now, not as it was then.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from spyolo.errors import InputError
from spyolo.learning.full_traces import FullTraces
from spyolo.learning.jacobian_traces import JacobianTraces
from spyolo.learning.layer import TracedLayer, add_readout_grad, output_error, units_of, with_one
from spyolo.learning.local import LocalLTC, LocalUnit, gate_weights, local_unit
from spyolo.learning.own_traces import LIFTraces, OwnTraces
from spyolo.learning.sequence_rule import Loss, Seen, SequenceRule, Update
from spyolo.learning.undefined import check_traceable
from spyolo.neurons.cells import ALIFUnit, Cell, LIFUnit, LTCUnit
from spyolo.neurons.readout import Readout
from spyolo.neurons.stack import Stack, StackState

FEEDBACK = ("symmetric", "random", "adaptive")


class TraceRule(SequenceRule):
    """What e-prop and OSTL share: the step through traced layers, the readout's own gradient, the learning signal of each layer."""

    network: Stack
    readout: Readout
    jacobian = False  # whether all layers' traces are of the whole cell

    def __init__(self, network: nn.Module, update: Update, loss: Loss, **options: Any) -> None:
        super().__init__(network, update, loss, **options)
        self.readout = check_traceable(self.name, network, jacobian=self.jacobian)
        top = len(self.network.cells) - 1
        membrane = self.readout.reads == "membrane"
        self.layers = [self._layer(cell, self.readout.decay, membrane and i == top) for i, cell in enumerate(self.network.cells)]

    @abstractmethod
    def _layer(self, cell: Cell, decay: float, membrane: bool) -> TracedLayer:
        """The traces of one layer, by this rule."""

    def _begin(self) -> None:
        for layer in self.layers:
            layer.reset()
        self._read: Tensor | None = None  # the readout's input, filtered as the readout filters

    @torch.no_grad()
    def _advance(self, x: Tensor, target: Any, weight: float, loss: Loss) -> Seen:
        states: list[Any] = []
        before = self.state.cells if self.state is not None else (None,) * len(self.layers)
        for layer, state in zip(self.layers, before):
            x, state = layer.step(x, state)
            states.append(state)
        read = states[-1][0] if self.readout.reads == "membrane" else x
        output, o = self.readout(read, None if self.state is None else self.state.readout)
        self.state = StackState(tuple(states), o)
        decay = self.readout.decay
        now = (1 - decay) * with_one(read, True)
        self._read = now if self._read is None else decay * self._read + now
        if target is None:
            return Seen(output, None)
        error, value = output_error(output, target, weight, loss)
        self._learn(error)
        return Seen(output, value)

    def _learn(self, error: Tensor) -> None:
        """error dE/do [B, outputs] -> every weight's share."""
        assert self._read is not None
        add_readout_grad(self.readout.linear, error, self._read)
        for layer, signal in zip(self.layers, self.signals(error)):
            layer.learn(signal)

    def signals(self, error: Tensor) -> list[Tensor]:
        """Learning signal of each layer, bottom to top, from the readout's error: backpropagation within the step."""
        signal = error @ self.readout.linear.weight
        found = [signal]
        for layer in self.layers[:0:-1]:
            signal = layer.below(signal)
            found.append(signal)
        return found[::-1]

    def trace_bytes(self, batch: int) -> int:
        """Memory of all traces for a batch of that size."""
        itemsize = self.readout.linear.weight.element_size()
        return sum(layer.nbytes(batch, itemsize) for layer in self.layers)


class EProp(TraceRule):
    """e-prop: equal to BPTT with the transmitted spike and the reset detached, for one layer with symmetric feedback.

    Args:
        feedback: `symmetric`, the readout's weights (layers below the last: backpropagation within the step); `random`, fixed normal
            weights from the outputs to each layer; `adaptive`, random ones that then move as the readout's do.
        seed: of the random weights.
        feedback_decay: weight decay of feedback and readout weights at each update (`adaptive`).
    """

    name = "eprop"

    def __init__(
        self, *args: Any, feedback: str = "symmetric", seed: int = 0, feedback_decay: float = 1e-4, **options: Any
    ) -> None:
        if feedback not in FEEDBACK:
            raise ValueError(f"feedback must be one of {', '.join(FEEDBACK)}; got {feedback!r}")
        super().__init__(*args, **options)
        if feedback == "adaptive" and len(self.layers) > 1:
            raise InputError("eprop: adaptive feedback follows the readout's weights, which only the last layer has; "
                             "with several layers use symmetric or random")  # fmt: skip
        self.kind, self.feedback_decay = feedback, feedback_decay
        weight = self.readout.linear.weight
        self.feedback: list[Tensor] = []
        if feedback != "symmetric":
            generator = torch.Generator().manual_seed(seed)
            sizes = [units_of(cell) for cell in self.network.cells]
            self.feedback = [(torch.randn(len(weight), n, generator=generator) / math.sqrt(n)).to(weight) for n in sizes]

    def _layer(self, cell: Cell, decay: float, membrane: bool) -> TracedLayer:
        kind = LIFTraces if type(cell.unit) in (LIFUnit, ALIFUnit) else OwnTraces
        return kind(cell, local_unit(cell.unit, detach_reset=True), decay, membrane)

    def signals(self, error: Tensor) -> list[Tensor]:
        if self.kind == "symmetric":
            return super().signals(error)
        return [error @ b for b in self.feedback]

    def _end_part(self) -> None:
        weight = self.readout.linear.weight
        before = weight.detach().clone() if self.kind == "adaptive" else None
        super()._end_part()
        if before is not None and not self.hold:
            with torch.no_grad():
                self.feedback[0] += weight - before
                if not torch.equal(weight, before):
                    for w in (self.feedback[0], weight):
                        w *= 1 - self.feedback_decay

    def state_dict(self) -> dict[str, Any]:
        return {"feedback": self.feedback}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for own, stored in zip(self.feedback, state["feedback"]):
            own.copy_(stored)


class OSTL(TraceRule):
    """Online spatio-temporal learning: equal to BPTT for one layer (recurrent ones: with H); deep, it drops mixed space-time terms.

    Args:
        with_h: recurrent layers keep the recurrent synapse in their traces (O(n^3) memory); False drops it (O(n^2)).
        memory_bound: bytes of traces that a batch may need.
        jacobian: take every layer through torch.func's Jacobian of the whole cell, even where a structured form is known.

    Raises:
        ValueError: `jacobian` without H.
        InputError: traces beyond the bound (for one sample when made, for a batch in `check_batch` and at its first step).
    """

    name = "ostl"

    def __init__(self, *args: Any, with_h: bool = True, memory_bound: int = 2 * 2**30, jacobian: bool = False, **options: Any) -> None:
        self.with_h, self.memory_bound, self.jacobian = with_h, memory_bound, jacobian
        if jacobian and not with_h:
            raise ValueError("jacobian takes the recurrent synapse along: with_h=False does not go with it")
        super().__init__(*args, **options)
        self.check_batch(1)

    def _layer(self, cell: Cell, decay: float, membrane: bool) -> TracedLayer:
        local = local_unit(cell.unit)
        dense_gates = isinstance(cell.unit, LTCUnit) and any(
            g is not None and gate_weights(g) is not None for g in (cell.unit.gate, cell.unit.adaptation_gate)
        )
        coupled = cell.recurrent is not None or dense_gates
        if self.jacobian or (coupled and self.with_h and isinstance(local, LocalLTC)):
            return JacobianTraces(cell, LocalUnit(cell.unit), decay, membrane)
        return (FullTraces if coupled and self.with_h else OwnTraces)(cell, local, decay, membrane)

    def check_batch(self, batch: int) -> None:
        need = self.trace_bytes(batch)
        if need > self.memory_bound:
            drop = ", drop H from the traces (with_h=False, --with-h false)" if self.with_h and not self.jacobian else ""
            raise InputError(
                f"ostl: the traces of a batch of {batch} need {need / 2**30:.2f} GiB, the bound is {self.memory_bound / 2**30:.2f} GiB; "
                f"take a smaller batch or fewer units{drop}, or (in Python) raise memory_bound"
            )

    def _advance(self, x: Tensor, target: Any, weight: float, loss: Loss) -> Seen:
        if self._read is None:  # the first step, also where a state was carried in
            self.check_batch(len(x))
        return super()._advance(x, target, weight, loss)
