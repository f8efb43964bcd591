"""Spiking neural units (Wozniak et al., Nat. Mach. Intell. 2020; Bohnstingl et al., IEEE TNNLS 2023): SNU and its soft sister, sSNU."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from spyolo.neurons.state import start
from spyolo.neurons.surrogate import Surrogate, spike, tanh_prime


class SNUState(NamedTuple):
    """State of a layer of SNUs; fields have the shape of the layer's output."""

    s: Tensor  # membrane potential
    y: Tensor  # output of the step before


ACTIVATIONS = {"identity": lambda x: x, "relu": torch.relu, "leaky_relu": lambda x: nn.functional.leaky_relu(x, 0.1)}


def snu_step(
    current: Tensor, state: SNUState, bias: Tensor | float, *, decay: float, activation: str = "identity", soft: bool = False,
    detach_reset: bool = False, surrogate: Surrogate = tanh_prime,
) -> SNUState:  # fmt: skip
    """s_t = g(x_t + decay s_{t-1} (1 - y_{t-1}));  y_t = h(s_t + bias), h a step (SNU) or the logistic sigmoid (`soft`: sSNU).

    Args:
        current: synaptic input x_t, [B, n].
        bias: minus the firing threshold, broadcastable to `current`.
        decay: share of the membrane that stays from one step to the next where there was no output.
        activation: g, one of `ACTIVATIONS`.
        detach_reset: True keeps the gradient out of the factor 1 - y_{t-1}.
    """
    y = state.y.detach() if detach_reset else state.y
    s = ACTIVATIONS[activation](current + decay * state.s * (1 - y))
    v = s + bias
    return SNUState(s, torch.sigmoid(v) if soft else spike(v, surrogate))


class SNUUnit(nn.Module):
    """SNU neurons with a learned threshold each (bias = -threshold at the start); `soft` makes them sSNU, with graded output."""

    def __init__(
        self, features: int, *, decay: float = 0.8, threshold: float = 1.0, activation: str = "identity", soft: bool = False,
        detach_reset: bool = False, surrogate: Surrogate = tanh_prime,
    ) -> None:  # fmt: skip
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")
        self.bias = nn.Parameter(torch.full((features,), -float(threshold)))
        self.decay, self.activation, self.soft, self.detach_reset, self.surrogate = decay, activation, soft, detach_reset, surrogate

    def initial_state(self, current: Tensor) -> SNUState:
        s = start(current.shape, current)
        return SNUState(s, torch.zeros_like(s))

    def forward(self, current: Tensor, state: SNUState) -> tuple[Tensor, SNUState]:
        state = snu_step(
            current, state, self.bias, decay=self.decay, activation=self.activation, soft=self.soft,
            detach_reset=self.detach_reset, surrogate=self.surrogate,
        )  # fmt: skip
        return state.y.to(current.dtype), state
