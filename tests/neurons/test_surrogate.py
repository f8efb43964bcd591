"""Surrogates: the multi-Gaussian's published shape, and every other against the smooth function it is the derivative of."""

from __future__ import annotations

import math

import pytest
import torch

from spyolo.neurons import SURROGATES, multi_gaussian, spike


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_multi_gaussian_by_hand():
    # At v = 0 the lobes stand at one sixth of their own width: N(0; .3, 1.8) = exp(-1/72) / (1.8 sqrt(2 pi)) = 0.218574.
    # psi(0) = 0.5 (1.15 * 1.329808 - 2 * 0.15 * 0.218574) = 0.5 (1.529279 - 0.065572) = 0.73185
    assert multi_gaussian(f64(0.0)).item() == pytest.approx(0.73185, abs=1e-5)


def test_multi_gaussian_peak_integral_and_zero_crossing():
    v = torch.linspace(-15, 15, 300_001, dtype=torch.float64)  # one point every 1e-4
    psi = multi_gaussian(v)
    assert v[psi.argmax()].item() == pytest.approx(0, abs=1e-9)
    assert psi.max().item() == pytest.approx(0.7319, abs=5e-5)
    assert torch.trapezoid(psi, v).item() == pytest.approx(0.425, abs=1e-6)  # gamma (1 + h - 2h)
    crossing = v[(v > 0) & (psi < 0)][0].item()
    assert crossing == pytest.approx(0.7633, abs=1.5e-4)


def test_multi_gaussian_has_shallow_negative_lobes_and_is_even():
    v = torch.linspace(0, 3, 30_001, dtype=torch.float64)
    psi = multi_gaussian(v)
    assert psi.min().item() == pytest.approx(-0.0264, abs=5e-5)
    assert v[psi.argmin()].item() == pytest.approx(1.118, abs=1e-3)
    assert torch.allclose(psi, multi_gaussian(-v), rtol=0, atol=1e-15)


# The smooth step F whose slope each surrogate is, written independently of the package.
STEPS = {
    "triangle": lambda v: 0.3 * torch.where(v.abs() < 1, v - v * v.abs() / 2, 0.5 * v.sign()),
    "rectangle": lambda v: v.clamp(-0.5, 0.5),
    "arctan": lambda v: torch.atan(math.pi * v) / math.pi,
    "fast_sigmoid": lambda v: v / (1 + 25 * v.abs()),
    "sigmoid_prime": lambda v: 1 / (1 + torch.exp(-4 * v)),
    "tanh_prime": torch.tanh,
    "multi_gaussian": lambda v: 0.5
    * (1.15 * torch.erf(v / (0.3 * 2**0.5)) - 0.15 * (torch.erf((v - 0.3) / (1.8 * 2**0.5)) + torch.erf((v + 0.3) / (1.8 * 2**0.5))))
    / 2,
}


@pytest.mark.parametrize("name", sorted(SURROGATES))
def test_surrogate_is_the_slope_of_its_step(name: str):
    v, d = f64(-1.7, -0.93, -0.6, -0.31, -0.02, 0.013, 0.22, 0.47, 0.77, 1.9), 1e-6
    slope = (STEPS[name](v + d) - STEPS[name](v - d)) / (2 * d)
    assert torch.allclose(SURROGATES[name](v), slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", sorted(SURROGATES))
def test_gradient_of_a_spike_is_the_incoming_gradient_times_the_surrogate(name: str):
    v = f64(-1.3, -0.4, -0.1, 0.05, 0.3, 2.0).requires_grad_()
    incoming = f64(1.0, -2.0, 3.0, 0.5, 0.0, 1.0)
    (grad,) = torch.autograd.grad(spike(v, SURROGATES[name]), v, incoming)
    assert torch.equal(grad, incoming * SURROGATES[name](v.detach()))


def test_any_function_serves_as_surrogate():
    v = f64(0.2, 0.4).requires_grad_()
    (grad,) = torch.autograd.grad(spike(v, lambda x: 10 * x).sum(), v)
    assert torch.allclose(grad, f64(2.0, 4.0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_heaviside_is_strict_and_keeps_the_dtype(dtype: torch.dtype):
    v = torch.tensor([-1.0, -1e-6, 0.0, 1e-6, 1.0], dtype=dtype)
    s = spike(v)
    assert s.dtype == dtype
    assert s.tolist() == [0, 0, 0, 1, 1]  # exactly at the threshold is not over it


def test_spikes_can_be_vmapped():
    v = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.vmap(spike)(v), spike(v))
