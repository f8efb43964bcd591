"""Gates: what sets an LTC neuron's time constant. Each maps (current x_t, membrane u_{t-1}) to a logit; the sigmoid of it is tau."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from spyolo.neurons.fused import fused_sum
from spyolo.neurons.norm import build_norm


class ConcatLinearGate(nn.Module):
    """Linear(2n -> n) on [x ; u], with bias: the reference's dense and recurrent gate. Shapes [..., n]."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * features, features)

    def forward(self, current: Tensor, u: Tensor) -> Tensor:
        return self.linear(torch.cat([current, u.to(current.dtype)], dim=-1))


class SumLinearGate(nn.Module):
    """Linear(n -> n) on x + u; the reference's notebook starts its bias at -5 (slow neurons). Shapes [..., n]."""

    def __init__(self, features: int, bias: float = -5.0) -> None:
        super().__init__()
        self.linear = nn.Linear(features, features)
        nn.init.constant_(self.linear.bias, bias)

    def forward(self, current: Tensor, u: Tensor) -> Tensor:
        return self.linear((current + u).to(current.dtype))


class ConvGate(nn.Module):
    """Convolution with bias, then a batch norm, on x + u. Shapes [B, C, H, W].

    `groups=1, kernel_size=3` is the reference's; `groups=channels` costs 1/C of it; `kernel_size=1` a ninth.
    """

    def __init__(self, channels: int, kernel_size: int = 3, groups: int = 1, norm: str = "batch") -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=groups)
        self.norm = build_norm(norm, channels)

    def forward(self, current: Tensor, u: Tensor | None) -> Tensor:
        """`u` None: membranes at zero."""
        return self.norm(self.conv(current if u is None else fused_sum(current, u)))


class StaticGate(nn.Module):
    """One learned logit a channel, whatever the input: parametric LIF (Fang et al., 2021). Shapes [B, C, ...]."""

    def __init__(self, channels: int, tau: float = 0.5) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.full((channels,), math.log(tau / (1 - tau))))

    def forward(self, current: Tensor, u: Tensor | None) -> Tensor:
        return self.logit.view(-1, *(1,) * (current.dim() - 2))


CONV_GATES = ("conv", "depthwise", "pointwise", "static")  # of maps [B, C, H, W]
DENSE_GATES = ("concat_linear", "sum_linear", "static")  # of vectors [B, n]
GATES = tuple(dict.fromkeys(CONV_GATES + DENSE_GATES))


def build_gate(kind: str, channels: int, norm: str = "batch") -> nn.Module:
    """A gate by name; `norm` matters to the convolutional ones only.

    Raises:
        ValueError: a name that is neither in `CONV_GATES` nor in `DENSE_GATES`.
    """
    if kind == "conv":
        return ConvGate(channels, norm=norm)
    if kind == "depthwise":
        return ConvGate(channels, groups=channels, norm=norm)
    if kind == "pointwise":
        return ConvGate(channels, kernel_size=1, norm=norm)
    if kind == "static":
        return StaticGate(channels)
    if kind == "concat_linear":
        return ConcatLinearGate(channels)
    if kind == "sum_linear":
        return SumLinearGate(channels)
    raise ValueError(f"gate must be one of {', '.join(GATES)}; got {kind!r}")
