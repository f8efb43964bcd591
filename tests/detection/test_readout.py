"""Heads: what they read out over time, on numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from spyolo.detection.head import Head


def read(readout: str, inputs: list[float], leak: float | None = None) -> list[float]:
    """What each step shows of one logit, with an identity convolution."""
    head = Head(1, anchors=1, num_classes=1, readout=readout).double()
    torch.nn.init.ones_(head.conv.weight)
    torch.nn.init.zeros_(head.conv.bias)
    if leak is not None:
        torch.nn.init.constant_(head.leak, leak)
    state, seen = None, []
    for x in inputs:
        logits, state = head(torch.full((1, 1, 1, 1), x, dtype=torch.float64), state)
        assert logits.shape == (1, 6, 1, 1)
        seen.append(logits[0, 0].item())
    return seen


def test_last_forgets():
    assert read("last", [8, 0, 10]) == [8, 0, 10]


def test_mean_is_the_running_mean():
    assert read("mean", [8, 0, 10, 2]) == pytest.approx([8, 4, 6, 5], abs=1e-12)


def test_leaky_starts_at_its_first_input_and_halves_the_distance():
    assert read("leaky", [8, 0, 10]) == pytest.approx([8, 4, 7], abs=1e-12)


def test_leaky_has_a_learned_fraction():
    assert read("leaky", [8, 0, 10], leak=math.log(3)) == pytest.approx([8, 2, 8], abs=1e-5)  # sigma(ln 3) = 3/4


def test_leak_is_learned_from_the_second_step_on():
    # o2 = x1 + sigma(l) (x2 - x1): do2/dl = (x2 - x1) / 4 at l = 0
    head = Head(1, 1, 1, "leaky")
    torch.nn.init.ones_(head.conv.weight)
    first, state = head(torch.full((1, 1, 1, 1), 8.0), None)
    assert not torch.autograd.grad(first.sum(), head.leak, allow_unused=True, retain_graph=True)[0]
    second, _ = head(torch.zeros(1, 1, 1, 1), state)
    assert torch.autograd.grad(second.sum(), head.leak)[0].tolist() == [-2.0] * 6


def test_unknown_readouts_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="last, mean, leaky; got 'max'"):
        Head(1, 1, 1, "max")


@pytest.mark.parametrize("classes", [1, 2, 20])
def test_first_guess_is_the_prior(classes: int):
    bias = Head(8, anchors=3, num_classes=classes).conv.bias.view(3, 5 + classes)
    assert torch.equal(bias[:, :4], torch.zeros(3, 4))
    assert torch.allclose(torch.sigmoid(bias[:, 4]), torch.tensor(0.01))
    expected = 1 / classes if classes > 1 else 0.5
    assert torch.allclose(torch.sigmoid(bias[:, 5:]), torch.tensor(expected), atol=1e-3)
