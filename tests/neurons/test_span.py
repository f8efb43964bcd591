"""A span of steps as one operation: the numbers and gradients of the same steps one by one, in float64."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spyolo.learning.memory import MemoryMeter
from spyolo.neurons import SURROGATES, LTCState, Readout, Stack, StackState, dense_cell, leaves, native
from spyolo.neurons.fused import Compiling
from spyolo.neurons.span import can_span


def without_native(m: pytest.MonkeyPatch) -> None:
    m.setattr("spyolo.neurons.native.span_steps", lambda *_: None)


def network(layers: int = 1, inputs: int = 3, units: int = 5, readout: str = "linear", reads: str = "membrane", **unit) -> Stack:
    options = {"adaptive": False, "threshold": 0.3} | unit
    sizes = [inputs, *[units] * layers]
    cells = [dense_cell("ltc", a, b, **options) for a, b in pairwise(sizes)]
    return Stack(cells, Readout(units, 2, readout, reads=reads)).double()


def run(net: Stack, x: torch.Tensor, first: int, last: int, in_one_go: bool) -> list[torch.Tensor]:
    """Steps first to last - 1 in one go or one by one, the others one by one: output, state, gradients of weights and inputs."""
    net.zero_grad()
    x = x.clone().requires_grad_()
    state = None
    for t in range(len(x)):
        if in_one_go and first <= t < last:
            state = net.span(x[first:last], state) if t == first else state
            continue
        output, state = net(x[t], state)
    (output.square().sum() + sum(v.sum() for v in leaves(state))).backward()
    return [output.detach(), *(v.detach() for v in leaves(state)), x.grad, *(w.grad for w in net.parameters())]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    layers=st.integers(1, 3), batch=st.integers(1, 4), first=st.integers(0, 3), steps=st.integers(1, 30), recurrent=st.booleans(),
    detach_reset=st.booleans(), start=st.sampled_from(["zeros", "uniform"]), surrogate=st.sampled_from(sorted(SURROGATES)),
    readout=st.sampled_from(["linear", "leaky", "learned", "gated"]), reads=st.sampled_from(["output", "membrane"]),
    units=st.integers(1, 21), in_torch=st.booleans(),
)  # fmt: skip
def test_a_span_is_its_steps(layers, batch, first, steps, recurrent, detach_reset, start, surrogate, readout, reads, units, in_torch):
    """By native code, whose lanes do not divide every number of neurons, and in torch's operations."""
    torch.manual_seed(layers + 10 * steps)
    net = network(
        layers, units=units, readout=readout, reads=reads, recurrent=recurrent, detach_reset=detach_reset, start=start,
        surrogate=SURROGATES[surrogate],
    )  # fmt: skip
    assert net.can_span
    x = 3 * torch.randn(first + steps + 1, batch, 3, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as m:
        if in_torch:
            without_native(m)
        found = run(net, x, first, first + steps, True)
    for a, b in zip(found, run(net, x, first, first + steps, False), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.skipif(native.library() is None, reason=native.why_not())
def test_native_steps_in_fp32_and_on_many_neurons():
    """By two threads, with a remainder that no lane takes, and few steps, so that no rounding has grown to a spike more or less."""
    torch.manual_seed(4)
    x, threads = torch.randn(3, 300, 3), torch.get_num_threads()
    for surrogate in ("multi_gaussian", "arctan"):
        net = network(units=131, surrogate=SURROGATES[surrogate]).float()
        try:
            torch.set_num_threads(2)
            found = run(net, x, 0, 2, True)
        finally:
            torch.set_num_threads(threads)
        with pytest.MonkeyPatch.context() as m:
            without_native(m)
            wanted = run(net, x, 0, 2, True)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("surrogate", [lambda v: (v.abs() < 0.5).float(), lambda v: v.abs() < 0.5, lambda v: torch.ones((), dtype=v.dtype)])
def test_a_surrogate_of_the_caller_s_may_be_of_another_dtype_or_shape(surrogate):
    """Native code reads it by address: it must be what is expected there."""
    torch.manual_seed(5)
    net, x = network(surrogate=surrogate), 3 * torch.randn(9, 2, 3, dtype=torch.float64)
    found = run(net, x, 0, 8, True)
    with pytest.MonkeyPatch.context() as m:
        without_native(m)
        m.setattr(Compiling, "enabled", False)
        for a, b in zip(found, run(net, x, 0, 8, False), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_what_is_not_finite_stays_so():
    net = network(units=9, readout="gated").float()
    net.cells[0].unit.gate.linear.weight.data[0, 0] = torch.nan
    state = net.span(torch.randn(4, 2, 3))
    assert state.cells[0].u[:, 0].isnan().all() and state.readout.isnan().all()
    state = network().float().span(torch.full((1, 2, 3), torch.inf))  # over the threshold, and set back to what is left of it: nothing
    assert not state.cells[0].u.isfinite().any()


@pytest.mark.usefixtures("compiling")
def test_compiled_slopes_are_the_plain_ones_for_spans_of_any_size(monkeypatch):
    """One compilation serves them all: where another would be needed, `fail_on_recompile` ends in the plain functions, with a warning."""
    without_native(monkeypatch)
    torch.manual_seed(2)
    net, plain = network(units=6, readout="gated"), network(units=6, readout="gated")
    plain.load_state_dict(net.state_dict())
    for steps, batch in ((5, 4), (1, 1), (70, 4), (32, 32), (33, 1)):
        x = 3 * torch.randn(steps + 1, batch, 3, dtype=torch.float64)
        monkeypatch.setattr(Compiling, "enabled", False)
        wanted = run(plain, x, 0, steps, True)
        monkeypatch.setattr(Compiling, "enabled", True)
        with torch.compiler.set_stance("default" if steps == 5 else "fail_on_recompile"):
            found = run(net, x, 0, steps, True)
        assert Compiling.enabled
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_its_neurons_fire():
    """What is compared above is not silence."""
    net = network()
    with torch.no_grad():
        assert 0.02 < float(net.span(3 * torch.randn(50, 4, 3, dtype=torch.float64)).cells[0].s.mean()) < 0.98


def test_no_graph_is_kept_where_none_is_wanted():
    net = network()
    with torch.no_grad():
        assert not any(v.requires_grad for v in leaves(net.span(torch.randn(5, 2, 3, dtype=torch.float64))))


@pytest.mark.parametrize("gate_bias", [0.0, 6.0])
@pytest.mark.parametrize("in_torch", [False, True])
def test_products_in_bf16_as_autocast_takes_them(gate_bias, in_torch, monkeypatch):
    """One step, where no rounding can have grown: from a state of spikes and membranes, with gates half open and open. An open gate's slope
    is lost where its sigmoid is rounded."""
    if in_torch:
        without_native(monkeypatch)
    torch.manual_seed(0)
    net, x = network(units=67, inputs=64).float(), torch.randn(1, 16, 64)
    torch.nn.init.constant_(net.cells[0].unit.gate.linear.bias, gate_bias)
    net.amp = "bf16"
    state = StackState((LTCState(0.3 * torch.rand(16, 67), (torch.rand(16, 67) > 0.5).bfloat16()),), None)
    found = []
    for cell in (net.span(x, state).cells[0], net(x[0], state)[1].cells[0]):
        net.zero_grad()
        (cell.u.sum() + cell.s.float().sum()).backward()
        found.append((cell, [w.grad.clone() for w in net.cells.parameters()]))
    (span, gradients), (step, wanted) = found
    assert span.s.dtype == torch.bfloat16 and span.u.dtype == torch.float32
    assert 0.1 < span.s.float().mean() < 0.9 and (span.s != step.s).float().mean() < 0.01
    torch.testing.assert_close(span.u[span.s == step.s], step.u[span.s == step.s], rtol=2e-2, atol=2e-2)
    for g, w in zip(gradients, wanted, strict=True):
        assert (g - w).norm() < 0.05 * w.norm()


def test_under_autocast_of_the_callers():
    net = network().float()
    with torch.autocast("cpu", torch.bfloat16):
        cell = net.span(torch.randn(3, 2, 3)).cells[0]
    assert cell.s.dtype == torch.bfloat16 and cell.u.dtype == torch.float32


def test_frozen_weights_are_left_alone():
    net = network()
    frozen = [net.cells[0].recurrent.weight, net.cells[0].unit.gate.linear.weight]
    for w in frozen:
        w.requires_grad_(False)
    net.span(torch.randn(4, 2, 3, dtype=torch.float64)).cells[0].u.sum().backward()
    assert all(w.grad is None for w in frozen) and net.cells[0].synapse.weight.grad.abs().sum() > 0


def test_backward_makes_slopes_by_blocks():
    """Memory of a span is not much more than that of its steps, as it would be with the slopes of all steps at once."""
    peaks = []
    for in_one_go in (True, False):
        net, x = network(units=256).float(), torch.randn(200, 16, 3)
        with MemoryMeter(list(net.parameters())) as meter:
            state = net.span(x) if in_one_go else None
            for x_t in () if in_one_go else x:
                _, state = net(x_t, state)
            state.cells[0].u.sum().backward()
        peaks.append(meter.allocated)
    assert peaks[0] < 1.8 * peaks[1], peaks


def test_what_is_no_span_is_refused():
    net, x = network(), torch.randn(4, 2, 3, dtype=torch.float64)
    for wrong in (x[:0], x[None], x[0]):
        with pytest.raises(ValueError, match="one step or more"):
            net.span(wrong)
    with pytest.raises(ValueError, match="start from rest"):
        net.span(x, net.span(x[:, :1]))


def test_cells_that_are_stepped():
    assert can_span(dense_cell("ltc", 3, 4, adaptive=False))
    for other in (
        dense_cell("ltc", 3, 4), dense_cell("ltc", 3, 4, adaptive=False, gate="sum_linear"), dense_cell("alif", 3, 4),
        dense_cell("ltc", 3, 4, adaptive=False, fused=False), nn.Linear(3, 4),
    ):  # fmt: skip
        assert not can_span(other)
    cell = dense_cell("ltc", 3, 4, adaptive=False)
    cell.unit.gate.linear = nn.Linear(8, 4, bias=False)
    assert not can_span(cell)


def test_hooks_see_every_step():
    """So a watched network, the energy meter's for one, is not run in one go."""
    net = network()
    gate = net.cells[0].unit.gate.linear
    hooks = ((gate, "forward"), (net.readout.linear, "forward"), (net, "forward"), (net, "full_backward"), (gate, "full_backward_pre"))
    for module, hook in hooks:
        assert net.can_span
        handle = getattr(module, f"register_{hook}_hook")(lambda *_: None)
        assert not net.can_span
        handle.remove()
    assert not Stack([dense_cell("ltc", 3, 4, adaptive=False)], nn.Linear(4, 2)).can_span
