"""A batch in pieces, for when it does not fit at once: each is shown part by part and keeps its own state, and their gradients add up.

Accumulation with online learning is not the usual loop: all pieces of a batch must see a part before the weights move, so it is the pieces'
states that are kept (small), never their graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spyolo.detection import DetectionLoss, DetectorState, SpikingYOLO, Targets
from spyolo.distributed import Peers


@dataclass
class Piece:
    """What it shows, its truth, and the state that what was shown so far has left.

    images: [B, C, H, W], still pictures shown at every step; or a clip, [T, B, C, H, W], one frame a step.
    targets: of the pictures, or of each step.
    """

    images: Tensor
    targets: Targets | list[Targets]
    state: DetectorState | None = None

    def part(self, first: int, steps: int) -> tuple[Tensor, Targets | list[Targets]]:
        """What is shown in the steps from `first` on, and its truth."""
        if isinstance(self.targets, Targets):
            return self.images, self.targets
        return self.images[first : first + steps], self.targets[first : first + steps]


def cut_batch(
    detector: SpikingYOLO, loss: DetectionLoss, images: Tensor, objects: Sequence[Any], count: int, peers: Peers
) -> tuple[list[Piece], list[bool]]:
    """A batch as `count` pieces whose losses are divided by the positives of the whole batch, of all processes.

    Returns:
        The pieces, and of a clip for each frame whether any process has truth for it.
    """
    size, device, still = (images.shape[-2], images.shape[-1]), images.device, images.dim() == 4
    steps = [objects] if still else objects  # the truth of each step
    shown = images.chunk(count, 0 if still else 1)
    widths = [i.shape[0 if still else 1] for i in shown]
    starts = [sum(widths[:k]) for k in range(len(widths))]
    targets = [[loss.assign(detector, o[a : a + n], size) for o in steps] for a, n in zip(starts, widths)]
    positives = peers.counts([sum(t.positives for t in step) for step in zip(*targets)], device)
    targets = [[t._replace(shared=n) for t, n in zip(piece, positives)] for piece in targets]
    told: list[bool] = []
    if not still:
        known = torch.tensor([sum(o is not None for o in step) for step in steps], device=device)
        told = [n > 0 for n in peers.sum_(known).tolist()]
    return [Piece(i, t[0] if still else t) for i, t in zip(shown, targets)], told
