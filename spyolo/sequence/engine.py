"""The two things a sequence network does: learn from a batch, step by step, and be judged on a test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spyolo.learning import SequenceRule, split_steps
from spyolo.neurons import Stack, StackState, first_not_finite, fresh_statistics, sum_of
from spyolo.sequence.batch import Batch
from spyolo.sequence.objectives import Objective, Tally, Truth

SPAN = 32  # steps that evaluation takes in one go: what it keeps of them is small


class Log(NamedTuple):
    """What a batch left, without graph."""

    loss: Tensor  # mean over all steps with a target (of one target a sequence: over the sequences, at the last step of each)
    rate: Tensor  # mean output of the last layer at each sequence's last step: the firing rate of spiking neurons


class Ask(NamedTuple):
    """One step's question."""

    weight: float  # of its loss
    part: int  # of the sequence, as the auxiliary loss counts them; 0 where there is none


def questions(timesteps: int, parts: int, supervise: str) -> dict[int, Ask]:
    """Steps at which the one target of a sequence is asked for.

    Args:
        parts: updates a sequence.
        supervise: `last`; `parts`: the end of each of P parts with weight (p + 1) / P; `every`: all steps alike; `auxiliary`: as `parts`
            with weight 1 (the auxiliary loss weighs itself).
    """
    if supervise == "every":
        return {t: Ask(1.0, 0) for t in range(timesteps)}
    if supervise == "last":
        return {timesteps - 1: Ask(1.0, 0)}
    found, end = {}, 0
    for p, steps in enumerate(split_steps(timesteps, parts)):
        end += steps
        found[end - 1] = Ask(1.0 if supervise == "auxiliary" else (p + 1) / parts, p)
    return found


def train_batch(
    rule: SequenceRule, objective: Objective, batch: Batch, *, parts: int, supervise: str = "parts", auxiliary: Any = None,
    state: Any = None,
) -> Log:  # fmt: skip
    """Show a batch step by step (or in one go up to the next question, where the rule can); the rule updates the network as it goes.

    Args:
        parts: updates a sequence (no more than it has steps).
        supervise: see `questions`; tasks with a target a step are asked at every step.
        auxiliary: Kag & Saligrama's loss, where `supervise` says so.
        state: of the neurons, to go on from; None: at rest.
    """
    asked = {} if objective.per_step else questions(batch.timesteps, parts, supervise)
    rule.start(batch.timesteps, batch.timesteps if objective.per_step else len(asked))
    rule.state = state
    total, count = torch.zeros(()), 0
    ends = Ends() if batch.ragged else None
    skims, shown = ends is None and rule.skims, 0
    for t in range(batch.timesteps):
        ask = Ask(1.0, 0) if objective.per_step else asked.get(t)
        if ask is None and skims:
            continue  # up to the next question in one go; the last step is always asked
        if shown < t:
            rule.skim(as_weights(rule.network, batch.inputs_of(shown, t)))
        shown = t + 1
        x, valid = as_weights(rule.network, batch.input(t)), batch.valid(t)
        y = batch.targets[t] if objective.per_step else batch.targets
        if ask is None:
            seen = rule.step(x)
        elif auxiliary is not None:
            seen = rule.step(x, y, ask.weight, auxiliary.at(ask.part))
            auxiliary.update(seen.output, y, ask.part)
        else:
            seen = rule.step(x, Truth(y, valid), ask.weight)
        if seen.loss is not None:
            total, count = (total + seen.loss, count + 1) if objective.per_step else (seen.loss, 1)
        if ends is not None:
            ends.add(seen.output, rule.state, valid)
    rule.finish()
    if ends is not None:
        return ends.log(objective, batch, total)
    loss = (total / max(1, count)).detach()
    return Log(loss, last_output(rule.state, loss))


class Ends:
    """What sequences of different lengths show at the last step of each. At the batch's last step most of them are padding. Two running
    tensors, however many steps there are."""

    def __init__(self) -> None:
        self.output: Tensor | None = None  # [B, outputs]
        self.rate: Tensor | None = None  # [B, 1]

    def add(self, output: Tensor, state: Any, valid: Tensor | None) -> None:
        self.output = gathered(self.output, output, valid, "last")
        fields = output_field(state)
        if fields is not None:
            self.rate = gathered(self.rate, of_each(fields), valid, "last")

    def log(self, objective: Objective, batch: Batch, total: Tensor) -> Log:
        """`total`: of a target a step, the sum of `Objective.loss`, each a sum divided by the whole batch."""
        assert self.output is not None and batch.lengths is not None
        loss = total * batch.size / batch.lengths.sum() if objective.per_step else objective.each(self.output, batch.targets).mean()
        return Log(loss, loss.new_zeros(()) if self.rate is None else self.rate.mean())


@torch.no_grad()
def not_finite(network: nn.Module, state: Any, memory: Mapping[str, Tensor] | None = None) -> str:
    """The first layer whose state, or the first weight or norm statistic, that holds NaN or infinity; empty where all is well. A membrane
    that is NaN never spikes, so the loss alone does not tell.

    Args:
        memory: what else to look at, by name: what a rule's update keeps.
    """
    sums = {f"the state of cells.{i}": sum_of(cell) for i, cell in enumerate(getattr(state, "cells", ())) if cell is not None}
    sums |= {f"the weight {name}": w.sum() for name, w in network.named_parameters()}
    sums |= {name: b.sum() for name, b in network.named_buffers() if b.is_floating_point()}
    return first_not_finite(sums | {name: v.sum() for name, v in (memory or {}).items()})


def output_field(state: Any) -> Tensor | None:
    """The last layer's output field [B, ...], without graph; None where there is none to be found."""
    cells = getattr(state, "cells", None)
    if not cells or cells[-1] is None or len(cells[-1]) < 2:
        return None
    field: Tensor = cells[-1][1].detach().float()
    return field


def last_output(state: Any, like: Tensor) -> Tensor:
    """Mean of the last layer's output field; where there is none to be found 0, on the device of `like`."""
    field = output_field(state)
    return torch.zeros((), device=like.device) if field is None else field.mean()


def of_each(field: Tensor) -> Tensor:
    """Mean of a state's field [B, ...] over each sequence's neurons, [B, 1]."""
    return field.flatten(1).mean(1, keepdim=True)


@torch.no_grad()
def evaluate(
    network: nn.Module, objective: Objective, batches: Iterable[Batch], *, predict: str = "last", device: torch.device | str = "cpu"
) -> dict[str, float]:
    """The published figure over a test, beside the mean loss and the firing rates of its neurons. The network is left in the mode (training
    or evaluation) in which it came.

    Args:
        predict: a sequence's output is its `last` (that counts), or the `mean` of all.
    """
    training = network.training
    network.eval()
    tally, rates = Tally(objective), Rates()
    state: Any = None
    skips = predict == "last" and not objective.per_step  # what the network shows before the last step
    for moved in batches:
        batch = moved.to(torch.device(device))
        state, first = None if batch.fresh else state, 0
        if skips and not batch.ragged and type(network) is Stack and network.can_span:
            state, first = skimmed(network, batch, state, rates), batch.timesteps - 1
        shown: Tensor | None = None
        for t in range(first, batch.timesteps):
            output, state = network(as_weights(network, batch.input(t)), state)
            valid = batch.valid(t)
            rates.add(state, valid)
            if objective.per_step:
                tally.add(output, Truth(batch.targets[t], valid))
                continue
            shown = gathered(shown, output, valid, predict)
        if shown is not None:
            tally.add(shown / steps_of(batch) if predict == "mean" else shown, Truth(batch.targets))
    network.train(training)
    return {objective.metric: tally.value(), "test_loss": tally.loss / max(1, tally.count), "test_rate": rates.mean()}


def skimmed(network: Stack, batch: Batch, state: StackState | None, rates: Rates) -> StackState | None:
    """The state before a batch's last step, `SPAN` steps in one go."""
    for first in range(0, batch.timesteps - 1, SPAN):
        last, spikes = min(first + SPAN, batch.timesteps - 1), list[Tensor]()
        state = network.span(as_weights(network, batch.inputs_of(first, last)), state, spikes)
        rates.add_all(spikes)
    return state


def gathered(shown: Tensor | None, output: Tensor, valid: Tensor | None, predict: str) -> Tensor:
    """Each sequence's output so far [B, outputs]: the last one that counts, or (`mean`) the sum of those that do."""
    if shown is None:
        return output.clone()
    new = shown + output if predict == "mean" else output
    return new if valid is None else torch.where(valid[:, None], new, shown)


def steps_of(batch: Batch) -> Tensor | int:
    """Steps of each sequence that count, [B, 1]; one number where they are alike."""
    return batch.timesteps if batch.lengths is None else batch.lengths[:, None]


class Rates:
    """Mean output of all layers over all steps that count, of all sequences alike: the firing rate, where neurons spike."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []
        self.count: Tensor | int = 0  # steps of sequences

    def add(self, state: Any, valid: Tensor | None = None) -> None:
        """`valid` [B]: the sequences that have this step; None: all."""
        cells = getattr(state, "cells", ())
        each = [of_each(c[1].float()) for c in cells if c is not None and len(c) > 1]
        if each and valid is None:
            self._add([f.sum() for f in each], len(each[0]))
        elif each and valid is not None:
            self._add([(f * valid[:, None]).sum() for f in each], valid.sum())

    def add_all(self, outputs: list[Tensor]) -> None:
        """Each layer's output over several steps, [T, B, n]."""
        count = outputs[0].shape[0] * outputs[0].shape[1]
        self._add([o.mean(dtype=torch.float32) * count for o in outputs], count)

    def _add(self, sums: list[Tensor], count: Tensor | int) -> None:
        self.sums = [a + b for a, b in zip(self.sums, sums)] if self.sums else sums
        self.count = self.count + count

    def mean(self) -> float:
        return float(torch.stack(self.sums).mean() / self.count) if self.sums else 0.0


def as_weights(network: nn.Module, x: Tensor) -> Tensor:
    """Inputs in the precision of the weights; token numbers as they are."""
    return x if x.dtype == torch.int64 else x.to(next(network.parameters()).dtype)


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Batch]) -> None:
    """Take the norms' running statistics anew over whole sequences, as plain means: averaged weights have none of their own."""
    with fresh_statistics(network):
        for batch in batches:
            state: Any = None
            for t in range(batch.timesteps):
                _, state = network(as_weights(network, batch.input(t)), state)
