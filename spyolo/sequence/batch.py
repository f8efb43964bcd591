"""One batch of sequences, as every task makes it and every loop takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Sequences side by side; step t of all of them is `input(t)`.

    Attributes:
        inputs: [T, B, ...], or [1, B, ...] for an input that does not change; kept in the type of the data (bytes stay bytes).
        targets: one a sequence [B, ...], or one a step [T, B, ...], see the task's objective.
        timesteps: T.
        lengths: steps of each sequence that count [B]; None: all.
        scale: what bytes are multiplied by.
        fresh: False for a batch that goes on where the one before it stopped (text): the neurons' state goes on too.
    """

    inputs: Tensor
    targets: Tensor
    timesteps: int
    lengths: Tensor | None = None
    scale: float = 1.0
    fresh: bool = True

    @property
    def size(self) -> int:
        return self.inputs.shape[1]

    @property
    def ragged(self) -> bool:
        """Whether some sequence ends before the batch does."""
        return self.lengths is not None and int(self.lengths.min()) < self.timesteps

    def input(self, t: int) -> Tensor:
        """What the network sees at step t: fp32 [B, ...]; token numbers stay int64."""
        return self.inputs_of(t, t + 1)[0]

    def inputs_of(self, first: int, last: int) -> Tensor:
        """Those of steps first to last - 1, [last - first, B, ...]."""
        x = self.inputs[first:last] if self.inputs.shape[0] > 1 else self.inputs.expand(last - first, *self.inputs.shape[1:])
        return x if x.dtype == torch.int64 else x.float() * self.scale if self.scale != 1.0 else x.float()

    def valid(self, t: int) -> Tensor | None:
        """Which sequences have a step t: bool [B]; None: all of them."""
        return None if self.lengths is None or int(self.lengths.min()) > t else t < self.lengths

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {"inputs": self.inputs.to(device), "targets": self.targets.to(device)}
        return replace(self, **moved, lengths=None if self.lengths is None else self.lengths.to(device))
