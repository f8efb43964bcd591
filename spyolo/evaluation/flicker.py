"""How restless a detector's boxes are from one frame of a shot to the next, with the camera's own motion taken out.

Both frames' boxes are moved into the picture that was filmed, where every object stands still, and cut to the part that both frames show.
Boxes of a class are paired, best overlap first, while the overlap reaches 0.5. A pair moved by 1 - IoU; a box without a partner appeared or
vanished, unless it lies mostly outside that part: then it may only have come into view, or left it.

    flicker = (2 * sum over pairs of (1 - IoU) + appeared + vanished) / (boxes before + boxes after)

is 0 for boxes that hold still on the objects and 1 where no box survives a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_area, box_iou

from spyolo.boxes import Detections
from spyolo.evaluation.sparsity import share
from spyolo.evaluation.video import View

PAIRED_FROM = 0.5  # least overlap of a pair
MOSTLY = 0.5  # least share of a box without partner that must lie in what both frames show: else it only came into view, or left it


@dataclass(frozen=True)
class Flicker:
    """Sums over pairs of successive frames."""

    before: int = 0  # boxes in the earlier frames
    after: int = 0
    pairs: int = 0
    moved: float = 0.0  # sum of 1 - IoU over the pairs

    def __add__(self, other: Flicker) -> Flicker:
        return Flicker(self.before + other.before, self.after + other.after, self.pairs + other.pairs, self.moved + other.moved)

    def summary(self) -> dict[str, Any]:
        """JSON-safe; None where there was no box."""
        boxes = self.before + self.after
        return {
            "flicker": share(2 * self.moved + boxes - 2 * self.pairs, boxes) if boxes else None,
            "jitter": self.moved / self.pairs if self.pairs else None,
            "appeared": 1 - self.pairs / self.after if self.after else None,
            "vanished": 1 - self.pairs / self.before if self.before else None,
        }


def between(before: Detections, after: Detections, view_before: View, view_after: View, confidence: float) -> Flicker:
    """Compare the detections, in frame pixels, of two successive frames of a shot; only those of at least this score count."""
    a, b = view_before.window(), view_after.window()
    common = torch.cat([torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])])
    first, first_inside = in_common(before[before.scores >= confidence], view_before, common)
    second, second_inside = in_common(after[after.scores >= confidence], view_after, common)
    overlaps, rows, columns = paired(first, second)
    first_inside[rows] = second_inside[columns] = True
    return Flicker(int(first_inside.sum()), int(second_inside.sum()), len(overlaps), float((1 - overlaps).sum()))


def in_common(detections: Detections, view: View, common: Tensor) -> tuple[Detections, Tensor]:
    """Detections in picture pixels, cut to the window `common`, and which of them lie mostly inside it."""
    boxes = view.to_picture(detections.boxes.float())
    cut = torch.cat([torch.maximum(boxes[:, :2], common[:2]), torch.minimum(boxes[:, 2:], common[2:])], 1)
    there = (cut[:, 2:] > cut[:, :2]).all(1)
    inside = box_area(cut) >= MOSTLY * box_area(boxes)
    return detections.with_boxes(cut)[there], inside[there]


def paired(first: Detections, second: Detections) -> tuple[Tensor, list[int], list[int]]:
    """Boxes of one class paired one to one, best overlap first: overlaps [P], their rows in `first`, their rows in `second`."""
    overlap = box_iou(first.boxes, second.boxes) * (first.labels[:, None] == second.labels[None, :])
    found: list[tuple[float, int, int]] = []
    while overlap.numel() and float(overlap.max()) >= PAIRED_FROM:
        row, column = divmod(int(overlap.argmax()), overlap.shape[1])
        found.append((float(overlap[row, column]), row, column))
        overlap[row, :] = overlap[:, column] = 0
    return torch.tensor([f[0] for f in found]), [f[1] for f in found], [f[2] for f in found]
