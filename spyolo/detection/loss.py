"""The detection loss of one time step: CIoU on boxes, binary cross-entropy on objectness and classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torchvision.ops import complete_box_iou_loss

from spyolo.boxes import Objects
from spyolo.detection.assignment import ScaleTargets, Targets, assign
from spyolo.detection.decode import decode_boxes, grid, split_logits
from spyolo.detection.detector import SpikingYOLO


class LossParts(NamedTuple):
    """Terms of a step's loss, weighted, each a scalar."""

    box: Tensor
    objectness: Tensor
    classes: Tensor

    @property
    def total(self) -> Tensor:
        return self.box + self.objectness + self.classes


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every box of a [B, N, 4] with every box of b [B, M, 4] of the same picture -> [B, N, M]."""
    low = torch.maximum(a[:, :, None, :2], b[:, None, :, :2])
    high = torch.minimum(a[:, :, None, 2:], b[:, None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area_a, area_b = ((t[..., 2:] - t[..., :2]).prod(-1) for t in (a, b))
    return shared / (area_a[:, :, None] + area_b[:, None, :] - shared + 1e-7)


class DetectionLoss:
    """L = (box gain * sum CIoU loss + objectness gain * sum BCE + class gain * sum BCE) / positives, over all scales of a step.

    Sums over the batch divided by its number of positive entries, as in the reference and in YOLOX: no gain per scale is needed. Targets
    of a piece of a batch say how many the whole one has (`shared`), so that the pieces' losses add up to the batch's. A cell
    whose predicted box overlaps any object by more than `ignore_iou`, or that answers for a difficult one, is no negative.

    Args:
        box, objectness, classes: gains.
        smoothing: label smoothing of the class targets (eps: 1 -> 1 - eps/2, 0 -> eps/2).
        ignore_iou: see above.
        iou_target: how far the objectness target of a positive is its box's CIoU (clamped to [0, 1]) rather than 1 (0: always 1, the
            reference; 1: the CIoU).
        factor: shape factor of the assignment.
    """

    def __init__(
        self,
        *,
        box: float = 3.0,
        objectness: float = 1.0,
        classes: float = 4.0,
        smoothing: float = 0.0,
        ignore_iou: float = 0.5,
        iou_target: float = 0.0,
        factor: float = 4.0,
    ) -> None:
        self.gains = (box, objectness, classes)
        self.smoothing, self.ignore_iou, self.iou_target, self.factor = smoothing, ignore_iou, iou_target, factor

    def assign(self, detector: SpikingYOLO, objects: Sequence[Objects | None], size: tuple[int, int]) -> Targets:
        """Targets of a batch; the same for each of its time steps."""
        return assign(objects, detector.anchors, detector.strides, size, self.factor)

    def __call__(self, detector: SpikingYOLO, predictions: Sequence[Tensor], targets: Targets) -> LossParts:
        """Loss of one step's logits. Finite for any batch: one without objects has only negatives."""
        whole = targets.positives if targets.shared is None else targets.shared
        positives = whole.clamp(min=1) if isinstance(whole, Tensor) else max(1, whole)
        terms = [
            self.scale_terms(p, shapes, stride, scale, targets.boxes)
            for p, shapes, stride, scale in zip(predictions, detector.anchors, detector.strides, targets.scales)
        ]
        box, objectness, classes = (gain * torch.stack(t).sum() / positives for gain, t in zip(self.gains, zip(*terms)))
        return LossParts(box, objectness, classes)

    def scale_terms(
        self, prediction: Tensor, shapes: Tensor, stride: int, t: ScaleTargets, truth: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Unweighted sums of one scale's three terms."""
        p = split_logits(prediction, len(shapes))
        h, w = p.shape[2:4]
        pixels = shapes * max(h, w) * stride
        here = p[t.picture, t.anchor, t.y, t.x]
        boxes = decode_boxes(here[:, :4], torch.stack([t.x, t.y], -1).to(p.dtype), pixels[t.anchor], stride)
        ciou = complete_box_iou_loss(boxes, t.boxes.to(boxes.dtype))
        want = torch.zeros(p.shape[:4], dtype=p.dtype, device=p.device)
        quality = 1 - self.iou_target * ciou.detach().clamp(0, 1)
        # Where two objects claim a cell, the better-fitting box sets its objectness: `amax` does not depend on their order.
        want.view(-1).scatter_reduce_(0, self.flat_index(t, want.shape), quality.to(want.dtype), "amax")
        objectness = bce(p[..., 4], want, reduction="none")
        spared = t.spared | self.overlapping(p, pixels, stride, truth)
        objectness = (objectness * ((want > 0) | ~spared)).sum()
        labels = nn.functional.one_hot(t.labels, p.shape[-1] - 5).to(p.dtype) * (1 - self.smoothing) + self.smoothing / 2
        return ciou.sum(), objectness, bce(here[:, 5:], labels, reduction="sum")

    @staticmethod
    def flat_index(t: ScaleTargets, shape: torch.Size) -> Tensor:
        _, a, h, w = shape
        return ((t.picture * a + t.anchor) * h + t.y) * w + t.x

    @torch.no_grad()
    def overlapping(self, p: Tensor, pixels: Tensor, stride: int, truth: Tensor) -> Tensor:
        """Cells whose predicted box overlaps an object by more than `ignore_iou`, bool [B, A, H, W]."""
        h, w = p.shape[2:4]
        boxes = decode_boxes(p[..., :4], grid(h, w, p), pixels.view(1, -1, 1, 1, 2), stride)
        return (pairwise_iou(boxes.flatten(1, 3), truth.to(p.dtype)) > self.ignore_iou).any(-1).view(p.shape[:4])
