"""Averages of the weights, and looking at a network through them."""

from __future__ import annotations

import pytest
import torch

from spyolo.learning import EMA, swapped


def test_the_average_warms_up():
    """decay_n = min(decay, (1 + n) / (10 + n)): the first update keeps 2/11 of the past, the second 3/12, and never more than `decay`."""
    w = torch.zeros(1)
    ema, expected = EMA([w], decay=0.26), 0.0
    for n, decay in enumerate((2 / 11, 3 / 12, 0.26, 0.26), start=1):
        w += 1.0
        ema.update()
        expected = decay * expected + (1 - decay) * n
        assert ema.average[0].item() == pytest.approx(expected, abs=1e-6)
    assert ema.updates == 4


def test_the_average_starts_as_the_weights_and_is_not_them():
    w = torch.ones(2)
    ema = EMA([w])
    w += 1
    assert ema.average[0].tolist() == [1, 1]


def test_without_decay_the_average_is_the_weights():
    w = torch.randn(5)
    ema = EMA([w], decay=0)
    w.mul_(3)
    ema.update()
    assert torch.equal(ema.average[0], w)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decays_that_make_no_sense(decay):
    with pytest.raises(ValueError, match="decay must be in"):
        EMA([torch.ones(1)], decay)


def test_swapped_shows_other_weights_and_puts_the_own_ones_back():
    w = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    other = torch.tensor([5.0, 6.0])
    place = w.data_ptr()
    with swapped([w], [other]):
        assert w.tolist() == [5, 6]
        with torch.no_grad():
            w.zero_()  # whatever happens inside
    assert w.tolist() == [1, 2] and other.tolist() == [5, 6] and w.data_ptr() == place


def test_swapped_puts_them_back_when_the_inside_fails():
    w = torch.nn.Parameter(torch.tensor([1.0]))
    with pytest.raises(KeyboardInterrupt), swapped([w], [torch.tensor([5.0])]):
        raise KeyboardInterrupt
    assert w.item() == 1


def test_swapping_weights_with_themselves_changes_nothing():
    weights = [torch.nn.Parameter(torch.tensor([1.0]))]
    with swapped(weights, weights):
        assert weights[0].item() == 1
    assert weights[0].item() == 1
