"""The liquid-time-constant (LTC) spiking neuron of Yin, Corradi & Bohte (Nat. Mach. Intell. 5:518-527, 2023), as a pure step."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from spyolo.neurons.surrogate import Surrogate, multi_gaussian, spike


class LTCState(NamedTuple):
    """State of a layer of LTC neurons; every field has the shape of the layer's output."""

    u: Tensor  # membrane potential after reset
    s: Tensor  # spikes of the step before, 0 or 1
    b: Tensor | None = None  # adaptation; None where the threshold is constant


def ltc_step(
    current: Tensor,
    tau: Tensor,
    state: LTCState,
    *,
    threshold: float | Tensor = 1.0,
    tau_adp: Tensor | None = None,
    beta: float = 1.8,
    detach_reset: bool = False,
    surrogate: Surrogate = multi_gaussian,
) -> LTCState:
    """One step of LTC neurons.

        b_t = tau_adp b_{t-1} + (1 - tau_adp) s_{t-1}       threshold_t = threshold + beta b_t      (only with `tau_adp`)
        u'  = u_{t-1} + tau (x_t - u_{t-1})                 s_t = H(u' - threshold_t)               u_t = (1 - s_t) u'

    Args:
        current: synaptic input x_t, [B, ...].
        tau: update fraction sigma(G(x_t, u_{t-1})) in (0, 1), broadcastable to `current`. It is dt/tau, not a decay.
        state: state after the step before.
        threshold: firing threshold, same unit as `current`; with adaptation its resting value.
        tau_adp: decay of the adaptation, sigma(G_a(x_t, b_{t-1})) in (0, 1); None for a constant threshold.
        beta: how far a unit of adaptation raises the threshold.
        detach_reset: True keeps the gradient out of the reset (the reference lets it through).

    Returns:
        State after this step; its `s` is the layer's output, in the dtype of `current` (0 and 1 are exact in any).

    Raises:
        ValueError: `tau_adp` without an adaptation in the state.
    """
    b = state.b
    if tau_adp is not None:
        if b is None:
            raise ValueError("tau_adp needs a state with adaptation b; start from a state that has one")
        b = tau_adp * b + (1 - tau_adp) * state.s
        threshold = threshold + beta * b
    u = state.u + tau * (current - state.u)
    s = spike(u - threshold, surrogate)
    u = u * (1 - (s.detach() if detach_reset else s))
    return LTCState(u, s.to(current.dtype), b)
