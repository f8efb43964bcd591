"""Learning rules as objects around an optimizer, and averages of the weights."""

from typing import Protocol

import torch
from torch import Tensor

from spyolo.learning.averaging import EMA, swapped
from spyolo.learning.bptt import BPTT
from spyolo.learning.fptt import FORMS, FPTT, Closure
from spyolo.learning.parts import split_steps


class Rule(Protocol):
    """What a training loop asks of a learning rule."""

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


__all__ = ["BPTT", "EMA", "FORMS", "FPTT", "Closure", "Rule", "split_steps", "swapped"]
