"""OTTT against autograd in float64, at random sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import autograd_gradients, cut_between_layers, largest_difference, random_network, random_sequence, rule_gradients
from torch import nn

from spyolo.neurons import Cell, LIFUnit, Readout, Stack

few = settings(max_examples=20, deadline=None, derandomize=True)
SIZES = {
    "inputs": st.integers(1, 5), "units": st.integers(1, 6), "outputs": st.integers(1, 3), "batch": st.integers(1, 3),
    "timesteps": st.integers(1, 15), "reads": st.sampled_from(["output", "membrane"]), "seed": st.integers(0, 10**6),
}  # fmt: skip


def lif_network(sizes: list[int], outputs: int, reads: str, seed: int) -> Stack:
    return random_network(["lif"] * (len(sizes) - 1), sizes, outputs, recurrent=False, readout="linear", reads=reads, seed=seed,
                          detach_reset=True, alpha=0.8, normalise=True)  # fmt: skip


@few
@given(**SIZES)
def test_the_only_layer_is_bptt(inputs, units, outputs, batch, timesteps, reads, seed):
    net, (x, y) = lif_network([inputs, units], outputs, reads, seed), random_sequence(timesteps, batch, inputs, outputs, seed)
    assert largest_difference(rule_gradients("ottt", net, x, y, timesteps // 3), autograd_gradients(net, x, y, timesteps // 3)) < 1e-10


@few
@given(**SIZES)
def test_hidden_layers_are_autograd_with_the_decay_path_between_layers_cut(inputs, units, outputs, batch, timesteps, reads, seed):
    net = lif_network([inputs, units + 2, units + 1, units], outputs, reads, seed)
    x, y = random_sequence(timesteps, batch, inputs, outputs, seed)
    found, expected = rule_gradients("ottt", net, x, y), autograd_gradients(net, x, y, step=cut_between_layers(net))
    assert largest_difference(found, expected) < 1e-10
    assert largest_difference(found, autograd_gradients(net, x, y), "cells.2") < 1e-10  # the last layer, and it alone, is BPTT's


def test_hidden_layers_are_not_bptt():
    net, (x, y) = lif_network([4, 6, 5], 2, "output", 3), random_sequence(12, 2, 4, 2, 3)
    assert largest_difference(rule_gradients("ottt", net, x, y), autograd_gradients(net, x, y), "cells.0") > 1e-3


def test_convolutions_with_average_pooling():
    """The only layer with a bias: BPTT again; then two of them, whose signal goes down through the pooling."""
    torch.manual_seed(0)

    def convolution(m: int, n: int) -> Cell:
        return Cell(nn.Sequential(nn.Conv2d(m, n, 3, padding=1), nn.AvgPool2d(2)), LIFUnit(0.8, 0.3, detach_reset=True))

    class Flat(Readout):
        def forward(self, r, o):
            return super().forward(r.flatten(1), o)

    x = 2 * torch.randn(7, 2, 1, 8, 8, dtype=torch.float64)
    y = torch.randn(7, 2, 3, dtype=torch.float64)
    dense = Cell(nn.Sequential(nn.Flatten(), nn.Linear(4 * 16, 5)), LIFUnit(0.8, 0.3, detach_reset=True))
    net = Stack([convolution(1, 4), dense], Readout(5, 3)).double()
    found = rule_gradients("ottt", net, x, y)
    assert largest_difference(found, autograd_gradients(net, x, y), "cells.1") < 1e-10
    expected = autograd_gradients(net, x, y, step=cut_between_layers(net))
    assert largest_difference(found, expected) < 1e-10


@pytest.mark.parametrize("pool", [nn.Flatten(), nn.AvgPool2d(2), nn.Sequential(nn.AvgPool2d(2), nn.Flatten())])
def test_a_layer_without_weights_lets_the_signal_through(pool):
    """It has nothing to learn; the layer below it has."""
    torch.manual_seed(0)
    convolution = Cell(nn.Conv2d(1, 3, 3, padding=1), LIFUnit(0.8, 0.3, detach_reset=True))
    features = 3 * 64 // (1 if isinstance(pool, nn.Flatten) else 4)
    net = Stack([convolution, Cell(pool, LIFUnit(0.8, 0.3, detach_reset=True))], Readout(features, 2)).double()
    x, y = 2 * torch.randn(5, 2, 1, 8, 8, dtype=torch.float64), torch.randn(5, 2, 2, dtype=torch.float64)
    found = rule_gradients("ottt", net, x, y)
    expected = autograd_gradients(net, x, y, step=cut_between_layers(net))
    assert expected["cells.0.synapse.weight"].abs().sum() > 0
    assert largest_difference(found, expected) < 1e-10


@pytest.mark.parametrize("parts", [1, "all"])
def test_it_learns(parts):
    from spyolo.learning import build_rule

    net, (x, y) = lif_network([3, 16], 2, "output", 0), random_sequence(10, 4, 3, 2, 0)
    rule = build_rule("ottt", net, torch.optim.Adam(net.parameters(), lr=0.01), nn.functional.mse_loss, parts=parts)
    losses = []
    for _ in range(100):
        rule.start(len(x))
        losses.append(sum(rule.step(a, b).loss.item() for a, b in zip(x, y)))
        rule.finish()
    assert losses[-1] < 0.7 * losses[0]
