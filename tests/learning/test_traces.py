"""E-prop and OSTL against autograd in float64, at random sizes."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import DeafCell, autograd_gradients, cut_between_layers, largest_difference, random_network, random_sequence, rule_gradients
from torch import nn

from spyolo.errors import InputError
from spyolo.learning import build_rule
from spyolo.learning.jacobian_traces import JacobianTraces, unfused
from spyolo.learning.local import LocalUnit, local_unit
from spyolo.neurons import ALIFUnit, Cell, ConvGate, LeakyReLUUnit, LIFUnit, LTCUnit, Readout, Stack, dense_cell

SIZES = {
    "inputs": st.integers(1, 5), "units": st.integers(1, 6), "outputs": st.integers(1, 3), "batch": st.integers(1, 3),
    "timesteps": st.integers(1, 25), "readout": st.sampled_from(["linear", "leaky"]), "reads": st.sampled_from(["output", "membrane"]),
    "seed": st.integers(0, 10**6),
}  # fmt: skip
few = settings(max_examples=12, deadline=None, derandomize=True)


def sizes_and_data(inputs, units, outputs, batch, timesteps, readout, reads, seed):
    return ([inputs, units], outputs), {"readout": readout, "reads": reads, "seed": seed}, random_sequence(
        timesteps, batch, inputs, outputs, seed
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["snu", "ssnu", "lstm", "gru", "lif", "alif"])
@few
@given(**SIZES)
def test_ostl_with_h_is_bptt_for_one_recurrent_layer(kind, **sizes):
    """Sequences shorter and longer than the fan-in: both layouts of the traces."""
    shape, options, (x, y) = sizes_and_data(**sizes)
    net = random_network([kind], *shape, **options)
    skip = len(x) // 3
    assert largest_difference(rule_gradients("ostl", net, x, y, skip), autograd_gradients(net, x, y, skip)) < 1e-10


@pytest.mark.parametrize("readout", ["linear", "leaky"])
@pytest.mark.parametrize("kind", ["ssnu", "lstm", "alif"])
def test_ostl_with_h_over_many_folds(kind, readout):
    """Traces are put together every few steps; after the fan-in (25 here) they have changed their layout too."""
    net, (x, y) = random_network([kind], [12, 12], 2, readout=readout), random_sequence(90, 2, 12, 2, 0)
    assert largest_difference(rule_gradients("ostl", net, x, y, 30), autograd_gradients(net, x, y, 30)) < 1e-10


@pytest.mark.parametrize("kind", ["snu", "lstm", "gru", "alif", "ltc"])
@settings(few, max_examples=4)
@given(**SIZES)
def test_any_cell_through_its_jacobian(kind, **sizes):
    """Dense gates couple LTC neurons beside the recurrent synapse; torch.func sees it all."""
    shape, options, (x, y) = sizes_and_data(**sizes)
    net, skip = random_network([kind], *shape, **options), len(x) // 3
    wanted = autograd_gradients(net, x, y, skip)
    assert largest_difference(rule_gradients("ostl", net, x, y, skip, jacobian=True), wanted) < 1e-10
    if kind == "ltc":
        assert largest_difference(rule_gradients("ostl", net, x, y, skip), wanted) < 1e-10


def test_the_jacobian_of_a_cell_has_h_in_it():
    net, (x, y) = random_network(["snu"], [3, 4], 2), random_sequence(2, 2, 3, 2, 0)
    with pytest.raises(ValueError, match="with_h=False does not go with it"):
        rule_gradients("ostl", net, x, y, jacobian=True, with_h=False)


@pytest.mark.parametrize("kind", ["snu", "ssnu", "lstm", "gru", "lif", "alif"])
@settings(few, max_examples=6)
@given(**SIZES)
def test_ostl_without_h_is_bptt_with_the_transmitted_output_detached(kind, **sizes):
    """The reset keeps its gradient, other than in e-prop."""
    shape, options, (x, y) = sizes_and_data(**sizes)
    net, deaf = (random_network([kind], *shape, cell=cell, **options) for cell in (Cell, DeafCell))
    assert largest_difference(rule_gradients("ostl", net, x, y, with_h=False), autograd_gradients(deaf, x, y)) < 1e-10


def test_a_leaky_readout_is_exact_above_and_not_below():
    """The upper layer has no state of its own, so that nothing else is dropped: OSTL is exact in both layers under a linear readout."""
    off = {}
    for readout in ("linear", "leaky"):
        net = random_network(["ssnu", "ssnu"], [3, 5, 4], 2, recurrent=False, readout=readout)
        net.cells[1].unit.decay = 0.0
        x, y = random_sequence(20, 3, 3, 2, 0)
        found, wanted = rule_gradients("ostl", net, x, y), autograd_gradients(net, x, y)
        off[readout] = [float((found[k] - wanted[k]).norm() / wanted[k].norm()) for k in (f"cells.{i}.synapse.weight" for i in (0, 1))]
    assert max(off["linear"]) < 1e-12 and off["leaky"][1] < 1e-12 and off["leaky"][0] > 0.05


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_ostl_with_other_snu_activations(activation):
    net, (x, y) = random_network(["snu"], [3, 4], 2, activation=activation), random_sequence(9, 2, 3, 2, 0)
    assert largest_difference(rule_gradients("ostl", net, x, y), autograd_gradients(net, x, y)) < 1e-10


@pytest.mark.parametrize("kind", ["snu", "ssnu", "lstm", "gru", "lif", "alif"])
@few
@given(**SIZES)
def test_ostl_of_a_deep_feed_forward_network_is_exact_in_its_last_layer(kind, **sizes):
    ((inputs, units), outputs), options, (x, y) = sizes_and_data(**sizes)
    net = random_network([kind, kind], [inputs, units + 1, units], outputs, recurrent=False, **options)
    ostl, bptt = rule_gradients("ostl", net, x, y), autograd_gradients(net, x, y)
    assert largest_difference(ostl, bptt, "cells.1") < 1e-10
    assert largest_difference(ostl, bptt, "readout") < 1e-10


DEEP = SIZES | {"units": st.lists(st.integers(1, 5), min_size=2, max_size=3), "timesteps": st.integers(2, 10)}


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("kind", ["snu", "ssnu", "lif", "alif", "lstm", "ltc"])
@settings(few, max_examples=6)
@given(with_h=st.booleans(), **DEEP)
def test_deep_ostl_is_autograd_with_the_ways_through_time_between_layers_cut(
    kind, recurrent, inputs, units, outputs, batch, timesteps, readout, reads, seed, with_h
):
    """In every layer, hidden ones too. H stays within its layer; without it what is transmitted there is detached."""
    shape, data = ([kind] * len(units), [inputs, *units], outputs), random_sequence(timesteps, batch, inputs, outputs, seed)
    options = {"recurrent": recurrent, "readout": readout, "reads": reads, "seed": seed}
    options |= {"gate": "static"} if kind == "ltc" else {}
    net, oracle = (random_network(*shape, **options, cell=cell) for cell in (Cell, Cell if with_h else DeafCell))
    wanted = autograd_gradients(oracle, *data, 1, cut_between_layers(oracle))
    assert largest_difference(rule_gradients("ostl", net, *data, 1, with_h=with_h), wanted) < 1e-10


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("kind", ["lif", "alif", "ssnu", "gru"])
@settings(few, max_examples=6)
@given(**DEEP)
def test_deep_eprop_is_autograd_with_the_ways_through_time_between_layers_cut_too(
    kind, recurrent, inputs, units, outputs, batch, timesteps, readout, reads, seed
):
    """Symmetric feedback: beside what its own traces leave out, it drops what OSTL drops."""
    shape, data = ([kind] * len(units), [inputs, *units], outputs), random_sequence(timesteps, batch, inputs, outputs, seed)
    options = {"recurrent": recurrent, "readout": readout, "reads": reads, "seed": seed}
    cut = {"cell": DeafCell} if kind == "gru" else {"cell": DeafCell, "detach_reset": True}
    net, oracle = random_network(*shape, **options), random_network(*shape, **options, **cut)
    wanted = autograd_gradients(oracle, *data, 1, cut_between_layers(oracle))
    assert largest_difference(rule_gradients("eprop", net, *data, 1), wanted) < 1e-10


@pytest.mark.parametrize(("feedback", "layers"), [("random", 1), ("random", 3), ("adaptive", 1)])
@few
@given(**SIZES | {"timesteps": st.integers(1, 10)}, kind=st.sampled_from(["lif", "alif"]))
def test_eprop_with_random_feedback_is_autograd_with_it_in_place_of_the_way_down(feedback, layers, kind, units, inputs, outputs, **sizes):
    """Adaptive feedback is random until the readout first moves."""
    _, options, (x, y) = sizes_and_data(inputs, units, outputs, **sizes)
    shape = [kind] * layers, [inputs, *range(units, units + layers)], outputs
    net, oracle = random_network(*shape, **options), random_network(*shape, **options, cell=DeafCell, detach_reset=True)
    rule = build_rule("eprop", net, torch.optim.SGD(net.parameters(), lr=1.0), nn.functional.mse_loss, feedback=feedback, seed=5)
    wanted = autograd_gradients(oracle, x, y, step=cut_between_layers(oracle, rule.state_dict()["feedback"]))
    assert largest_difference(rule_gradients("eprop", net, x, y, feedback=feedback, seed=5), wanted) < 1e-10


def test_what_deep_ostl_drops():
    """The residual R of a lower layer: mixed space-time terms. Small beside the gradient, not zero; without time there is none."""
    found = []
    for seed in range(10):
        net = random_network(["ssnu", "ssnu"], [4, 8, 8], 3, recurrent=False, readout="linear", seed=seed)
        x, y = random_sequence(12, 4, 4, 3, seed)
        ostl, bptt = (f["cells.0.synapse.weight"] for f in (rule_gradients("ostl", net, x, y), autograd_gradients(net, x, y)))
        found.append(((ostl - bptt).norm() / bptt.norm()).item())
        assert nn.functional.cosine_similarity(ostl.flatten(), bptt.flatten(), dim=0) > 0.8
        once = rule_gradients("ostl", net, x[:1], y[:1]), autograd_gradients(net, x[:1], y[:1])
        assert largest_difference(*once) < 1e-12
    assert 0.02 < sum(found) / len(found) < 0.6


@pytest.mark.parametrize("kind", ["lif", "alif", "snu", "ssnu", "lstm", "gru"])
@few
@given(**SIZES)
def test_eprop_is_bptt_with_the_transmitted_and_the_reset_spike_detached(kind, **sizes):
    """An adaptive neuron's own spike keeps its gradient in the adaptation."""
    shape, options, (x, y) = sizes_and_data(**sizes)
    reset = {} if kind in ("lstm", "gru") else {"detach_reset": True}
    oracle = random_network([kind], *shape, cell=DeafCell, **reset, **options)
    net = random_network([kind], *shape, **options)  # attached: e-prop leaves the reset out by itself
    skip = len(x) // 3
    assert largest_difference(rule_gradients("eprop", net, x, y, skip), autograd_gradients(oracle, x, y, skip)) < 1e-10


@pytest.mark.parametrize("adaptive", [True, False])
@few
@given(**SIZES)
def test_eprop_of_ltc_neurons_with_a_gate_of_their_own(adaptive, **sizes):
    """A static gate does not couple neurons: e-prop is autograd with the same paths cut."""
    shape, options, (x, y) = sizes_and_data(**sizes)
    options |= {"gate": "static", "adaptive": adaptive, "fused": False}
    net, oracle = (random_network(["ltc"], *shape, cell=cell, detach_reset=detached, **options)
                   for cell, detached in ((Cell, False), (DeafCell, True)))  # fmt: skip
    assert largest_difference(rule_gradients("eprop", net, x, y), autograd_gradients(oracle, x, y)) < 1e-10


@pytest.mark.parametrize("gate", ["concat_linear", "sum_linear"])
def test_eprop_of_a_single_ltc_neuron_with_dense_gates(gate):
    """One neuron's own share of the gate is all of it, the gates' weights included."""
    net, oracle = (random_network(["ltc"], [3, 1], 2, gate=gate, fused=False, cell=cell, detach_reset=detached)
                   for cell, detached in ((Cell, False), (DeafCell, True)))  # fmt: skip
    x, y = random_sequence(12, 2, 3, 2, 0)
    assert largest_difference(rule_gradients("eprop", net, x, y), autograd_gradients(oracle, x, y)) < 1e-10


@pytest.mark.parametrize("gate", ["concat_linear", "sum_linear", "static"])
def test_the_signal_goes_through_all_of_a_dense_gate(gate):
    """One step has no time: the gates' own weights have the exact gradient in every layer, however neurons are coupled within it."""
    net, (x, y) = random_network(["ltc"] * 3, [3, 5, 4, 4], 2, gate=gate, fused=False), random_sequence(1, 2, 3, 2, 0)
    for name in ("ostl", "eprop"):
        found, expected = rule_gradients(name, net, x, y, **({"with_h": False} if name == "ostl" else {})), autograd_gradients(net, x, y)
        for layer in range(3):
            assert expected[f"cells.{layer}.unit.gate.{'logit' if gate == 'static' else 'linear.weight'}"].abs().max() > 1e-6
            assert largest_difference(found, expected, f"cells.{layer}.unit.gate") < 1e-10


@pytest.mark.parametrize("unit", [LIFUnit(0.8), ALIFUnit(0.9, 0.95, 0.4)])
def test_closed_forms_are_what_torch_func_finds(unit):
    """The closed form carries less (not the spike itself): compare what both make of a neuron's own trace over some steps."""
    closed, open_ = local_unit(unit, True), LocalUnit(unit, True)
    state = other = unit.initial_state(torch.zeros(2, 3, dtype=torch.float64))
    traces, before = [0.0, 0.0], [None, None]
    for t in range(10):
        current = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(t))
        for i, local in enumerate((closed, open_)):
            _, new, d = local.step([current], state if i == 0 else other)
            state, other = (new, other) if i == 0 else (state, new)
            jacobian = d.state if d.before is None or before[i] is None else d.state + d.before[:, None] * before[i].shown[None]
            traces[i] = d.lines[:, 0] + (0 if t == 0 else (jacobian * traces[i][None]).sum(1))
            before[i] = d
        shown = [(d_.shown * e).sum(0) for d_, e in zip(before, traces)]
        torch.testing.assert_close(shown[0], shown[1], rtol=0, atol=1e-12)


def test_random_feedback_is_fixed_and_reaches_hidden_layers():
    net, (x, y) = random_network(["lif", "alif"], [3, 5, 4], 2, readout="linear"), random_sequence(9, 2, 3, 2, 0)
    first = rule_gradients("eprop", net, x, y, feedback="random", seed=1)
    again = rule_gradients("eprop", net, x, y, feedback="random", seed=1)
    other = rule_gradients("eprop", net, x, y, feedback="random", seed=2)
    assert largest_difference(first, again) == 0 and largest_difference(first, other, "cells.0") > 0
    assert largest_difference(first, rule_gradients("eprop", net, x, y), "readout") < 1e-12


def test_symmetric_feedback_is_random_feedback_with_the_readouts_weights():
    net, (x, y) = random_network(["alif"], [3, 5], 2), random_sequence(9, 2, 3, 2, 0)
    rule = build_rule("eprop", net, torch.optim.SGD(net.parameters(), lr=1.0), nn.functional.mse_loss, feedback="random")
    rule.load_state_dict({"feedback": [net.readout.linear.weight.detach()]})
    rule.hold = True
    rule.start(len(x))
    for t in range(len(x)):
        rule.step(x[t], y[t], weight=1.0 + 0.1 * t)
    rule.finish()
    found = {name: w.grad for name, w in net.named_parameters()}
    assert largest_difference(found, rule_gradients("eprop", net, x, y)) < 1e-12


def test_adaptive_feedback_moves_as_the_readout_does():
    net, (x, y) = random_network(["lif"], [3, 5], 2), random_sequence(9, 2, 3, 2, 0)
    rule = build_rule("eprop", net, torch.optim.Adam(net.parameters(), lr=0.05), nn.functional.mse_loss, feedback="adaptive",
                      feedback_decay=0.01)  # fmt: skip
    apart = [(rule.state_dict()["feedback"][0] - net.readout.linear.weight).norm().item()]
    for _ in range(50):
        rule.start(len(x))
        for t in range(len(x)):
            rule.step(x[t], y[t])
        rule.finish()
        apart.append((rule.state_dict()["feedback"][0] - net.readout.linear.weight).norm().item())
    assert apart[1] == pytest.approx(0.99 * apart[0]) and apart[-1] == pytest.approx(0.99**50 * apart[0])
    with pytest.raises(InputError, match="only the last layer"):
        deep = random_network(["lif", "lif"], [3, 5, 5], 2)
        build_rule("eprop", deep, rule.update.optimizer, nn.functional.mse_loss, feedback="adaptive")


@pytest.mark.parametrize(("name", "options"), [("eprop", {}), ("ostl", {"with_h": False}), ("ostl", {})])
def test_rules_learn_online(name, options):
    """An update after each step: the traces go on over it."""
    net, (x, y) = random_network(["ssnu"], [3, 8], 2), random_sequence(10, 4, 3, 2, 0)
    rule = build_rule(name, net, torch.optim.Adam(net.parameters(), lr=0.02), nn.functional.mse_loss, parts="all", **options)
    losses = []
    for _ in range(40):
        rule.start(len(x))
        losses.append(sum(rule.step(a, b).loss.item() for a, b in zip(x, y)))
        rule.finish()
    assert losses[-1] < 0.7 * losses[0]


def test_ostl_without_h_is_eprop_but_for_the_reset():
    """A soft SNU: its reset is the factor 1 - y."""
    net = random_network(["ssnu"], [3, 4], 2, cell=DeafCell)
    x, y = random_sequence(9, 2, 3, 2, 0)
    without = rule_gradients("ostl", net, x, y, with_h=False)
    assert largest_difference(without, autograd_gradients(net, x, y)) < 1e-10
    assert largest_difference(without, rule_gradients("eprop", net, x, y)) > 1e-3


def test_ostl_with_h_refuses_sizes_beyond_its_bound():
    net = random_network(["ssnu"], [20, 30], 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    rule = build_rule("ostl", net, optimizer, nn.functional.mse_loss, memory_bound=10 * 2**20)
    rule.start(2)
    with pytest.raises(InputError, match=r"batch of 64 need .* GiB.*with_h=False"):
        rule.step(torch.zeros(64, 20, dtype=torch.float64), torch.zeros(64, 2, dtype=torch.float64))
    with pytest.raises(InputError, match="batch of 1 "):
        build_rule("ostl", net, optimizer, nn.functional.mse_loss, memory_bound=2**16)


@pytest.mark.parametrize(("name", "options"), [("ostl", {}), ("ostl", {"with_h": False}), ("eprop", {})])
@pytest.mark.parametrize("kind", ["snu", "alif", "lstm", "gru", "ltc"])
def test_the_stated_memory_is_what_is_held(name, options, kind):
    net, (x, y) = random_network([kind], [12, 8], 2), random_sequence(3, 4, 12, 2, 0)
    rule = build_rule(name, net, torch.optim.SGD(net.parameters(), lr=1.0), nn.functional.mse_loss, **options)
    rule.start(3)
    for a, b in zip(x, y):
        rule.step(a, b)
    big = [t for v in vars(rule.layers[0]).values() for t in (v if isinstance(v, list) else [v])
           if isinstance(t, torch.Tensor)]  # fmt: skip
    held, layer = sum(t.numel() * t.element_size() for t in big), rule.layers[0]
    # what each weight has; one of the whole cell is there three times in the moment it moves on
    share = (layer.local.depth + 1) / (3 * layer.local.depth + 1) if isinstance(layer, JacobianTraces) else 1
    assert held == pytest.approx(share * rule.trace_bytes(4), rel=0.07) and rule.trace_bytes(8) == 2 * rule.trace_bytes(4)


def test_a_carried_state_does_not_lead_around_the_memory_bound():
    net = random_network(["ssnu"], [20, 30], 2)
    rule = build_rule("ostl", net, torch.optim.SGD(net.parameters(), lr=1.0), nn.functional.mse_loss, memory_bound=10 * 2**20)
    x = torch.zeros(64, 20, dtype=torch.float64)
    rule.start(2)
    rule.state = net(x)[1]
    with pytest.raises(InputError, match="batch of 64 need"):
        rule.step(x, torch.zeros(64, 2, dtype=torch.float64))


def test_without_h_there_is_no_h_to_drop():
    net = random_network(["ssnu"], [20, 30], 2)
    with pytest.raises(InputError, match=r"smaller batch or fewer units, or \(in Python\) raise memory_bound"):
        build_rule("ostl", net, torch.optim.SGD(net.parameters(), lr=1.0), nn.functional.mse_loss, memory_bound=2**10, with_h=False)


def test_a_unit_is_left_as_it_was_whatever_happens(monkeypatch):
    net = random_network(["ltc"], [3, 4], 2)
    rule = build_rule("ostl", net, torch.optim.SGD(net.parameters(), lr=1.0), nn.functional.mse_loss)

    def full(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.func, "vmap", full)
    before = dict(vars(net.cells[0].unit))
    rule.start(1)
    with pytest.raises(torch.OutOfMemoryError):
        rule.step(torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64))
    assert vars(net.cells[0].unit) == before and before["fused"]
    with unfused(lstm := dense_cell("lstm", 3, 4).unit):
        assert not hasattr(lstm, "fused")


def test_undefined_pairs_say_why():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    lif, linear = LIFUnit(), nn.Linear(4, 4)

    def refuse(name: str, net: nn.Module, reason: str) -> None:
        with pytest.raises(InputError, match=reason):
            build_rule(name, net, optimizer, nn.functional.mse_loss)

    for name in ("eprop", "ostl", "ottt"):
        refuse(name, linear, "needs a Stack")
        refuse(name, Stack([Cell(linear, lif)], Readout(4, 2, "gated")), "gated readout")
        refuse(name, Stack([Cell(linear, lif)], Readout(4, 2), amp="bf16"), "amp bf16 goes with bptt, fptt and sltt")
        refuse(name, Stack([linear], Readout(4, 2)), "a layer is a Linear, not a Cell")  # type: ignore[list-item]
    for name in ("eprop", "ostl"):
        refuse(name, Stack([Cell(nn.Conv2d(1, 1, 3), lif)], Readout(4, 2)), "Conv2d synapse")
        refuse(name, Stack([Cell(linear, LeakyReLUUnit())], Readout(4, 2)), "no state to trace")
        refuse(name, Stack([Cell(linear, LTCUnit(ConvGate(4)))], Readout(4, 2)), "mixes neighbours")
        refuse(name, Stack([Cell(linear, FadingUnit())], Readout(4, 2)), "FadingUnit units, whose own parameters no trace here follows")
    refuse("ottt", Stack([dense_cell("lif", 4, 4)], Readout(4, 2)), "recurrent")
    refuse("ottt", Stack([dense_cell("alif", 4, 4, recurrent=False)], Readout(4, 2)), "ALIFUnit neurons")
    refuse("ottt", Stack([dense_cell("lif", 4, 4, recurrent=False)], Readout(4, 2, "leaky")), "trace a neuron")
    refuse("ottt", Stack([Cell(nn.Sequential(linear, nn.BatchNorm1d(4)), lif)], Readout(4, 2)), "BatchNorm1d")


class FadingUnit(LIFUnit):
    """LIF neurons whose decay is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(1.0))

    def forward(self, current, state):
        return super().forward(current + torch.sigmoid(self.logit) * state[0], state)


def test_parameters_of_a_unit_of_ones_own_are_learned_through_the_jacobian():
    x, y = random_sequence(9, 2, 3, 2, 0)
    torch.manual_seed(0)
    net = Stack([Cell(nn.Linear(3, 4), FadingUnit(), nn.Linear(4, 4, bias=False))], Readout(4, 2, "leaky", decay=0.6)).double()
    found, wanted = rule_gradients("ostl", net, x, y, jacobian=True), autograd_gradients(net, x, y)
    assert wanted["cells.0.unit.logit"].abs() > 1e-3 and largest_difference(found, wanted) < 1e-10


def test_training_with_ostl_is_training_with_bptt():
    """The published setting in small: a recurrent sSNU layer, batch 1, plain gradient descent, sequences of several lengths."""
    curves = []
    for name in ("ostl", "bptt"):
        net = random_network(["ssnu"], [6, 9], 6, readout="linear", decay=0.4)
        rule = build_rule(name, net, torch.optim.SGD(net.parameters(), lr=0.02), nn.functional.binary_cross_entropy_with_logits)
        losses = []
        for k in range(30):
            x = (random_sequence(8 + 5 * (k % 4), 1, 6, 6, k % 4)[0] > 0).double()
            rule.start(len(x) - 1)
            losses += [rule.step(a, b).loss.item() for a, b in pairwise(x)]
            rule.finish()
        curves.append(losses)
    assert curves[0] == pytest.approx(curves[1], abs=1e-10)
    assert sum(curves[0][-50:]) < 0.95 * sum(curves[0][:50])


class PhotoState(NamedTuple):
    bleach: torch.Tensor
    y: torch.Tensor


class PhotoUnit(nn.Module):
    """A neuron of nobody's: its answer fades with what it has answered."""

    def initial_state(self, current):
        return PhotoState(torch.zeros_like(current), torch.zeros_like(current))

    def forward(self, current, state):
        bleach = 0.9 * state.bleach + 0.1 * state.y**2 + 0.05 * torch.sin(current)
        y = torch.tanh(current * torch.exp(-bleach)) + 0.2 * state.y
        return y, PhotoState(bleach, y)


def test_a_cell_of_ones_own():
    """No closed form, no word about it in the rules: torch.func finds its Jacobian."""
    x, y = random_sequence(15, 2, 3, 2, 0)
    torch.manual_seed(0)
    parts = nn.Linear(3, 4), PhotoUnit(), nn.Linear(4, 4, bias=False)
    net, deaf = (Stack([kind(*parts)], Readout(4, 2, "leaky", decay=0.6)).double() for kind in (Cell, DeafCell))
    deaf.load_state_dict(net.state_dict())
    assert largest_difference(rule_gradients("ostl", net, x, y, 2), autograd_gradients(net, x, y, 2)) < 1e-10
    assert largest_difference(rule_gradients("ostl", net, x, y, 2, jacobian=True), autograd_gradients(net, x, y, 2)) < 1e-10
    assert largest_difference(rule_gradients("eprop", net, x, y, 2), autograd_gradients(deaf, x, y, 2)) < 1e-10
