"""bf16 matrix products in sequence networks: near fp32, wide where it matters, and never with yesterday's weights."""

from __future__ import annotations

import copy

import pytest
import torch

from spyolo.errors import InputError
from spyolo.learning import build_rule
from spyolo.neurons import Readout, Stack, dense_cell
from spyolo.sequence.config import SequenceConfig


def network(kind: str = "ltc", amp: str = "bf16") -> Stack:
    torch.manual_seed(0)
    options = {"threshold": 0.1} if kind == "ltc" else {}
    return Stack([dense_cell(kind, 6, 32, **options), dense_cell(kind, 32, 32, **options)], Readout(32, 4, "gated"), amp)


@pytest.mark.parametrize("kind", ["ltc", "lstm", "gru", "alif", "ssnu"])
def test_bf16_is_near_fp32_and_keeps_its_state_wide(kind: str) -> None:
    narrow, wide = network(kind), network(kind, "none")
    x = torch.rand(5, 6)
    (out, state), (_, expected) = narrow(x, None), wide(x, None)
    assert out.dtype == torch.float32 == state.readout.dtype
    first = state.cells[0][0]  # membrane, memory, or h
    assert first.dtype == torch.float32
    apart = (first - expected.cells[0][0]).abs()  # of the first layer: further up one spike more or less is no rounding
    assert 0 < apart.median() < 0.01, "bf16 rounds to 3 digits; equal numbers would mean that it was never used"


@pytest.mark.parametrize("parts", [1, 4])
def test_each_update_sees_the_weights_of_its_own_time(parts: int) -> None:
    """Autocast keeps bf16 copies of weights: after an update in the middle of a sequence they would be of before it."""
    net = network()
    loss = torch.nn.functional.mse_loss
    rule = build_rule("fptt", net, torch.optim.SGD(net.parameters(), 0.5), loss, parts=parts, alpha=0.1)
    xs, y = torch.rand(8, 3, 6), torch.rand(3, 4)
    rule.start(8)
    for t, x in enumerate(xs):
        fresh, state = copy.deepcopy(net), rule.state
        seen = rule.step(x, y)
        assert torch.equal(seen.output, fresh(x, state)[0].detach()), f"step {t} used weights of another time"
    rule.finish()


def test_it_learns_as_fp32_does() -> None:
    losses = {}
    for amp in ("bf16", "none"):
        net = network(amp=amp)
        rule = build_rule("fptt", net, torch.optim.Adam(net.parameters(), 3e-3), torch.nn.functional.mse_loss, parts=2, alpha=0.05)
        generator = torch.Generator().manual_seed(1)
        xs, y = torch.rand(6, 16, 6, generator=generator), torch.rand(16, 4, generator=generator)
        for _ in range(60):
            rule.start(6)
            found = [rule.step(x, y).loss for x in xs]
            rule.finish()
        losses[amp] = float(torch.stack([v for v in found if v is not None]).mean())
    assert losses["none"] < 0.06, losses  # uniform targets have a variance of 0.083
    assert losses["bf16"] < 1.15 * losses["none"], losses


@pytest.mark.parametrize("changes", [{"rule": "eprop", "cell": "alif"}, {"rule": "ostl", "cell": "snu"}, {"dtype": "float64"}])
def test_it_is_refused_where_it_is_not_defined(changes: dict[str, str]) -> None:
    with pytest.raises(InputError, match="amp bf16 goes with fptt, bptt and sltt in float32"):
        SequenceConfig().updated({"amp": "bf16"} | changes, "here")
