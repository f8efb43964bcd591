"""Which anchors answer for which objects. It depends on shapes and places only, so one assignment serves every time step of a batch.

The reference gives an object one anchor in one cell. Ours, as later YOLOs do, gives it several: every anchor whose sides are within a
factor of the object's (YOLOv5's shape rule, Jocher 2020), in the cell of its centre and the two nearest neighbours (which the decoding
can reach). An object that no anchor fits still gets the one nearest in shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spyolo.boxes import Objects


class ScaleTargets(NamedTuple):
    """P positive entries of one scale."""

    picture: Tensor  # [P] index into the batch
    anchor: Tensor  # [P]
    y: Tensor  # [P] row of the cell
    x: Tensor  # [P] column of the cell
    boxes: Tensor  # [P, 4] the object, in input pixels
    labels: Tensor  # [P]
    spared: Tensor  # [B, A, H, W] bool: answers for a `difficult` object, so neither positive nor negative


class Targets(NamedTuple):
    """A batch's truth, assigned."""

    scales: tuple[ScaleTargets, ...]
    boxes: Tensor  # [B, M, 4] all objects, difficult ones too, padded with boxes of no area
    shared: int | Tensor | None = None  # positive entries of the whole batch, where these are a piece of it

    @property
    def positives(self) -> int:
        """Positive entries of all scales."""
        return sum(len(s.labels) for s in self.scales)


def cells_of(centre: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Cells that may answer for objects centred at `centre` [N, 2] (in cells): own, nearest column, nearest row.

    Returns:
        columns and rows [N, 3, 2] and whether they lie inside the grid [N, 3].
    """
    limit = torch.tensor([w, h], device=centre.device)
    own = torch.minimum(centre.floor().long().clamp(min=0), limit - 1)
    side = torch.where(centre - own < 0.5, -1, 1)
    cells = own.unsqueeze(1).repeat(1, 3, 1)
    cells[:, 1, 0] += side[:, 0]
    cells[:, 2, 1] += side[:, 1]
    return cells, ((cells >= 0) & (cells < limit)).all(-1)


def shape_match(sides: Tensor, anchors: Tensor, factor: float) -> Tensor:
    """Which of A anchors [A, 2] fit N objects of `sides` [N, 2] -> bool [N, A]: no side off by `factor` or more; if none, the nearest"""
    ratio = sides.unsqueeze(1) / anchors.unsqueeze(0)
    worst = torch.maximum(ratio, 1 / ratio).amax(-1)
    fits = worst < factor
    return fits | (~fits.any(1, keepdim=True) & (worst == worst.amin(1, keepdim=True)))


def assign(
    objects: Sequence[Objects | None], anchors: Sequence[Tensor], strides: Sequence[int], size: tuple[int, int], factor: float = 4.0
) -> Targets:
    """Assign a batch's objects to anchors and cells.

    Args:
        objects: truth of each picture, boxes in input pixels. One of no area gets no anchor (its CIoU is not a number). None: the
            truth is not known, so none of the picture's cells is positive or negative.
        anchors: each scale's anchors [A, 2], as fractions of the input's longer side.
        strides: pixels a cell, of each scale.
        size: (height, width) of the input.
        factor: the largest ratio of sides at which an anchor still fits.
    """
    device = anchors[0].device
    unknown = [i for i, o in enumerate(objects) if o is None]
    known = [Objects.empty() if o is None else o for o in objects]
    picture = torch.cat([torch.full((len(o),), i, dtype=torch.int64) for i, o in enumerate(known)]).to(device)
    boxes = torch.cat([o.boxes for o in known]).to(device)
    labels = torch.cat([o.labels for o in known]).to(device)
    difficult = torch.cat([o.difficult for o in known]).to(device)
    sides = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, 2:] + boxes[:, :2]) / 2
    fits = shape_match(sides.clamp(min=1e-3), torch.cat(list(anchors)) * max(size), factor) & (sides > 0).all(1, keepdim=True)
    scales, first = [], 0
    for shapes, stride in zip(anchors, strides):
        h, w = size[0] // stride, size[1] // stride
        cells, inside = cells_of(centre / stride, h, w)
        n, a, c = (fits[:, first : first + len(shapes)].unsqueeze(2) & inside.unsqueeze(1)).nonzero(as_tuple=True)
        first += len(shapes)
        x, y = cells[n, c].unbind(-1)
        hard = difficult[n]
        spared = torch.zeros(len(objects), len(shapes), h, w, dtype=torch.bool, device=device)
        spared[picture[n[hard]], a[hard], y[hard], x[hard]] = True
        n, a, y, x = n[~hard], a[~hard], y[~hard], x[~hard]
        spared[picture[n], a, y, x] = False
        if unknown:
            spared[unknown] = True
        scales.append(ScaleTargets(picture[n], a, y, x, boxes[n], labels[n], spared))
    return Targets(tuple(scales), padded(known).to(device))


def padded(objects: Sequence[Objects]) -> Tensor:
    """Boxes of all pictures as one [B, M, 4], short ones padded with boxes of no area."""
    out = torch.zeros(len(objects), max([1, *(len(o) for o in objects)]), 4)
    for row, o in zip(out, objects):
        row[: len(o)] = o.boxes
    return out
