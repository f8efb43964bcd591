"""Averages of the weights, and looking at the network through one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class EMA:
    """Exponential moving average of weights, with the usual warm-up: decay_n = min(decay, (1 + n) / (10 + n)) at update n.

    Args:
        weights: tensors to follow.
        decay: weight of the past, in [0, 1).
    """

    def __init__(self, weights: list[Tensor], decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.weights, self.decay, self.updates = weights, decay, 0
        self.average = [w.detach().clone() for w in weights]

    @torch.no_grad()
    def update(self) -> None:
        """Call once after each optimizer step."""
        self.updates += 1
        torch._foreach_lerp_(self.average, self.weights, 1 - min(self.decay, (1 + self.updates) / (10 + self.updates)))


@contextmanager
def swapped(weights: list[Tensor], shown: list[Tensor]) -> Iterator[None]:
    """Inside, `weights` hold the values of `shown`; afterwards their own again. Nothing is lost if the inside raises."""
    if shown is weights:
        yield
        return
    own = [w.detach().clone() for w in weights]
    with torch.no_grad():
        torch._foreach_copy_(weights, shown)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(weights, own)
