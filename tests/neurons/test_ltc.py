"""The LTC step on numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from spyolo.neurons import LTCState, ltc_step

F64 = torch.float64


def at_rest(b: float | None = None) -> LTCState:
    zero = torch.zeros(1, dtype=F64)
    return LTCState(zero, zero, None if b is None else zero + b)


def one(value: float) -> Tensor:
    return torch.tensor([value], dtype=F64)


def trajectory(currents: list[float], tau: float, state: LTCState, **options) -> list[tuple[float, ...]]:
    """(u, s) or (u, s, b) after each step."""
    seen = []
    for x in currents:
        state = ltc_step(one(x), one(tau), state, **options)
        seen.append(tuple(v.item() for v in state if v is not None))
    return seen


def test_constant_threshold_as_in_the_yolo_cells():
    # theta = 1, tau = 1/4 is the share of the way from u to x:
    #   x = 2       u' = 0    + (2 - 0) / 4        = 0.5      no spike
    #   x = 2       u' = 0.5  + (2 - 0.5) / 4      = 0.875    no spike
    #   x = 1.375   u' = 0.875 + (1.375-0.875) / 4 = 1        at the threshold is not over it: no spike
    #   x = 1.5     u' = 1    + (1.5 - 1) / 4      = 1.125    spike, u = 0
    #   x = -1      u' = 0    + (-1 - 0) / 4       = -0.25    no spike: the spike before left nothing behind
    assert trajectory([2, 2, 1.375, 1.5, -1], 0.25, at_rest()) == [(0.5, 0), (0.875, 0), (1, 0), (0, 1), (-0.25, 0)]


def test_adaptive_threshold_in_the_paper_setting():
    # b_j0 = 0.1, beta = 1.8, b starts at b_j0; tau = 1/2, tau_adp = 3/4, x = 1 throughout:
    #   b = .75 * .1        + .25 * 0 = .075         theta = .1 + 1.8 b = .235           u' = .5   spike, u = 0
    #   b = .75 * .075      + .25 * 1 = .30625       theta = .65125                      u' = .5   no
    #   b = .75 * .30625    + .25 * 0 = .2296875     theta = .5134375                    u' = .75  spike, u = 0
    #   b = .75 * .2296875  + .25 * 1 = .422265625   theta = .860078125                  u' = .5   no
    #   b = .75 * .42226..  + .25 * 0 = .31669921875 theta = .67005859375                u' = .75  spike, u = 0
    seen = trajectory([1] * 5, 0.5, at_rest(b=0.1), threshold=0.1, beta=1.8, tau_adp=one(0.75))
    assert [s for _, s, _ in seen] == [1, 0, 1, 0, 1]
    assert [u for u, _, _ in seen] == pytest.approx([0, 0.5, 0, 0.5, 0], abs=1e-12)
    assert [b for _, _, b in seen] == pytest.approx([0.075, 0.30625, 0.2296875, 0.422265625, 0.31669921875], abs=1e-12)


def test_adaptation_hears_of_a_spike_one_step_later():
    # The first current of 3 fires (u' = 1.5); b moves only in the step after, although nothing comes in then.
    (_, s1, b1), (_, s2, b2) = trajectory([3, 0], 0.5, at_rest(b=0.0), threshold=1.0, tau_adp=one(0.5))
    assert (s1, b1) == (1, 0)
    assert (s2, b2) == (0, 0.5)


def test_adaptation_can_hold_a_neuron_back():
    # Same drive, x = 1.5 and tau = 1 (u' = 1.5): without adaptation every step fires; with b -> 0.5 the threshold is 1.9.
    assert [s for _, s in trajectory([1.5] * 4, 1.0, at_rest())] == [1, 1, 1, 1]
    seen = trajectory([1.5] * 4, 1.0, at_rest(b=0.0), tau_adp=one(0.5))
    # b: 0, .5, .25, .625 -> theta: 1, 1.9, 1.45, 2.125; after the silent second step u' = x = 1.5 again
    assert [s for _, s, _ in seen] == [1, 0, 1, 0]


def test_state_without_adaptation_is_refused_where_tau_adp_needs_one():
    with pytest.raises(ValueError, match="needs a state with adaptation"):
        ltc_step(one(1), one(0.5), at_rest(), tau_adp=one(0.5))


def test_state_keeps_adaptation_untouched_without_tau_adp():
    state = ltc_step(one(1), one(0.5), at_rest(b=0.3))
    assert state.b is not None and state.b.item() == 0.3


def psi(v: float) -> float:
    """The multi-Gaussian surrogate, written out again."""

    def normal(mean: float, std: float) -> float:
        return math.exp(-((v - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))

    return 0.5 * (1.15 * normal(0, 0.3) - 0.15 * normal(0.3, 1.8) - 0.15 * normal(-0.3, 1.8))


@pytest.mark.parametrize("x", [1.5, 1.9, 2.1, 3.0])
@pytest.mark.parametrize("detach", [False, True])
def test_gradient_through_the_reset(x: float, detach: bool):
    # u = (1 - s) u' with u' = x / 2 and s = H(u' - 1):   du/dx = [(1 - s) - u' psi(u' - 1)] / 2, and detached (1 - s) / 2
    current = one(x).requires_grad_()
    state = ltc_step(current, one(0.5), at_rest(), detach_reset=detach)
    u, s = x / 2, float(x / 2 > 1)
    expected = ((1 - s) - (0 if detach else u * psi(u - 1))) / 2
    assert torch.autograd.grad(state.u, current)[0].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("detach", [False, True])
def test_gradient_over_two_steps(detach: bool):
    # x1 reaches the second spike through u1 only: ds2/dx1 = psi(u2' - 1) (1 - tau) du1/dx1
    x1, x2, tau = one(1.2).requires_grad_(), one(1.6), one(0.5)
    state = ltc_step(x1, tau, at_rest(), detach_reset=detach)
    state = ltc_step(x2, tau, state, detach_reset=detach)
    u1 = 0.6
    u2 = u1 + (1.6 - u1) / 2
    du1 = (1 - (0 if detach else u1 * psi(u1 - 1))) / 2
    assert torch.autograd.grad(state.s, x1)[0].item() == pytest.approx(psi(u2 - 1) * 0.5 * du1, abs=1e-12)


def test_gradient_reaches_tau():
    # ds/dtau = psi(u' - 1) (x - u): a neuron below threshold with x > u learns to be faster
    tau = one(0.5).requires_grad_()
    state = ltc_step(one(1.5), tau, LTCState(one(0.25), one(0)))
    assert torch.autograd.grad(state.s, tau)[0].item() == pytest.approx(psi(0.875 - 1) * 1.25, abs=1e-12)


def test_gradient_reaches_the_adaptation():
    # theta = 1 + 1.8 b, b = tau_adp b0 + (1 - tau_adp) s0:   ds/db0 = -psi(v) 1.8 tau_adp;   ds/dtau_adp = -psi(v) 1.8 (b0 - s0)
    b0, tau_adp = one(0.2).requires_grad_(), one(0.75).requires_grad_()
    state = ltc_step(one(2.4), one(0.5), LTCState(one(0), one(1), b0), tau_adp=tau_adp)
    v = 1.2 - (1 + 1.8 * (0.75 * 0.2 + 0.25))
    grads = torch.autograd.grad(state.s, (b0, tau_adp))
    assert grads[0].item() == pytest.approx(-psi(v) * 1.8 * 0.75, abs=1e-12)
    assert grads[1].item() == pytest.approx(-psi(v) * 1.8 * (0.2 - 1), abs=1e-12)


def test_a_bf16_current_leaves_the_membrane_in_fp32():
    rest = LTCState(torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2))
    half = torch.tensor([0.5, 0.5], dtype=torch.bfloat16)
    state = ltc_step(torch.tensor([1.0, 3.0], dtype=torch.bfloat16), half, rest, tau_adp=half)
    assert state.b is not None
    assert (state.u.dtype, state.s.dtype, state.b.dtype) == (torch.float32, torch.bfloat16, torch.float32)
    assert state.s.tolist() == [0, 1]
