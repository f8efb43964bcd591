"""What a task asks: how an output is compared with the truth while learning, and by which published figure it is judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Truth(NamedTuple):
    """A step's target."""

    y: Tensor  # [B] classes, [B] or [B, outputs] numbers
    valid: Tensor | None = None  # bool [B]: sequences that have this step; None: all


Each = Callable[[Tensor, Tensor], Tensor]  # output [B, outputs], y -> loss of each sequence [B]


def classes(output: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of logits [B, classes] and classes int64 [B] -> [B], in nats."""
    return F.cross_entropy(output, y, reduction="none")


def numbers(output: Tensor, y: Tensor) -> Tensor:
    """Squared error of one number a sequence, output [B, 1] and y [B] -> [B]."""
    return (output.squeeze(-1) - y).square()


def keys(output: Tensor, y: Tensor) -> Tensor:
    """Sigmoid cross-entropy summed over the keys, a chord's negative log-likelihood: logits and y (0 or 1) [B, keys] -> [B], in nats."""
    return F.binary_cross_entropy_with_logits(output, y.to(output.dtype), reduction="none").sum(-1)


@dataclass(frozen=True)
class Objective:
    """A comparison and its figure.

    Attributes:
        each: loss of each sequence at a step.
        metric: name of the figure: accuracy, mse, nll, bits (a character) or perplexity.
        per_step: whether there is a target at each step (else one for the whole sequence).
        higher: whether more is better.
    """

    each: Each
    metric: str
    per_step: bool
    higher: bool = False

    def better(self, figure: float, than: float | None) -> bool:
        """Whether a figure beats another; None, or no number: there is none yet."""
        return than is None or math.isnan(than) or (figure > than if self.higher else figure < than)

    def loss(self, output: Tensor, truth: Truth) -> Tensor:
        """What a step adds to the batch's loss, a scalar: the sum over the sequences that have this step, divided by the whole batch.

        It is what is learned from; while sequences end it falls by itself, so it is no mean to be logged.
        """
        loss = self.each(output, truth.y)
        if truth.valid is None:
            return loss.mean()
        return (loss * truth.valid).sum() / len(loss)  # over the whole batch: a sequence that has ended pulls at nothing


ACCURACY = Objective(classes, "accuracy", per_step=False, higher=True)
MSE = Objective(numbers, "mse", per_step=False)
NLL = Objective(keys, "nll", per_step=True)
BITS = Objective(classes, "bits", per_step=True)
PERPLEXITY = Objective(classes, "perplexity", per_step=True)


class Tally:
    """Adds up an evaluation; `value()` is the objective's figure over everything seen."""

    def __init__(self, objective: Objective) -> None:
        self.objective, self.total, self.loss, self.count = objective, 0.0, 0.0, 0

    def add(self, output: Tensor, truth: Truth) -> None:
        """output [B, outputs] of a step with a target (or of the whole sequence)."""
        each = self.objective.each(output, truth.y)
        right = (output.argmax(-1) == truth.y) if self.objective.metric == "accuracy" else each
        chosen = slice(None) if truth.valid is None else truth.valid
        self.loss += float(each[chosen].sum(dtype=torch.float64))
        self.total += float(right[chosen].sum(dtype=torch.float64))
        self.count += right[chosen].numel()

    def value(self) -> float:
        mean = self.total / max(1, self.count)
        if self.objective.metric == "bits":
            return mean / math.log(2)
        return math.exp(min(mean, 700.0)) if self.objective.metric == "perplexity" else mean
