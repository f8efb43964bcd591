"""From logits to boxes: decoding (Scaled-YOLOv4's form) and class-wise non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from spyolo.boxes import Detections


def split_logits(prediction: Tensor, anchors: int) -> Tensor:
    """[B, A * K, H, W] -> [B, A, H, W, K], K = (tx, ty, tw, th, objectness, classes...)."""
    b, _, h, w = prediction.shape
    return prediction.view(b, anchors, -1, h, w).permute(0, 1, 3, 4, 2)


def grid(h: int, w: int, like: Tensor) -> Tensor:
    """Column and row of every cell, [H, W, 2]."""
    y, x = torch.meshgrid(torch.arange(h, device=like.device), torch.arange(w, device=like.device), indexing="ij")
    return torch.stack([x, y], -1).to(like.dtype)


def decode_boxes(t: Tensor, cells: Tensor, anchors: Tensor, stride: int) -> Tensor:
    """Logits of boxes -> corners in pixels of the input.

    Centre = (cell + 2 sigma(t_xy) - 1/2) stride, so it can reach half a cell beyond its own, which is what lets neighbouring cells share an
    object; side = anchor (2 sigma(t_wh))^2, at most four anchors, never infinite (Wang, Bochkovskiy & Liao, Scaled-YOLOv4, 2021). Sides
    stop at 1/16384 of the anchor: a smaller box would round to equal corners in fp32, and the CIoU of a box of no area is not a number.

    Args:
        t: [..., 4] logits tx, ty, tw, th.
        cells: [..., 2] column and row of the cell.
        anchors: [..., 2] width and height in pixels.
        stride: pixels a cell.
    """
    s = torch.sigmoid(t)
    centre = (cells + 2 * s[..., :2] - 0.5) * stride
    half = anchors * (2 * s[..., 2:].clamp(min=1 / 256)) ** 2 / 2
    return torch.cat([centre - half, centre + half], -1)


def decode(predictions: Sequence[Tensor], anchors: Sequence[Tensor], strides: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of all scales -> boxes [B, N, 4] in input pixels, objectness logits [B, N], class logits [B, N, classes]."""
    boxes, objectness, classes = [], [], []
    for prediction, shapes, stride in zip(predictions, anchors, strides):
        p = split_logits(prediction, len(shapes))
        h, w = p.shape[2:4]
        pixels = (shapes * max(h, w) * stride).view(1, -1, 1, 1, 2)
        boxes.append(decode_boxes(p[..., :4], grid(h, w, p), pixels, stride).flatten(1, 3))
        objectness.append(p[..., 4].flatten(1))
        classes.append(p[..., 5:].flatten(1, 3))
    return torch.cat(boxes, 1), torch.cat(objectness, 1), torch.cat(classes, 1)


def postprocess(
    predictions: Sequence[Tensor],
    anchors: Sequence[Tensor],
    strides: Sequence[int],
    *,
    confidence: float = 0.001,
    nms_iou: float = 0.5,
    max_detections: int = 100,
    candidates: int = 1000,
    one_class_per_box: bool = False,
) -> list[Detections]:
    """Logits of all scales -> detections of each picture, best first, in input pixels clipped to the input.

    Args:
        confidence: floor on score = sigma(objectness) sigma(class).
        nms_iou: a box that overlaps a better one of its class by more is dropped.
        max_detections: at most so many a picture.
        candidates: at most so many boxes of a picture enter suppression, the best by score.
        one_class_per_box: keep only the best class of each box (the reference), not every class over the floor.
    """
    boxes, objectness, classes = decode(predictions, anchors, strides)
    h, w = (s * strides[0] for s in predictions[0].shape[-2:])
    scores = torch.sigmoid(objectness).unsqueeze(-1) * torch.sigmoid(classes)
    found = []
    for box, score in zip(boxes, scores):
        if one_class_per_box:
            best = score.argmax(-1, keepdim=True)
            score = torch.zeros_like(score).scatter(-1, best, score.gather(-1, best))
        flat = score.flatten()
        top = flat.topk(min(candidates, len(flat)))
        keep = top.values > confidence
        values, index = top.values[keep], top.indices[keep]
        row, label = index // score.shape[-1], index % score.shape[-1]
        chosen = Detections(clip_boxes_to_image(box[row], (h, w)), values, label)
        chosen = chosen[(chosen.boxes[:, 2:] > chosen.boxes[:, :2]).all(1)]  # centres reach beyond the input, so a box may lie outside
        kept = batched_nms(chosen.boxes.float(), chosen.scores.float(), chosen.labels, nms_iou)
        found.append(chosen[kept[:max_detections]])
    return found
