"""Online training through time (Xiao et al., NeurIPS 2022): one trace a presynaptic neuron, for feed-forward LIF networks.

    a_t = alpha a_{t-1} + x_t                       trace of a synapse's input, of the input's own shape
    dE/dW_l = sum_t (L_t psi_t) a_t^T               L backpropagated through the layers above within the step

The reset has no gradient. Equal to BPTT for the last layer under a linear readout; in layers below, equal to autograd with the decay
path between layers cut. Memory O(n), not O(n^2): also for convolutions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spyolo.errors import InputError
from spyolo.learning.layer import add_grad, add_readout_grad, output_error, with_one
from spyolo.learning.sequence_rule import Loss, Seen, SequenceRule, Update
from spyolo.learning.undefined import check_stack
from spyolo.neurons.cells import Cell, LIFUnit
from spyolo.neurons.stack import Stack, StackState

AFFINE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool2d, nn.Flatten,
          nn.Identity)  # fmt: skip


def check_ottt(network: nn.Module) -> None:
    """Raise InputError, with the reason, where OTTT is not defined."""
    readout = check_stack("ottt", network)
    if readout.kind != "linear":
        raise InputError(f"ottt: keeps a trace a neuron; a {readout.kind} readout would need one a synapse: use a linear readout, or eprop")
    assert isinstance(network, Stack)
    for i, cell in enumerate(network.cells):
        assert isinstance(cell, Cell)
        if type(cell.unit) is not LIFUnit:
            raise InputError(
                f"ottt: layer {i} has {type(cell.unit).__name__} neurons; its trace is shared by all neurons of a layer, which needs "
                "the one constant decay of LIF: use LIF, or eprop, ostl, sltt"
            )
        if cell.recurrent is not None:
            raise InputError(f"ottt: layer {i} is recurrent; the rule is for feed-forward networks: use eprop, which traces recurrent LIF")
        for part in cell.synapse.modules():
            if not isinstance(part, (*AFFINE, nn.Sequential)):
                raise InputError(
                    f"ottt: layer {i} has {type(part).__name__} in its synapse; the trace of its input stands for that of its output only "
                    "where the synapse is affine (linear, convolution, average pooling, flatten)"
                )


class OTTT(SequenceRule):
    """See the module; parts='all' is the authors' OTTT_O (an update a step), parts=1 their OTTT_A (accumulated).

    Raises:
        InputError: recurrent layers, neurons other than LIF, synapses that are not affine, readouts with a leak.
    """

    name = "ottt"
    network: Stack

    def __init__(self, network: nn.Module, update: Update, loss: Loss, **options: Any) -> None:
        check_ottt(network)
        super().__init__(network, update, loss, **options)

    def _begin(self) -> None:
        self._traces: list[Tensor] = []  # a, as the layer's input
        self._ones: list[float] = [0.0] * len(self.network.cells)  # the trace of a constant input of one: the bias has one

    @torch.no_grad()
    def _advance(self, x: Tensor, target: Any, weight: float, loss: Loss) -> Seen:
        states, inputs = [], []
        before = self.state.cells if self.state is not None else (None,) * len(self.network.cells)
        for i, (cell, state) in enumerate(zip(self.network.cells, before)):
            inputs.append(x)
            if len(self._traces) == i:
                self._traces.append(torch.zeros_like(x))
            self._traces[i].mul_(cell.unit.alpha).add_(x)
            self._ones[i] = cell.unit.alpha * self._ones[i] + 1
            x, state = cell(x, state)
            states.append(state)
        readout = self.network.readout
        read = states[-1].v if readout.reads == "membrane" else x
        output, _ = readout(read, None)
        self.state = StackState(tuple(states), None)
        if target is None:
            return Seen(output, None)
        error, value = output_error(output, target, weight, loss)
        self._learn(error, read, inputs)
        return Seen(output, value)

    def _learn(self, error: Tensor, read: Tensor, inputs: list[Tensor]) -> None:
        readout = self.network.readout
        add_readout_grad(readout.linear, error, with_one(read.flatten(1), True))
        signal = (error @ readout.linear.weight).view_as(read)
        for i in reversed(range(len(inputs))):
            unit = self.network.cells[i].unit
            v = self.state.cells[i].v
            seen = signal if readout.reads == "membrane" and i == len(inputs) - 1 else signal * unit.surrogate(v - unit.threshold)
            signal = self._layer(i, unit.scale * seen, inputs[i], need_signal=i > 0)

    def _layer(self, i: int, delta: Tensor, x: Tensor, need_signal: bool) -> Tensor:
        """Gradients of layer i from delta = dE/d(current); the learning signal of the layer below."""
        synapse, trace, ones = self.network.cells[i].synapse, self._traces[i], self._ones[i]
        if isinstance(synapse, nn.Linear) and delta.dim() == 2:
            add_grad(synapse.weight, delta.T @ trace)
            if synapse.bias is not None:
                add_grad(synapse.bias, ones * delta.sum(0))
            return delta @ synapse.weight if need_signal else delta
        weights = [w for w in synapse.parameters() if w.requires_grad]  # none: a pooling or a flattening on its own
        with torch.enable_grad():
            # an affine map of the trace, its constant part counted as often as the trace has it
            traced = synapse(trace) + (ones - 1) * synapse(torch.zeros_like(trace))
            for w, g in zip(weights, torch.autograd.grad(traced, weights, delta) if weights else ()):
                add_grad(w, g)
            if not need_signal:
                return delta
            x = x.detach().requires_grad_()
            return torch.autograd.grad(synapse(x), x, delta)[0]
