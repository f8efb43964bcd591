"""Gates: what sets an LTC neuron's time constant."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from spyolo.neurons import GATES, BatchRenorm2d, ConcatLinearGate, ConvGate, StaticGate, SumLinearGate, build_gate

C = 8
CONV = ("conv", "depthwise", "pointwise")

# Weights and bias of the gate, and two affine parameters a channel for a convolutional gate's batch norm.
PARAMETERS = {
    "conv": C * C * 9 + C + 2 * C,
    "depthwise": C * 9 + C + 2 * C,
    "pointwise": C * C + C + 2 * C,
    "static": C,
    "concat_linear": 2 * C * C + C,
    "sum_linear": C * C + C,
}


def test_every_gate_is_counted():
    assert set(PARAMETERS) == set(GATES)


@pytest.mark.parametrize("kind", GATES)
def test_parameters(kind: str):
    assert sum(p.numel() for p in build_gate(kind, C).parameters()) == PARAMETERS[kind]


@pytest.mark.parametrize("kind", GATES)
def test_logit_broadcasts_to_the_current(kind: str):
    shape = (2, C, 5, 7) if kind in (*CONV, "static") else (2, C)
    current, u = torch.randn(shape), torch.randn(shape)
    logit = build_gate(kind, C)(current, u)
    assert torch.broadcast_shapes(logit.shape, shape) == shape
    if kind != "static":
        assert logit.shape == shape


def test_concatenation_sees_current_and_membrane_apart():
    gate = ConcatLinearGate(2)
    with torch.no_grad():
        gate.linear.weight.copy_(torch.tensor([[1.0, 0, 10, 0], [0, 2, 0, 20]]))  # [x ; u]
        gate.linear.bias.copy_(torch.tensor([0.5, 0.0]))
    assert gate(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])).tolist() == [[31.5, 84]]


@pytest.mark.parametrize("gate", [SumLinearGate(3, bias=0.0), ConvGate(3).eval()])
def test_sum_gates_see_the_sum_only(gate: nn.Module):
    shape = (2, 3) if isinstance(gate, SumLinearGate) else (2, 3, 4, 4)
    a, b = torch.randn(shape), torch.randn(shape)
    assert torch.allclose(gate(a, b), gate(a + b, torch.zeros(shape)), atol=1e-6)


def test_sum_linear_starts_slow():
    tau = torch.sigmoid(SumLinearGate(4)(torch.zeros(1, 4), torch.zeros(1, 4)))
    assert torch.allclose(tau, torch.full((1, 4), 1 / (1 + math.exp(5))))


def test_depthwise_gate_keeps_channels_apart():
    gate = build_gate("depthwise", 3).eval()
    x = torch.zeros(1, 3, 5, 5)
    touched = x.clone()
    touched[0, 1, 2, 2] = 1.0
    change = (gate(touched, x) - gate(x, x)).abs().amax((0, 2, 3))
    assert change[1] > 0 and change[0] == 0 and change[2] == 0


def test_static_gate_is_one_fraction_a_channel_whatever_comes_in():
    gate = StaticGate(3, tau=0.2)
    for shape in [(2, 3), (2, 3, 4, 4)]:
        tau = torch.sigmoid(gate(torch.randn(shape), torch.randn(shape)))
        assert torch.allclose(tau.expand(shape), torch.full(shape, 0.2))


def test_norm_of_a_convolutional_gate_can_be_chosen():
    assert isinstance(build_gate("depthwise", C, norm="renorm").norm, BatchRenorm2d)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"depthwise.*got 'fast'"):
        build_gate("fast", C)
    with pytest.raises(ValueError, match=r"renorm.*got 'layer'"):
        build_gate("conv", C, norm="layer")


@pytest.mark.parametrize("kind", GATES)
def test_a_bf16_gate_takes_an_fp32_membrane(kind: str):
    shape = (2, C, 5, 7) if kind in (*CONV, "static") else (2, C)
    gate = build_gate(kind, C).bfloat16().eval()
    assert gate(torch.randn(shape, dtype=torch.bfloat16), torch.randn(shape)).dtype == torch.bfloat16
