"""Firing rates and the penalty that keeps them in a band."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spyolo.detection import DetectorState, firing_rates, rate_penalty
from spyolo.neurons import LTCState, LTCUnit, StaticGate


def spikes(*rates: float) -> LTCState:
    """One picture of 10 x 10 neurons a channel, of which the given shares fired."""
    s = torch.zeros(1, len(rates), 100)
    for channel, rate in enumerate(rates):
        s[0, channel, : round(100 * rate)] = 1
    s = s.view(1, len(rates), 10, 10)
    return LTCState(torch.zeros_like(s), s)


def state(**cells: LTCState | None) -> DetectorState:
    return DetectorState(cells, ())


def test_rates_are_shares_of_neurons():
    rates = firing_rates(state(a=spikes(0.0, 0.5), b=spikes(0.1), twin=None))
    assert {name: round(r.item(), 6) for name, r in rates.items()} == {"a": 0.25, "b": 0.1}


def test_penalty_by_hand():
    # a: silent, (0.1 - 0)^2 = 0.01; within the band, 0; saturated, (0.9 - 0.3)^2 = 0.36: mean 0.37 / 3.   b: (0.4 - 0.3)^2 = 0.01
    both = state(a=spikes(0.0, 0.2, 0.9), b=spikes(0.4))
    assert rate_penalty(both, 0.1, 0.3).item() == pytest.approx(0.37 / 3 + 0.01)


def test_a_silent_channel_is_not_hidden_by_its_neighbours():
    assert rate_penalty(state(a=spikes(0.0, 0.4)), 0.1, 0.5).item() > 0  # on average the layer fires enough


def test_a_band_met_costs_nothing_and_pulls_nowhere():
    current = torch.linspace(-1, 3, 100).view(1, 1, 10, 10).requires_grad_()
    _, after = fire(current)
    penalty = rate_penalty(state(a=after), 0.1, 0.9)
    assert penalty.item() == 0 and torch.autograd.grad(penalty, current)[0].count_nonzero() == 0


def fire(current: Tensor) -> tuple[Tensor, LTCState]:
    """A step of neurons at rest with tau = 1/2: those with a current over 2 fire."""
    unit = LTCUnit(StaticGate(current.shape[1]))
    return unit(current, unit.initial_state(current))


@pytest.mark.parametrize("current", [-5.0, 0.0, 0.5, 1.0, 1.9])
def test_a_silent_channel_is_pulled_up(current: float):
    """However far below the threshold: at rest the surrogate's side lobe alone would push it down (psi(-1) < 0)."""
    x = torch.full((1, 1, 4, 4), current, requires_grad=True)
    _, after = fire(x)
    assert after.s.count_nonzero() == 0
    (grad,) = torch.autograd.grad(rate_penalty(state(a=after), 0.05, 0.3), x)
    assert (grad < 0).all()  # downhill is a larger current


@pytest.mark.parametrize("current", [2.1, 2.5, 3.0, 3.4])
def test_a_saturated_channel_is_pulled_down(current: float):
    """As far as the surrogate reaches: 0.76 above the threshold."""
    x = torch.full((1, 1, 4, 4), current, requires_grad=True)
    _, after = fire(x)
    assert after.s.all()
    (grad,) = torch.autograd.grad(rate_penalty(state(a=after), 0.05, 0.3), x)
    assert (grad > 0).all()


def test_descending_the_penalty_wakes_a_dead_layer_and_calms_a_wild_one():
    noise = torch.randn(64, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    bias = torch.tensor([-1.0, 3.0], requires_grad=True)  # of one channel nothing fires, of the other nearly all
    optimizer = torch.optim.SGD([bias], lr=5.0)

    def rates() -> tuple[Tensor, LTCState]:
        after = fire(noise * 0.3 + bias.view(1, -1, 1, 1))[1]
        return after.s.mean((0, 2, 3)), after

    before = rates()[0].tolist()
    for _ in range(300):
        optimizer.zero_grad()
        rate_penalty(state(a=rates()[1]), 0.05, 0.3).backward()
        optimizer.step()
    after = rates()[0].tolist()
    assert before[0] == 0 and before[1] > 0.99
    assert 0.03 <= after[0] <= 0.3 and 0.05 <= after[1] <= 0.4


def test_a_detector_without_spikes_is_refused():
    with pytest.raises(ValueError, match="no spiking layer"):
        rate_penalty(state(twin=None), 0.1, 0.3)


def test_a_whole_detector_can_be_penalised(small):
    detector = small().train()
    *_, (_, after) = detector.run(torch.rand(2, 3, 64, 64), 2)
    rate_penalty(after, 0.2, 0.3).backward()
    without = [n for n, p in detector.named_parameters() if p.grad is None and not n.startswith("heads")]
    assert without == []
