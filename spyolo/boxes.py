"""Box types shared by data, detector and evaluation.

Coordinates are continuous pixels from the picture's top left corner, as (x1, y1, x2, y2) with x2 and y2 exclusive: VOC's 1-based
inclusive `xmin, xmax` become `x1 = xmin - 1, x2 = xmax`. Width is then `x2 - x1`, exactly the devkit's `xmax - xmin + 1`, so plain
intersection over union of these boxes IS the devkit's overlap with its "+1 pixel".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Objects:
    """Truth of one picture: N objects."""

    boxes: Tensor  # [N, 4] float32, x1 y1 x2 y2
    labels: Tensor  # [N] int64, index into the class list
    difficult: Tensor  # [N] bool

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def empty() -> Objects:
        return Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))

    def __getitem__(self, index: Tensor) -> Objects:
        """Objects chosen by a mask or an index tensor."""
        return Objects(self.boxes[index], self.labels[index], self.difficult[index])

    def with_boxes(self, boxes: Tensor) -> Objects:
        return replace(self, boxes=boxes)

    def to(self, device: torch.device | str) -> Objects:
        return Objects(self.boxes.to(device), self.labels.to(device), self.difficult.to(device))


@dataclass(frozen=True)
class Detections:
    """What a detector says of one picture: N boxes, best first."""

    boxes: Tensor  # [N, 4] float32, x1 y1 x2 y2
    scores: Tensor  # [N] float32 in [0, 1]
    labels: Tensor  # [N] int64, index into the class list

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def empty() -> Detections:
        return Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))

    def __getitem__(self, index: Tensor | slice) -> Detections:
        """Detections chosen by a mask, an index tensor or a slice."""
        return Detections(self.boxes[index], self.scores[index], self.labels[index])

    def with_boxes(self, boxes: Tensor) -> Detections:
        return replace(self, boxes=boxes)

    def to(self, device: torch.device | str) -> Detections:
        return Detections(self.boxes.to(device), self.scores.to(device), self.labels.to(device))
