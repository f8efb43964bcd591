"""BPTT behind FPTT's interface, and sequences cut into parts."""

from __future__ import annotations

import pytest
import torch

from spyolo.learning import BPTT, FPTT, split_steps


def test_one_part_is_the_gradient_of_the_whole_sequence():
    """x_t = w x_{t-1} from 1: after three steps w^3, whose gradient is 3 w^2."""
    w = torch.tensor(2.0, requires_grad=True)
    rule = BPTT(torch.optim.SGD([w], lr=0.01))
    (w * w * w).backward()
    rule.step()
    assert w.item() == pytest.approx(2 - 0.01 * 12)


def test_parts_are_truncated_bptt():
    """Cut after every step, the past is a constant: each update sees the gradient x_{t-1} alone."""
    w = torch.tensor(2.0, requires_grad=True)
    rule, x, expected = BPTT(torch.optim.SGD([w], lr=0.01)), torch.tensor(1.0), 2.0
    for _ in split_steps(3, 3):
        rule.optimizer.zero_grad()
        before = x.detach()
        x = w * before
        x.backward()
        rule.step()
        expected -= 0.01 * before.item()
    assert w.item() == pytest.approx(expected)


def test_gradients_are_clipped_to_a_global_norm():
    a, b = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    rule = BPTT(torch.optim.SGD([a, b], lr=1.0), clip=1.0)
    (3 * a + 4 * b).sum().backward()
    rule.step()
    torch.testing.assert_close(torch.cat([a, b]).detach(), torch.tensor([-0.6, -0.8]))


def test_no_gradients_is_an_error():
    with pytest.raises(RuntimeError, match=r"BPTT.step\(\) found no gradients"):
        BPTT(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)).step()


def test_it_stands_in_for_fptt():
    """A training loop needs no word about which rule it has."""
    w = torch.ones(1, requires_grad=True)
    rule = BPTT(torch.optim.SGD([w], lr=1.0))
    assert {n for n in dir(FPTT) if not n.startswith("_")} <= {n for n in dir(rule) if not n.startswith("_")}
    assert rule.average is rule.weights and rule.state_dict() == {} and not rule.needs_closure
    rule.load_state_dict({})
    rule.end_epoch()
    rule.restart()
    assert w.item() == 1


def test_parts_are_as_equal_as_they_can_be():
    assert split_steps(7, 3) == [3, 2, 2] and split_steps(6, 3) == [2, 2, 2] and split_steps(4, 1) == [4]
    for timesteps in range(1, 20):
        for parts in range(1, timesteps + 1):
            plan = split_steps(timesteps, parts)
            assert sum(plan) == timesteps and len(plan) == parts and max(plan) - min(plan) <= 1


@pytest.mark.parametrize("parts", [0, 5, -1])
def test_more_parts_than_steps_make_no_sense(parts):
    with pytest.raises(ValueError, match="between 1 and the number of steps, 4"):
        split_steps(4, parts)
