"""Memory of the rules against the length of the sequence: constant for all but BPTT."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import torch
from processes import apart
from torch import nn

from spyolo.learning import build_rule
from spyolo.learning.memory import MemoryMeter, allocated
from spyolo.neurons import Readout, Stack, dense_cell

RULES = {
    "bptt": ("ltc", {}), "fptt": ("ltc", {}), "sltt": ("ltc", {}), "eprop": ("alif", {}), "ostl": ("ssnu", {"with_h": False}),
    "ostl with H": ("ssnu", {}), "ottt": ("lif", {}),
}  # fmt: skip


def peak(name: str, timesteps: int) -> int:
    """The lowest of three: what strangers (libraries, a compiler) happen to take meanwhile only adds."""
    peak_once(name, 3)  # warm
    gc.freeze()  # else each collection below walks over all that torch has imported; this runs in a process of its own
    return min(peak_once(name, timesteps) for _ in range(3))


def peak_once(name: str, timesteps: int, batch: int = 32, units: int = 16) -> int:
    """Bytes saved for backward plus bytes handed out, at their highest, over parameters and optimizer; inputs made step by step."""
    kind, options = RULES[name]
    torch.manual_seed(0)
    net = Stack([dense_cell(kind, 4, units, recurrent=name != "ottt", **({"fused": False} if kind == "ltc" else {}))], Readout(units, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for w in net.parameters():
        w.grad = torch.zeros_like(w)
    optimizer.step()
    optimizer.zero_grad()
    gc.collect()
    meter = MemoryMeter(list(net.parameters()))
    with meter.watch_saved():
        rule = build_rule(name.split()[0], net, optimizer, nn.functional.mse_loss, **options)
        rule.start(timesteps)
        for t in range(timesteps):
            watch = t < 40 or t >= timesteps - 10  # past the fan-in, where traces with H change their layout; BPTT's backward is the last
            with meter if watch else nullcontext():
                rule.step(torch.randn(batch, 4), torch.zeros(batch, 2))
        rule.finish()
    return meter.saved + meter.allocated


@pytest.fixture(scope="module")
def fresh() -> Iterator[Callable[..., int]]:
    with apart() as run:
        yield run


@pytest.mark.parametrize("name", [name for name in RULES if name != "bptt"])
def test_memory_does_not_grow_with_the_sequence(name: str, fresh: Callable[..., int]):
    short, long = fresh(peak, name, 100), fresh(peak, name, 300)
    assert long < 1.05 * short


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RULES if name != "bptt"])
def test_nor_at_ten_thousand_steps(name: str, fresh: Callable[..., int]):
    assert fresh(peak, name, 10_000) < 1.05 * fresh(peak, name, 100)


def test_memory_of_bptt_grows_linearly(fresh: Callable[..., int]):
    a, b, c = (fresh(peak, "bptt", t) for t in (40, 80, 120))
    assert b > 1.8 * a and (c - b) == pytest.approx(b - a, rel=0.05)


def test_fptt_k_needs_the_memory_of_a_part(fresh: Callable[..., int]):
    """120 steps in three parts: as BPTT over 40."""
    three, twelve, whole = fresh(peak_of_parts, 3), fresh(peak_of_parts, 12), fresh(peak, "bptt", 120)
    assert three == pytest.approx(whole / 3, rel=0.1) and twelve == pytest.approx(whole / 12, rel=0.3)


def peak_of_parts(parts: int) -> int:
    torch.manual_seed(0)
    net = Stack([dense_cell("ltc", 4, 16, fused=False)], Readout(16, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    meter = MemoryMeter(list(net.parameters()))
    with meter.watch_saved(), meter:
        rule = build_rule("fptt", net, optimizer, nn.functional.mse_loss, parts=parts)
        rule.start(120)
        for _ in range(120):
            rule.step(torch.randn(32, 4), torch.zeros(32, 2))
    return meter.saved + meter.allocated


def test_the_meter_counts():
    """A known graph: exp saves its result, 4,000 bytes; the allocator hands out as much for it."""
    w = torch.zeros(1000, requires_grad=True)
    handed_out = []
    for _ in range(3):  # the lowest, as above
        meter = MemoryMeter([w])
        with meter.watch_saved(), meter:
            y = w.exp()
        assert meter.saved == 4000 and meter.operations == 1 and meter.written == 1000
        handed_out.append(meter.allocated)
        del y, meter
    assert 4000 <= min(handed_out) < 8000
    before = allocated()
    big = torch.empty(10**6)
    assert 4_000_000 <= allocated() - before < 4_100_000
    del big
