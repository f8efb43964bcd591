"""The fused adaptive LTC step against `ltc_step`, its oracle: the same numbers and gradients, compiled or not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spyolo.neurons import LTCState, dense_ltc, ltc_step, multi_gaussian
from spyolo.neurons.fused_adaptive import fused_adaptive_step
from spyolo.neurons.surrogate import triangle


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def both(shape: tuple[int, ...], seen: str = "sub", **options) -> list[tuple[Tensor, ...]]:
    """(s, u, b, gradients of all six inputs) by either step; the loss sees the fields named in `seen`."""
    answers = []
    for fused in (True, False):
        spikes = (noise(*shape, seed=4) > 0).double()
        tensors = [3 * noise(*shape), *(noise(*shape, seed=k) for k in (1, 2, 3)), spikes, noise(*shape, seed=5)]
        inputs = [t.requires_grad_() for t in tensors]
        x, g, a, u, s, b = inputs
        if fused:
            after = fused_adaptive_step(x, g, a, LTCState(u, s, b), **options)
        else:
            after = ltc_step(x, torch.sigmoid(g), LTCState(u, s, b), tau_adp=torch.sigmoid(a), **options)
        total = sum((field * noise(*shape, seed=10 + k)).sum() for k, (name, field) in enumerate(zip("usb", after)) if name in seen)
        answers.append((*after, *torch.autograd.grad(total, inputs, materialize_grads=True, allow_unused=True)))
    return answers


def assert_equal(answers: list[tuple[Tensor, ...]]) -> None:
    assert 0.05 < answers[1][1].mean() < 0.95
    for name, a, b in zip(["u", "s", "b", "dx", "dg", "da", "du", "ds", "db"], *answers, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13, msg=name)


@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("surrogate", [multi_gaussian, triangle])
@pytest.mark.parametrize("seen", ["sub", "s", "ub"])
def test_same_numbers_and_gradients(detach_reset: bool, surrogate, seen: str):
    assert_equal(both((7, 5), seen, threshold=0.3, beta=1.8, detach_reset=detach_reset, surrogate=surrogate))


def test_compiled_too(compiling):
    assert_equal(both((7, 5), threshold=0.3, beta=1.8, detach_reset=False, surrogate=multi_gaussian))


def test_a_cell_over_steps():
    """Gradients through time, through the recurrent synapse and the gates."""
    x, found = noise(6, 3, 4), []
    for fused in (True, False):
        torch.manual_seed(0)
        cell, state, total = dense_ltc(4, 5, threshold=0.2, b_start=0.1, fused=fused).double(), None, 0.0
        for x_t in 4 * x:
            s, state = cell(x_t, state)
            total = total + (s * noise(3, 5, seed=9)).sum() + state.u.sum()
        total.backward()
        found.append([w.grad for w in cell.parameters()])
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_a_state_without_adaptation_is_an_error():
    with pytest.raises(ValueError, match="adaptation b"):
        x = torch.zeros(2, 3)
        fused_adaptive_step(x, x, x, LTCState(x, x), threshold=1.0, beta=1.8, detach_reset=False, surrogate=multi_gaussian)


def test_without_gradients_it_is_the_same():
    x = noise(7, 5)
    state = LTCState(noise(7, 5, seed=1), (noise(7, 5, seed=2) > 0).double(), noise(7, 5, seed=3))
    options = {"threshold": 0.3, "beta": 1.8, "detach_reset": False, "surrogate": multi_gaussian}
    with torch.no_grad():
        found = fused_adaptive_step(x, 2 * x, -x, state, **options)
    for a, b in zip(found, fused_adaptive_step(x, 2 * x, -x, state, **options), strict=True):
        assert torch.equal(a, b)
