"""A span of steps as one operation: the numbers and gradients of the same steps one by one, in float64."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spyolo.neurons import SURROGATES, Readout, Stack, dense_cell, leaves
from spyolo.neurons.span import spans


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
)  # fmt: skip
def test_a_span_is_its_steps(layers, batch, first, steps, recurrent, detach_reset, start, surrogate, readout, reads):
    torch.manual_seed(layers + 10 * steps)
    net = network(
        layers, readout=readout, reads=reads, recurrent=recurrent, detach_reset=detach_reset, start=start, surrogate=SURROGATES[surrogate]
    )
    assert net.spans
    x = 3 * torch.randn(first + steps + 1, batch, 3, dtype=torch.float64)
    for found, wanted in zip(run(net, x, first, first + steps, True), run(net, x, first, first + steps, False), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


def test_its_neurons_fire():
    """What is compared above is not silence."""
    net = network()
    with torch.no_grad():
        assert 0.02 < float(net.span(3 * torch.randn(50, 4, 3, dtype=torch.float64)).cells[0].s.mean()) < 0.98


def test_no_graph_is_kept_where_none_is_wanted():
    net = network()
    with torch.no_grad():
        assert not any(v.requires_grad for v in leaves(net.span(torch.randn(5, 2, 3, dtype=torch.float64))))


def test_products_in_bf16_as_autocast_takes_them():
    """One step, where no rounding can have grown: the same products of the same rounded numbers; spikes stay bf16, membranes fp32."""
    torch.manual_seed(0)
    net, x = network(units=8).float(), torch.randn(1, 6, 3)
    net.amp = "bf16"
    found = net.span(x).cells[0]
    with torch.no_grad():
        wanted = net(x[0])[1].cells[0]
    assert found.s.dtype == wanted.s.dtype == torch.bfloat16 and found.u.dtype == torch.float32
    torch.testing.assert_close(found.u * (1 - wanted.s.float()), wanted.u * (1 - found.s.float()), rtol=2e-2, atol=2e-2)
    found.u.sum().backward()
    assert all(w.grad.dtype == torch.float32 for w in net.cells.parameters())


def test_cells_that_are_stepped():
    plain = dense_cell("ltc", 3, 4, adaptive=False)
    assert spans(plain)
    for other in (
        dense_cell("ltc", 3, 4), dense_cell("ltc", 3, 4, adaptive=False, gate="sum_linear"), dense_cell("alif", 3, 4),
        dense_cell("ltc", 3, 4, adaptive=False, fused=False), torch.nn.Linear(3, 4),
    ):  # fmt: skip
        assert not spans(other)
    handle = plain.unit.gate.linear.register_forward_hook(lambda *_: None)  # as the energy meter has them
    assert not spans(plain)
    handle.remove()
    assert spans(plain)
    assert not Stack([plain], torch.nn.Linear(4, 2)).spans
