"""Leaky integrate-and-fire neurons, plain and adaptive, as in Bellec et al. (Nat. Commun. 11:3625, 2020), and the leaky readout."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from spyolo.neurons.surrogate import Surrogate, multi_gaussian, spike


class LIFState(NamedTuple):
    """State of a layer of LIF neurons; fields have the shape of the layer's output."""

    v: Tensor  # membrane potential (before this step's spike is taken off it)
    z: Tensor  # spikes of the step before, 0 or 1


class ALIFState(NamedTuple):
    """State of a layer of adaptive LIF neurons; fields have the shape of the layer's output."""

    v: Tensor
    z: Tensor
    a: Tensor  # adaptation


def lif_step(
    current: Tensor,
    state: LIFState,
    *,
    alpha: float | Tensor = 0.9,
    threshold: float | Tensor = 1.0,
    detach_reset: bool = False,
    surrogate: Surrogate = multi_gaussian,
) -> LIFState:
    """v_t = alpha v_{t-1} + x_t - threshold z_{t-1};  z_t = H(v_t - threshold).

    Args:
        current: synaptic input x_t, [B, ...].
        alpha: decay exp(-dt / tau_m) in (0, 1).
        threshold: firing threshold; a spike takes it off the membrane one step later (soft reset).
        detach_reset: True keeps the gradient out of the reset.
    """
    reset = state.z.detach() if detach_reset else state.z
    v = alpha * state.v + current - threshold * reset
    return LIFState(v, spike(v - threshold, surrogate))


def alif_step(
    current: Tensor,
    state: ALIFState,
    *,
    alpha: float | Tensor = 0.9,
    rho: float | Tensor = 0.99,
    beta: float | Tensor = 1.6,
    threshold: float | Tensor = 1.0,
    detach_reset: bool = False,
    surrogate: Surrogate = multi_gaussian,
) -> ALIFState:
    """LIF with a threshold that rises with each spike: a_t = rho a_{t-1} + z_{t-1};  z_t = H(v_t - threshold - beta a_t).

    Args:
        current: synaptic input x_t, [B, ...].
        rho: decay exp(-dt / tau_a) of the adaptation in (0, 1).
        beta: how far a unit of adaptation raises the threshold.
    """
    a = rho * state.a + state.z
    reset = state.z.detach() if detach_reset else state.z
    v = alpha * state.v + current - threshold * reset
    return ALIFState(v, spike(v - threshold - beta * a, surrogate), a)


def leaky_readout_step(x: Tensor, o: Tensor | None, kappa: float | Tensor) -> Tensor:
    """Non-spiking leaky integrator o_t = o_{t-1} + kappa (x_t - o_{t-1}), which starts at its first input.

    Args:
        x: [B, ...].
        o: output of the step before, or None at the first step: starting at 0 instead would shrink the first outputs by kappa.
        kappa: update fraction in (0, 1), broadcastable to `x`.
    """
    return x if o is None else o + kappa * (x - o)
