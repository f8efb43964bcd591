"""Spikes that can be trained: a Heaviside step forward, a smooth stand-in for its derivative backward.

A surrogate is a plain function v -> psi(v), where v = u - threshold; `spike(v, psi)` applies it. Names in `SURROGATES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Surrogate = Callable[[Tensor], Tensor]


def multi_gaussian(v: Tensor, gamma: float = 0.5, sigma: float = 0.3, h: float = 0.15, scale: float = 6.0) -> Tensor:
    """Yin et al. (2021): a narrow bump with two shallow negative lobes. Peak 0.732, integral gamma (1 - h) = 0.425, zero at |v| = 0.763."""

    def normal(mean: float, std: float) -> Tensor:
        return torch.exp(-((v - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))

    lobes = normal(sigma, scale * sigma) + normal(-sigma, scale * sigma)
    return gamma * ((1 + h) * normal(0.0, sigma) - h * lobes)


def triangle(v: Tensor, gamma: float = 0.3, width: float = 1.0) -> Tensor:
    """gamma max(0, 1 - |v| / width): Bellec et al. (2020); there `width` is the threshold and gamma is divided by it."""
    return gamma * torch.clamp(1 - v.abs() / width, min=0)


def rectangle(v: Tensor, width: float = 1.0) -> Tensor:
    """1 / width inside |v| < width / 2, else 0: Wu et al. (2018)."""
    return (v.abs() < width / 2).to(v.dtype) / width


def arctan(v: Tensor, alpha: float = 2.0) -> Tensor:
    """Derivative of atan(pi alpha v / 2) / pi + 1/2: Fang et al. (2021)."""
    return alpha / 2 / (1 + (math.pi / 2 * alpha * v) ** 2)


def fast_sigmoid(v: Tensor, slope: float = 25.0) -> Tensor:
    """1 / (1 + slope |v|)^2: Zenke & Ganguli (2018)."""
    return 1 / (1 + slope * v.abs()) ** 2


def sigmoid_prime(v: Tensor, slope: float = 4.0) -> Tensor:
    """Derivative of the logistic sigmoid of slope v."""
    y = torch.sigmoid(slope * v)
    return slope * y * (1 - y)


def tanh_prime(v: Tensor) -> Tensor:
    """1 - tanh(v)^2: the spiking neural unit of Wozniak et al. (2020)."""
    return 1 - torch.tanh(v) ** 2


SURROGATES: dict[str, Surrogate] = {
    f.__name__: f for f in (multi_gaussian, triangle, rectangle, arctan, fast_sigmoid, sigmoid_prime, tanh_prime)
}


class Spike(torch.autograd.Function):
    """Heaviside step, strictly greater than zero; backward multiplies by the surrogate."""

    generate_vmap_rule = True

    @staticmethod
    def forward(v: Tensor, surrogate: Surrogate) -> Tensor:
        return (v > 0).to(v.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Surrogate], output: Tensor) -> None:
        v, ctx.surrogate = inputs
        ctx.save_for_backward(v)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (v,) = ctx.saved_tensors
        return grad * ctx.surrogate(v), None


def spike(v: Tensor, surrogate: Surrogate = multi_gaussian) -> Tensor:
    """Spikes (0 or 1, dtype of v) of neurons whose membrane stands v above the threshold."""
    return Spike.apply(v, surrogate)
