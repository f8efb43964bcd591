"""The interface of the sequence rules, and the rules that are autograd over a window."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import autograd_gradients, largest_difference, random_network, random_sequence, rule_gradients
from torch import Tensor, nn

from spyolo.learning import FORMS, FPTT, build_rule, split_steps
from spyolo.neurons import DENSE, Readout, Stack, dense_cell
from spyolo.neurons.readout import READOUTS

T, B, INPUTS, N, CLASSES = 6, 3, 4, 5, 2


def network(kind: str = "ltc", **options) -> Stack:
    torch.manual_seed(0)
    return Stack([dense_cell(kind, INPUTS, N, **options), dense_cell(kind, N, N, **options)], Readout(N, CLASSES, "leaky")).double()


def sequence() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return 2 * torch.randn(T, B, INPUTS, dtype=torch.float64), torch.randint(CLASSES, (B,))


def show(rule, x: Tensor, target: Tensor) -> list[Tensor]:
    rule.start(len(x))
    losses = [rule.step(x_t, target).loss for x_t in x]
    rule.finish()
    return losses


def weights(net: nn.Module) -> Tensor:
    return torch.cat([w.detach().flatten() for w in net.parameters()])


def grads(net: nn.Module) -> Tensor:
    return torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in net.parameters()])


def test_how_a_rule_is_used():
    """The whole training loop of a sequence task; it learns."""
    net, (x, target) = network(threshold=0.3), sequence()
    rule = build_rule("fptt", net, torch.optim.Adam(net.parameters(), lr=0.02), nn.functional.cross_entropy, clip=1.0)
    first = sum(show(rule, x, target))
    for _ in range(60):
        last = sum(show(rule, x, target))
    rule.end_epoch()
    assert last < 0.5 * first


@pytest.mark.parametrize(("parts", "asked"), [(1, {9}), (2, {4, 9}), (5, {1, 3, 5, 7, 9}), (5, {9}), ("all", {4, 9})])
@pytest.mark.parametrize("name", ["bptt", "fptt"])
def test_skimming_is_stepping(name, parts, asked):
    """Steps without a target in one go, across the ends of parts too: the same weights after it, in float64."""
    torch.manual_seed(1)
    xs, target, found = 2 * torch.randn(10, B, INPUTS, dtype=torch.float64), torch.randint(CLASSES, (B,)), []
    for skims in (True, False):
        net = network(adaptive=False, threshold=0.3)
        rule = build_rule(name, net, torch.optim.Adam(net.parameters(), lr=0.02), nn.functional.cross_entropy, parts=parts)
        assert rule.skims
        rule.start(len(xs))
        before = 0
        for t in range(len(xs)):
            if t in asked:
                if skims and before < t:
                    rule.skim(xs[before:t])
                rule.step(xs[t], target)
                before = t + 1
            elif not skims:
                rule.step(xs[t])
        with pytest.raises(RuntimeError, match="beyond the last step"):
            rule.skim(xs[:1])
        rule.finish()
        found.append(weights(net))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "options", "adaptive"), [("fptt", {"form": "paper"}, False), ("sltt", {}, False), ("bptt", {}, True), ("eprop", {}, False)]
)
def test_what_cannot_be_skimmed_is_stepped(name, options, adaptive):
    """Form `paper` runs each part a second time, SLTT and traces follow every step, and adaptive neurons know no spans."""
    torch.manual_seed(1)
    xs, target, found = 2 * torch.randn(6, B, INPUTS, dtype=torch.float64), torch.randint(CLASSES, (B,)), []
    for skim in (True, False):
        net = network(adaptive=adaptive, threshold=0.3)
        rule = build_rule(name, net, torch.optim.Adam(net.parameters(), lr=0.02), nn.functional.cross_entropy, **options)
        assert not rule.skims
        rule.start(6)
        if skim:
            rule.skim(xs[:5])
        for x_t in () if skim else xs[:5]:
            rule.step(x_t)
        rule.step(xs[5], target)
        rule.finish()
        found.append(weights(net))
    assert found[0].equal(found[1])


@pytest.mark.parametrize("kind", DENSE)
def test_bptt_is_autograd(kind):
    net, (x, target) = network(kind), sequence()
    state, loss = None, 0.0
    for x_t in x:
        output, state = net(x_t, state)
        loss = loss + nn.functional.cross_entropy(output, target)
    loss.backward()
    expected = grads(net)
    net.zero_grad()
    rule = build_rule("bptt", net, torch.optim.SGD(net.parameters(), lr=1.0), nn.functional.cross_entropy)
    rule.hold = True
    show(rule, x, target)
    torch.testing.assert_close(grads(net), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("form", ["feddyn", "paper", "reference"])
def test_fptt_with_one_part_has_the_gradient_of_bptt(form):
    """lambda and W - W_bar are zero before the first update: that update is BPTT's."""
    results = []
    for name, options in (("bptt", {}), ("fptt", {"parts": 1, "form": form})):
        net, (x, target) = network(), sequence()
        show(build_rule(name, net, torch.optim.SGD(net.parameters(), lr=0.1), nn.functional.cross_entropy, **options), x, target)
        results.append(weights(net))
    torch.testing.assert_close(*results, rtol=0, atol=1e-14)


def test_online_fptt_is_the_detectors_object_after_each_step():
    """Written out: detach, forward, backward, FPTT.step()."""
    net, (x, target) = network(), sequence()
    update, state = FPTT(torch.optim.SGD(net.parameters(), lr=0.1), 0.3), None
    for x_t in x:
        output, state = net(x_t, state)
        nn.functional.cross_entropy(output, target).backward()
        update.step()
        update.optimizer.zero_grad()
        state = type(state)(tuple(type(s)(*(v.detach() for v in s)) for s in state.cells), state.readout.detach())
    expected = weights(net)
    net = network()
    show(build_rule("fptt", net, torch.optim.SGD(net.parameters(), lr=0.1), nn.functional.cross_entropy, alpha=0.3), x, target)
    torch.testing.assert_close(weights(net), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("mean", [False, True])
def test_the_second_pass_of_paper_is_the_gradient_at_the_new_weights(mean):
    """Over the same part, from the state that it began with: what lambda then holds."""
    net, (x, target) = network(), sequence()
    rule = build_rule("fptt", net, torch.optim.SGD(net.parameters(), lr=0.1), nn.functional.cross_entropy, form="paper", parts=2, mean=mean)
    seen = []

    def keep() -> None:  # right after an update
        state, total = began.pop(), 0.0
        for x_t in x[len(seen) * T // 2 :][: T // 2]:
            output, state = net(x_t, state)
            total = total + nn.functional.cross_entropy(output, target) / (T // 2 if mean else 1)
        seen.append(torch.cat([g.flatten() for g in torch.autograd.grad(total, list(net.parameters()))]))
        torch.testing.assert_close(torch.cat([g.flatten() for g in rule.update.lam]), seen[-1], rtol=0, atol=1e-12)

    rule.after_update = keep
    rule.start(T)
    for t in range(T):
        if t % (T // 2) == 0:
            began = [rule.state]
        rule.step(x[t], target)
    rule.finish()
    assert len(seen) == 2 and not torch.allclose(*seen)


def test_parts_of_any_length_pull_equally_hard_with_mean():
    net, (x, target) = network(), sequence()
    rule = build_rule("bptt", net, torch.optim.SGD(net.parameters(), lr=1.0), nn.functional.cross_entropy)
    rule.hold = True
    show(rule, x, target)
    total = grads(net)
    net.zero_grad()
    rule.mean = True
    show(rule, x, target)
    torch.testing.assert_close(grads(net) * T, total)


@pytest.mark.parametrize("name", ["bptt", "sltt", "ostl"])
def test_held_means_add_up_over_parts_and_batches(name):
    """Each part's mean is of its own steps: nothing that was held before is divided again, nor left out by a part without a target."""
    (x, target), found = sequence(), []
    for mean in (True, False):
        net = network()
        rule = build_rule(name, net, torch.optim.SGD(net.parameters(), lr=1.0), nn.functional.cross_entropy, parts=3, mean=mean)
        rule.hold = True
        for _ in range(2):
            rule.start(T)
            for t in range(T):
                rule.step(x[t], target if t < 4 else None)  # the last part has none
            rule.finish()
        found.append(grads(net))
    torch.testing.assert_close(found[0] * 2, found[1])  # parts of two steps


def test_steps_without_a_target_have_no_loss_and_a_part_without_one_no_update():
    net, (x, target) = network(), sequence()
    rule, updates = build_rule("fptt", net, torch.optim.SGD(net.parameters(), lr=0.1), nn.functional.cross_entropy), []
    rule.after_update = lambda: updates.append(1)
    rule.start(T)
    before = weights(net)
    for x_t in x[:-1]:
        assert rule.step(x_t).loss is None
    assert torch.equal(weights(net), before) and not updates
    assert rule.step(x[-1], target, weight=0.5).loss is not None
    rule.finish()
    assert len(updates) == 1 and not torch.equal(weights(net), before)


def test_a_sequence_that_stops_early_updates_on_what_it_showed():
    net, (x, target) = network(), sequence()
    rule = build_rule("bptt", net, torch.optim.SGD(net.parameters(), lr=0.1), nn.functional.cross_entropy)
    before = weights(net)
    rule.start(T)
    rule.step(x[0], target)
    rule.finish()
    assert not torch.equal(weights(net), before)
    with pytest.raises(RuntimeError, match="start"):
        rule.step(x[1], target)


def test_sltt_has_no_gradient_through_time():
    net, (x, target) = network(), sequence()
    state = None
    for x_t in x:
        output, state = net(x_t, state)
        nn.functional.cross_entropy(output, target).backward()
        state = type(state)(tuple(type(s)(*(v.detach() for v in s)) for s in state.cells), state.readout.detach())
    expected = grads(net)
    net.zero_grad()
    rule = build_rule("sltt", net, torch.optim.SGD(net.parameters(), lr=0.1), nn.functional.cross_entropy)
    rule.hold = True
    show(rule, x, target)
    torch.testing.assert_close(grads(net), expected, rtol=1e-12, atol=1e-14)


def test_sltt_k_learns_at_k_steps():
    net, (x, target) = network(), sequence()
    seen = []
    rule = build_rule("sltt", net, torch.optim.SGD(net.parameters(), lr=0.1), nn.functional.cross_entropy, steps=2)
    net.readout.linear.weight.register_hook(lambda g: seen.append(1))
    show(rule, x, target)
    assert len(seen) == 2


@pytest.mark.parametrize("asked", [[5], [1, 3, 5], range(T)])
def test_sltt_k_draws_among_the_steps_with_a_target_and_mean_divides_by_those_it_learned_at(asked):
    net, (x, target) = network(), sequence()
    rule, seen = build_rule("sltt", net, torch.optim.SGD(net.parameters(), lr=0.1), nn.functional.cross_entropy, steps=2, mean=True), []
    net.readout.linear.bias.register_hook(seen.append)
    rule.hold = True
    rule.start(T, targets=len(asked))
    for t in range(T):
        rule.step(x[t], target if t in asked else None)
    rule.finish()
    assert len(seen) == min(2, len(asked))
    torch.testing.assert_close(net.readout.linear.bias.grad, sum(seen) / len(seen))


def test_names_and_options_that_make_no_sense():
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="rule must be one of bptt"):
        build_rule("hebb", net, optimizer, nn.functional.cross_entropy)
    with pytest.raises(TypeError, match="alpha and form are FPTT's; bptt has neither"):
        build_rule("bptt", net, optimizer, nn.functional.cross_entropy, alpha=0.1)
    with pytest.raises(ValueError, match="parts"):
        build_rule("bptt", net, optimizer, nn.functional.cross_entropy, parts=0)
    with pytest.raises(ValueError, match="number of steps, 6"):
        build_rule("fptt", net, optimizer, nn.functional.cross_entropy, parts=7).start(6)


SIZES = {
    "kinds": st.lists(st.sampled_from(DENSE), min_size=1, max_size=2), "inputs": st.integers(1, 5), "units": st.integers(1, 6),
    "outputs": st.integers(1, 3), "batch": st.integers(1, 3), "readout": st.sampled_from(READOUTS), "recurrent": st.booleans(),
    "seed": st.integers(0, 10**6),
}  # fmt: skip
few = settings(max_examples=25, deadline=None, derandomize=True)


def drawn(kinds, inputs, units, outputs, batch, readout, recurrent, seed, timesteps) -> tuple[Stack, Tensor, Tensor]:
    sizes = [inputs, *(units + i for i in reversed(range(len(kinds))))]
    net = random_network(kinds, sizes, outputs, recurrent=recurrent, readout=readout, seed=seed)
    return net, *random_sequence(timesteps, batch, inputs, outputs, seed)


@few
@given(lengths=st.lists(st.integers(1, 8), min_size=1, max_size=3), form=st.sampled_from(FORMS), **SIZES)
def test_fptt_k_has_the_gradient_of_bptt_inside_each_part(lengths, form, **sizes):
    """Plain autograd with the state detached between parts, which is truncated BPTT, and BPTT with one part. The first update is then plain
    gradient descent."""
    plan = split_steps(sum(lengths), len(lengths))
    net, x, y = drawn(**sizes, timesteps=sum(plan))
    wanted = autograd_gradients(net, x, y, cuts=list(accumulate(plan)))
    for name, options in (("bptt", {}), ("fptt", {"form": form})):
        assert largest_difference(rule_gradients(name, net, x, y, parts=len(plan), **options), wanted) < 1e-10
    before, first = weights(net), autograd_gradients(net, x[: plan[0]], y)
    rule = build_rule("fptt", net, torch.optim.SGD(net.parameters(), lr=0.1), nn.functional.mse_loss, parts=len(plan), form=form)
    rule.start(len(x))
    for t in range(plan[0]):
        rule.step(x[t], y[t], weight=1.0 + 0.1 * t)
    torch.testing.assert_close(weights(net), before - 0.1 * torch.cat([g.flatten() for g in first.values()]), rtol=1e-10, atol=1e-10)


@few
@given(timesteps=st.integers(1, 12), skip=st.integers(0, 11), **SIZES)
def test_sltt_is_bptt_with_every_step_cut_off(timesteps, skip, **sizes):
    net, x, y = drawn(**sizes, timesteps=timesteps)
    skip = min(skip, timesteps - 1)
    wanted = autograd_gradients(net, x, y, skip, cuts=range(timesteps))
    assert largest_difference(rule_gradients("sltt", net, x, y, skip), wanted) < 1e-10
