"""LIF, adaptive LIF and the leaky readout on numbers worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spyolo.neurons import ALIFState, ALIFUnit, LIFState, LIFUnit, alif_step, leaky_readout_step, lif_step

F64 = torch.float64


def one(value: float) -> Tensor:
    return torch.tensor([value], dtype=F64)


def test_lif_trajectory():
    # alpha = 1/2, threshold = 1; a spike takes the threshold off one step later:
    #   x = 0.75   v = 0.75                       no
    #   x = 1      v = .375 + 1            = 1.375   spike
    #   x = 1      v = .6875 + 1 - 1       = .6875   no
    #   x = .65625 v = .34375 + .65625     = 1       at the threshold is not over it: no
    #   x = 2      v = .5 + 2              = 2.5     spike
    #   x = 0      v = 1.25 - 1            = .25     no: what was above the threshold is kept (soft reset)
    state, seen = LIFState(one(0), one(0)), []
    for x in [0.75, 1, 1, 0.65625, 2, 0]:
        state = lif_step(one(x), state, alpha=0.5)
        seen.append((state.v.item(), state.z.item()))
    assert seen == [(0.75, 0), (1.375, 1), (0.6875, 0), (1, 0), (2.5, 1), (0.25, 0)]


def test_alif_trajectory():
    # alpha = rho = 1/2, beta = 2, threshold = 1, x = 1.5:
    #   a = 0      v = 1.5                  theta = 1      spike
    #   a = 1      v = .75 + 1.5 - 1 = 1.25 theta = 3      no
    #   a = .5     v = .625 + 1.5 = 2.125   theta = 2      spike
    #   a = 1.25   v = 1.0625 + .5 = 1.5625 theta = 3.5    no
    state, seen = ALIFState(one(0), one(0), one(0)), []
    for _ in range(4):
        state = alif_step(one(1.5), state, alpha=0.5, rho=0.5, beta=2.0)
        seen.append(tuple(v.item() for v in state))
    assert seen == [(1.5, 1, 0), (1.25, 0, 1), (2.125, 1, 0.5), (1.5625, 0, 1.25)]


@pytest.mark.parametrize("detach", [False, True])
def test_reset_gradient_of_lif(detach: bool):
    # v2 = alpha v1 + x2 - z1 and v1 = x1:   dv2/dx1 = alpha - psi(v1 - 1), and alpha alone when the reset is detached.
    x1 = one(1.2).requires_grad_()
    flat = lambda v: torch.full_like(v, 0.25)  # noqa: E731
    state = lif_step(x1, LIFState(one(0), one(0)), alpha=0.5, surrogate=flat)
    state = lif_step(one(0), state, alpha=0.5, detach_reset=detach, surrogate=flat)
    assert torch.autograd.grad(state.v, x1)[0].item() == pytest.approx(0.5 if detach else 0.25)


def test_units_hold_the_steps_constants():
    z, state = ALIFUnit(alpha=0.5, rho=0.5, beta=2.0)(one(1.5), ALIFState(one(0.5), one(1), one(0)))
    #  a = 0 + 1 = 1, v = .25 + 1.5 - 1 = .75
    assert (state.v.item(), state.a.item(), z.item()) == (0.75, 1, 0)
    z, state = LIFUnit(alpha=0.75, normalise=True)(one(8.0), LIFState(one(0), one(0)))
    assert (state.v.item(), z.item()) == (2, 1)  # (1 - alpha) x


def test_leaky_readout_starts_at_its_first_input():
    # kappa = 1/4:  8;  8 + (0 - 8) / 4 = 6;  6 + (10 - 6) / 4 = 7
    o, seen = None, []
    for x in [8.0, 0.0, 10.0]:
        o = leaky_readout_step(one(x), o, 0.25)
        seen.append(o.item())
    assert seen == [8, 6, 7]
