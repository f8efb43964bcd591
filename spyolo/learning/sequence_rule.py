"""One interface for every learning rule of sequences: shown one step at a time, a rule updates the network as it goes.

    rule = build_rule("fptt", network, optimizer, loss)
    for batch in batches:
        rule.start(timesteps)
        for x, target in batch:                  # x [B, ...]; target None at steps that have no loss
            seen = rule.step(x, target)          # seen.output [B, outputs], seen.loss
        rule.finish()
    rule.end_epoch()

A sequence is cut into `parts`; an update ends each. The gradient of a part is that of the sum over its steps of weight_t loss(output_t,
target_t) (of its mean with `mean`), or the rule's approximation of it. Inputs come one by one, so a rule that keeps no graph between
steps needs memory that does not grow with the sequence.

A rule is two things: what makes the gradient (subclasses of `SequenceRule`), and what takes it (`update`: `BPTT`, which is the plain
optimizer, or `FPTT`, the very objects that train the detector).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from spyolo.learning.fptt import Closure
from spyolo.learning.parts import steps_of_part

Loss = Callable[[Tensor, Any], Tensor]  # (output [B, outputs], target) -> scalar, a mean over the batch


class Update(Protocol):
    """What takes a gradient: BPTT (a plain optimizer step, clipped) or FPTT."""

    name: str
    needs_closure: bool
    optimizer: torch.optim.Optimizer
    weights: list[Tensor]
    average: list[Tensor]

    def step(self, closure: Closure | None = None) -> None: ...
    def end_epoch(self) -> None: ...
    def restart(self) -> None: ...
    def state_dict(self) -> dict[str, list[Tensor]]: ...
    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None: ...


class Seen(NamedTuple):
    """What a step showed, without graph."""

    output: Tensor  # [B, outputs]
    loss: Tensor | None  # scalar, unweighted; None where there was no target


class SequenceRule(ABC):
    """Base of the rules; see the module for how it is driven.

    Args:
        network: a `Stack`, or (rules that only use autograd) any module `network(x, state) -> (output, state)`.
        update: what takes the gradients.
        loss: (output, target) -> scalar; a step may bring its own.
        parts: updates a sequence: a number, or `all` for one after each step.
        mean: divide a part's gradient by its number of steps with a target, so that parts of any length pull equally hard.

    Attributes:
        state: the network's state after the last step, without graph where the rule keeps none. Set it after `start` to go on from one.
        hold: True leaves each part's gradient in `.grad` and updates nothing: to look at gradients (they add up over the parts).
        after_update: called after each update.
    """

    name = "rule"

    def __init__(self, network: nn.Module, update: Update, loss: Loss, *, parts: int | str = 1, mean: bool = False) -> None:
        if not (parts == "all" or (isinstance(parts, int) and parts >= 1)):
            raise ValueError(f"parts must be a number from 1, or 'all'; got {parts!r}")
        self.network, self.update, self.loss, self.parts, self.mean = network, update, loss, parts, mean
        self.hold = False
        self.after_update: Callable[[], None] = lambda: None
        self.state: Any = None
        self._part = self._parts = 0
        self._earlier: list[Tensor | None] = []  # gradients that are set aside

    def check_batch(self, batch: int) -> None:  # noqa: B027 (most rules have no bound)
        """Raises InputError where a batch of so many sequences cannot be held in memory; asked before anything is learned."""

    def start(self, timesteps: int, targets: int | None = None) -> None:
        """Begin a batch of sequences of `timesteps` steps, neurons at rest.

        Args:
            targets: how many of the steps will have a target; None: all. Only SLTT-K asks.

        Raises:
            ValueError: more parts than steps.
        """
        self.state, self.timesteps, self.targets = None, timesteps, timesteps if targets is None else targets
        self._part, self._parts = 0, timesteps if self.parts == "all" else int(self.parts)
        self._length = steps_of_part(timesteps, self._parts, 0)
        self._steps = self._targets = 0
        if not self.hold:
            self.update.optimizer.zero_grad(set_to_none=True)
        self._put_back()
        self._set_aside()
        self._begin()

    def step(self, x: Tensor, target: Any = None, weight: float = 1.0, loss: Loss | None = None) -> Seen:
        """Show one step; where it ends a part that had a target, update.

        Args:
            x: input of this step [B, ...].
            target: what `loss` compares the output to; None: no loss at this step.
            weight: of this step's loss in the part's.
            loss: instead of the rule's own, for this step.

        Raises:
            RuntimeError: `start` was not called, or announced fewer steps.
        """
        if self._part >= self._parts:
            raise RuntimeError("step() after the last step: call start(timesteps) first")
        seen = self._advance(x, target, weight, loss or self.loss)
        self._steps += 1
        self._targets += target is not None
        if self._steps == self._length:
            self._end_part()
        return seen

    @property
    def skims(self) -> bool:
        """Whether `skim` takes several steps in one go."""
        return False

    def skim(self, x: Tensor) -> None:
        """Show steps that have no target, x [steps, B, ...], as `step` on each of them would.

        Raises:
            RuntimeError: more steps than `start` announced.
        """
        if not self.skims:
            for x_t in x:
                self.step(x_t)
            return
        while len(x):
            if self._part >= self._parts:
                raise RuntimeError("skim() beyond the last step: call start(timesteps) first")
            now, x = x[: self._length - self._steps], x[self._length - self._steps :]
            self._pass(now)
            self._steps += len(now)
            if self._steps == self._length:
                self._end_part()

    def finish(self) -> None:
        """End the batch; a sequence that stopped early updates on what it showed."""
        if self._part < self._parts and self._steps:
            self._end_part()
        self._put_back()
        self._part = self._parts

    def end_epoch(self) -> None:
        self.update.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """What the rule itself learns, beside the network, the optimizer and `update` (e-prop's feedback)."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Inverse of `state_dict`."""

    def _end_part(self) -> None:
        if self._targets:
            self._gather()
            if self.mean and self._targets > 1:
                torch._foreach_div_([w.grad for w in self.update.weights if w.grad is not None], float(self._targets))
        self._put_back()
        if self._targets and not self.hold:
            self.update.step(self._again if self.update.needs_closure else None)
            self.update.optimizer.zero_grad(set_to_none=True)
            self.after_update()
        self._close()
        self._part += 1
        if self._part < self._parts:
            self._set_aside()
        self._length = steps_of_part(self.timesteps, self._parts, self._part)
        self._steps = self._targets = 0

    def _set_aside(self) -> None:
        """Held gradients of earlier parts and batches, so that the mean over a part's steps is taken of its own alone."""
        if self.hold and self.mean:
            self._earlier = [w.grad for w in self.update.weights]
            for w in self.update.weights:
                w.grad = None

    def _put_back(self) -> None:
        for w, grad in zip(self.update.weights, self._earlier):
            if grad is not None:
                w.grad = grad if w.grad is None else grad + w.grad
        self._earlier = []

    def _begin(self) -> None:  # noqa: B027 - most rules have nothing to do here
        """A new batch."""

    @abstractmethod
    def _advance(self, x: Tensor, target: Any, weight: float, loss: Loss) -> Seen:
        """Run the network one step and learn from it what the rule can."""

    def _pass(self, x: Tensor) -> None:  # noqa: B027 - most rules do not skim
        """Run the network over steps without a target, x [steps, B, ...], all of one part; for rules that skim."""

    def _gather(self) -> None:  # noqa: B027 - most rules have nothing to do here
        """Bring the part's gradient into `.grad`, where it is not there yet."""

    def _again(self) -> None:
        """The part's gradient once more, at the present weights."""
        raise ValueError(f"FPTT's form 'paper' needs a second pass over the part, which {self.name} does not keep")

    def _close(self) -> None:  # noqa: B027 - most rules have nothing to do here
        """A part is over."""
