"""What a batch and a test log: where sequences end at different steps, what counts are their own steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spyolo.learning import build_rule
from spyolo.neurons import Readout, Stack, dense_cell
from spyolo.sequence import engine
from spyolo.sequence.batch import Batch
from spyolo.sequence.engine import Log, evaluate, train_batch
from spyolo.sequence.objectives import ACCURACY, BITS, Objective

STEPS, LENGTHS = 6, (6, 2, 3, 2)


def network(cell: str = "lif") -> Stack:
    torch.manual_seed(0)
    options = {"threshold": 0.2} if cell == "lif" else {}
    return Stack([dense_cell(cell, 3, 8, **options)], Readout(8, 5, "linear"))


def batch(objective: Objective, lengths: tuple[int, ...] | None = LENGTHS) -> Batch:
    generator = torch.Generator().manual_seed(1)
    shape = (STEPS, 4) if objective.per_step else (4,)
    inputs, targets = 3 * torch.rand(STEPS, 4, 3, generator=generator), torch.randint(5, shape, generator=generator)
    return Batch(inputs, targets, STEPS, None if lengths is None else torch.tensor(lengths))


def logged(net: nn.Module, objective: Objective, shown: Batch) -> Log:
    """Of a rule that updates nothing: its weights are those of `net` at every step."""
    rule = build_rule("bptt", net, torch.optim.SGD(net.parameters(), 0.0), objective.loss)
    return train_batch(rule, objective, shown, parts=1, supervise="every")


@torch.no_grad()
def seen(net: nn.Module, shown: Batch) -> tuple[Tensor, Tensor]:
    """Outputs [T, B, 5] and spikes [T, B, 8] of all steps."""
    state: Any = None
    outputs, spikes = [], []
    for t in range(STEPS):
        output, state = net(shown.input(t), state)
        outputs.append(output)
        spikes.append(state.cells[0][1])
    return torch.stack(outputs), torch.stack(spikes)


def test_one_label_a_sequence_is_logged_at_the_last_step_of_each():
    net, shown = network(), batch(ACCURACY)
    outputs, spikes = seen(net, shown)
    log = logged(net, ACCURACY, shown)
    own = [outputs[n - 1, b] for b, n in enumerate(LENGTHS)]
    assert float(log.loss) == pytest.approx(float(nn.functional.cross_entropy(torch.stack(own), shown.targets)))
    assert float(log.rate) == pytest.approx(float(torch.stack([spikes[n - 1, b] for b, n in enumerate(LENGTHS)]).mean()))
    assert not log.loss.requires_grad and float(log.loss) > 1  # it was a quarter of that: three have ended by the batch's last step


def test_a_target_a_step_is_logged_over_the_steps_that_there_are():
    net, shown = network(), batch(BITS)
    outputs, _ = seen(net, shown)
    each = [nn.functional.cross_entropy(outputs[t, b], shown.targets[t, b]) for b, n in enumerate(LENGTHS) for t in range(n)]
    assert float(logged(net, BITS, shown).loss) == pytest.approx(float(torch.stack(each).mean()))


@pytest.mark.parametrize("objective", [ACCURACY, BITS], ids=lambda o: o.metric)
@pytest.mark.parametrize("lengths", [None, (STEPS,) * 4])
def test_sequences_of_one_length_log_what_they_always_did(objective, lengths):
    net, shown = network(), batch(objective, lengths)
    outputs, spikes = seen(net, shown)
    if objective.per_step:
        wanted = sum((objective.each(o, y).mean() for o, y in zip(outputs, shown.targets)), torch.zeros(())) / STEPS
    else:
        wanted = objective.each(outputs[-1], shown.targets).mean()
    log = logged(net, objective, shown)
    assert log.loss.equal(wanted) and log.rate.equal(spikes[-1].mean())


def test_firing_rates_of_a_test_are_over_the_steps_that_there_are():
    net, shown = network().eval(), batch(ACCURACY)
    _, spikes = seen(net, shown)
    own = torch.cat([spikes[:n, b] for b, n in enumerate(LENGTHS)])
    assert float(own.mean()) != pytest.approx(float(spikes.mean()), rel=0.01)
    assert evaluate(net, ACCURACY, [shown])["test_rate"] == pytest.approx(float(own.mean()))
    whole = batch(ACCURACY, None)
    assert evaluate(net, ACCURACY, [whole])["test_rate"] == pytest.approx(float(spikes.mean()))


@pytest.mark.parametrize("layers", [1, 2])
def test_a_test_in_one_go_is_the_test_step_by_step(layers, monkeypatch):
    """Hooks see every step, so a network with one is run step by step."""
    torch.manual_seed(3)
    cells = [dense_cell("ltc", n, 6, adaptive=False, threshold=0.2) for n in (3, 6)[:layers]]
    net = Stack(cells, Readout(6, 5, "gated", reads="membrane")).double()
    monkeypatch.setattr(engine, "SPAN", 4)
    shown = [Batch(torch.randn(steps, 7, 3), torch.randint(5, (7,)), steps) for steps in (1, 2, 5, 11)]
    taken: list[int] = []
    monkeypatch.setattr(net, "span", lambda x, *rest: taken.append(len(x)) or Stack.span(net, x, *rest))
    in_one_go = evaluate(net, ACCURACY, shown)
    assert taken == [1, 4, 4, 4, 2]  # all but the last step of each
    net.register_forward_hook(lambda *_: None)
    wanted = evaluate(net, ACCURACY, shown)
    assert not net.can_span and 0.05 < wanted["test_rate"] < 0.95
    assert in_one_go == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("objective", [ACCURACY, BITS], ids=lambda o: o.metric)
def test_a_log_lies_on_one_device_though_the_neurons_do_not_spike(objective):
    """The trainer stacks loss and rate. The device `meta` keeps to its own as a GPU does."""
    shown = batch(objective, None).to(torch.device("meta"))
    log = logged(network("gru").to("meta"), objective, shown)
    assert log.loss.device.type == log.rate.device.type == "meta"
