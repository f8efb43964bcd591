"""One cell for all: dense, recurrent and convolutional, with explicit state."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spyolo.neurons import (
    ALIFUnit,
    Cell,
    LeakyReLUUnit,
    LIFUnit,
    LTCUnit,
    StaticGate,
    SumLinearGate,
    build_gate,
    dense_cell,
    dense_ltc,
    leaves,
    map_state,
)  # fmt: skip


def constant(layer: nn.Module, weight: float, bias: float = 0.0) -> nn.Module:
    """The layer with all its weights and biases set to one value."""
    nn.init.constant_(layer.weight, weight)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias)
    return layer


def log3_gate() -> SumLinearGate:
    """tau = sigma(ln 3 (x + u)):  x + u = -1, 0, 1, 2  ->  tau = 1/4, 1/2, 3/4, 9/10."""
    gate = SumLinearGate(1, bias=0.0).double()
    nn.init.constant_(gate.linear.weight, math.log(3))
    return gate


class LastDim(nn.Module):
    """Lets a gate for [B, n] serve [B, n, 1, 1]."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        return self.gate(x.flatten(1), u.flatten(1))[:, :, None, None]


def cells() -> dict[str, tuple[Cell, tuple[int, ...]]]:
    """The same neuron three times: identity synapse, the gate above."""
    return {
        "dense": (Cell(constant(nn.Linear(1, 1), 1.0), LTCUnit(log3_gate())), (1, 1)),
        "recurrent": (Cell(constant(nn.Linear(1, 1), 1.0), LTCUnit(log3_gate()), constant(nn.Linear(1, 1), 0.0)), (1, 1)),
        "convolutional": (Cell(constant(nn.Conv2d(1, 1, 1), 1.0), LTCUnit(LastDim(log3_gate()))), (1, 1, 1, 1)),
    }


@pytest.mark.parametrize("kind", ["dense", "recurrent", "convolutional"])
def test_the_three_kinds_are_the_same_neuron(kind: str):
    #   x = 1     u = 0     tau = 3/4    u' = .75                       no
    #   x = 1.25  u = .75   tau = 9/10   u' = .75 + .9 * .5  = 1.2      spike, u = 0
    #   x = -1    u = 0     tau = 1/4    u' = -.25                      no
    #   x = .25   u = -.25  tau = 1/2    u' = -.25 + .5 * .5 = 0        no
    cell, shape = cells()[kind]
    cell.double()
    state, seen = None, []
    for x in [1.0, 1.25, -1.0, 0.25]:
        s, state = cell(torch.full(shape, x, dtype=torch.float64), state)
        assert s.shape == shape
        seen.append((state.u.item(), s.item()))
    assert [u for u, _ in seen] == pytest.approx([0.75, 0, -0.25, 0], abs=1e-12)
    assert [s for _, s in seen] == [0, 1, 0, 0]


def test_recurrent_weights_carry_the_spikes_of_the_step_before():
    # W_rec = -4, tau = 1/2: x = 3 fires at the first step (u' = 1.5); at the second the current is 3 - 4 = -1, u' = -.5; then 3 again.
    cell = Cell(constant(nn.Linear(1, 1), 1.0), LTCUnit(StaticGate(1)), constant(nn.Linear(1, 1), -4.0))
    state, seen = None, []
    for _ in range(3):
        s, state = cell(torch.full((1, 1), 3.0), state)
        seen.append((s.item(), state.u.item()))
    assert seen == [(1, 0), (0, -0.5), (1, 0)]  # third: -.5 + .5 * 3.5 = 1.25


def test_dense_ltc_parameters():
    # Synapse 2 -> 128, recurrent 128 -> 128 (without bias), and a gate each for membrane and adaptation, 2 * 128 -> 128.
    cell = dense_ltc(2, 128)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in cell.named_children()}
    assert parts == {"synapse": 3 * 128, "unit": 2 * (256 * 128 + 128), "recurrent": 128 * 128}


def test_adaptation_starts_at_b_start():
    cell = dense_ltc(3, 4, adaptive=True, b_start=0.1, threshold=0.1)
    state = cell.unit.initial_state(torch.zeros(2, 4))
    assert torch.equal(state.b, torch.full((2, 4), 0.1))
    assert dense_ltc(3, 4, adaptive=False).unit.initial_state(torch.zeros(2, 4)).b is None


def test_zero_start_is_rest():
    state = LTCUnit(StaticGate(3)).initial_state(torch.randn(2, 3))
    assert state.u.count_nonzero() == 0 and state.s.count_nonzero() == 0


def test_uniform_start_depends_on_the_seed_and_on_nothing_else():
    def start(seed: int, batch: int) -> Tensor:
        return LTCUnit(StaticGate(3), start="uniform", seed=seed).initial_state(torch.zeros(batch, 3, 8, 8)).u

    torch.manual_seed(1234)
    before = torch.get_rng_state()
    first = start(seed=0, batch=4)
    assert torch.equal(torch.get_rng_state(), before)  # the caller's generator is left alone
    torch.rand(100)
    assert torch.equal(start(0, 4), first)  # not on what ran before
    assert torch.equal(start(0, 1)[0], first[0]) and torch.equal(first[0], first[3])  # nor on the batch or the place in it
    assert not torch.equal(start(1, 4), first)
    assert first.min() >= 0 and first.max() < 1 and 0.4 < first.mean() < 0.6


def test_unknown_start_is_refused_when_the_unit_is_made():
    with pytest.raises(ValueError, match="zeros, uniform; got 'ones'"):
        LTCUnit(StaticGate(3), start="ones")


def conv_cell(unit: nn.Module) -> Cell:
    return Cell(nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)), unit)


UNITS: dict[str, Any] = {
    "ltc": lambda: LTCUnit(build_gate("depthwise", 4)),
    "ltc adaptive": lambda: LTCUnit(build_gate("conv", 4), adaptation_gate=build_gate("depthwise", 4), threshold=0.1),
    "lif": lambda: LIFUnit(),
    "alif": lambda: ALIFUnit(),
}


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_bf16_autocast_keeps_the_state_in_fp32(unit: str):
    cell = conv_cell(UNITS[unit]())
    state = None
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            s, state = cell(torch.randn(2, 2, 6, 6), state)
    assert s.dtype == torch.bfloat16
    kept = {field: v.dtype for field, v in state._asdict().items() if v is not None and field not in ("s", "z")}
    assert kept and set(kept.values()) == {torch.float32}


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_float64_end_to_end(unit: str):
    cell = conv_cell(UNITS[unit]()).double()
    s, state = cell(torch.randn(2, 2, 6, 6, dtype=torch.float64))
    assert {v.dtype for v in leaves((s, state))} == {torch.float64}


def test_small_updates_survive_bf16():
    # tau = 1/1000 toward x = 1: after 200 steps u = 1 - 0.999^200 = 0.1814. A bf16 membrane stalls where half its spacing exceeds
    # the update, near 2^-2 / 2^9.
    cell = Cell(nn.Identity(), LTCUnit(StaticGate(1, tau=0.001)))
    state = None
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(200):
            _, state = cell(torch.ones(1, 1, dtype=torch.bfloat16), state)
    assert state.u.item() == pytest.approx(1 - 0.999**200, rel=1e-4)


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_a_returned_state_is_never_overwritten(unit: str):
    cell = conv_cell(UNITS[unit]())
    x, state, kept = torch.randn(2, 2, 6, 6), None, []
    for _ in range(3):
        s, state = cell(x, state)
        kept.append(((s, state), map_state(Tensor.clone, (s, state))))
    for now, then in kept:
        assert all(torch.equal(a, b) for a, b in zip(leaves(now), leaves(then), strict=True))


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_carried_state_is_all_there_is(unit: str):
    """Two cells with the same weights, one of which ran something else before, agree on the same state."""
    cell = conv_cell(UNITS[unit]()).eval()
    x = torch.randn(4, 2, 2, 6, 6)
    _, middle = cell(x[1], cell(x[0])[1])
    expected = cell(x[2], middle)
    cell(x[3] * 10)
    again = cell(x[2], middle)
    assert all(torch.equal(a, b) for a, b in zip(leaves(expected), leaves(again), strict=True))


def test_leaky_relu_unit_has_no_state():
    y, state = Cell(nn.Identity(), LeakyReLUUnit())(torch.tensor([[-2.0, 3.0]]))
    assert state is None
    assert y.tolist() == [[pytest.approx(-0.2), 3.0]]


def test_detached_reset_reaches_the_step():
    def gradient(detach: bool) -> float:
        x = torch.full((1, 1), 3.0, requires_grad=True)
        _, state = Cell(nn.Identity(), LTCUnit(StaticGate(1), detach_reset=detach))(x)
        return torch.autograd.grad(state.u.sum(), x)[0].item()

    assert gradient(True) == 0  # it fired: u = 0 whatever the current
    assert gradient(False) != 0


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_hooks_on_the_recurrent_synapse_are_called_at_each_step(kind):
    cell, called = dense_cell("ltc", 3, 4, adaptive=False), []
    getattr(cell.recurrent, f"register_{kind}_hook")(lambda *_: called.append(1))
    state = None
    for _ in range(3):
        z, state = cell(torch.randn(2, 3, requires_grad=True), state)
    (z.sum() + state.u.sum()).backward()
    assert len(called) == 3
