"""Backpropagation through time, behind the interface of FPTT: what it costs and buys is then one option away."""

from __future__ import annotations

import torch
from torch import Tensor

from spyolo.learning.fptt import Closure, clip_, weights_of


class BPTT:
    """Plain optimizer steps. With one part it is BPTT over the whole sequence; with K parts, truncated BPTT. `clip` as in FPTT."""

    name = "bptt"
    needs_closure = False

    def __init__(self, optimizer: torch.optim.Optimizer, *, clip: float | None = None) -> None:
        self.optimizer, self.clip = optimizer, clip
        self.weights = weights_of(optimizer)
        self.average = self.weights  # no running average: W is all there is

    def step(self, closure: Closure | None = None) -> None:
        if all(w.grad is None for w in self.weights):
            raise RuntimeError("BPTT.step() found no gradients: call backward() first")
        clip_(self.weights, self.clip)
        self.optimizer.step()

    def end_epoch(self) -> None:
        """Nothing happens between epochs."""

    def restart(self) -> None:
        """Nothing to forget."""

    def state_dict(self) -> dict[str, list[Tensor]]:
        return {}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Nothing to load."""
