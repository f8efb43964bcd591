"""From logits to boxes: decoding (Scaled-YOLOv4's form), class-wise non-maximum suppression, and box voting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from spyolo.boxes import Detections
from spyolo.ranges import COUNTS, check_share, check_whole

CANDIDATES = 1000  # for suppression, at least
LEAST_SCORE = 1e-9  # of a vote: the square of a smaller score would be zero in fp32, and the mean of nothing is not a number


@dataclass(frozen=True)
class Reading:
    """How boxes are read from logits. The defaults are an evaluation's; `Predictor` shows the best class of each box only.

    Raises:
        InputError: an option that is out of its range.
    """

    confidence: float = 0.005  # floor on score = sigma(objectness) sigma(class)
    nms_iou: float = 0.5  # a box that overlaps a better one of its class by more is dropped
    vote_iou: float = 0.0  # over 0, a kept box moves to where the candidates of its class that overlap it by so much say (`vote`)
    max_detections: int = 100  # at most so many a picture
    one_class_per_box: bool = False  # keep only the best class of each box (the reference), not every class over the floor

    def __post_init__(self) -> None:
        for name in ("confidence", "nms_iou", "vote_iou"):
            check_share(name, getattr(self, name))
        check_whole("max_detections", self.max_detections, *COUNTS)

    @property
    def enter(self) -> int:
        """At most so many boxes of a picture, the best by score, enter suppression."""
        return max(CANDIDATES, self.max_detections)

    @property
    def protocol(self) -> dict[str, float]:
        """What figures depend on, by the names of a protocol."""
        return {
            "confidence_floor": self.confidence, "nms_iou": self.nms_iou, "vote_iou": self.vote_iou, "max_detections": self.max_detections,
        }  # fmt: skip


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
    predictions: Sequence[Tensor], anchors: Sequence[Tensor], strides: Sequence[int], reading: Reading = Reading()
) -> list[Detections]:
    """Logits of all scales -> detections of each picture, best first, in input pixels clipped to the input."""
    boxes, objectness, classes = decode(predictions, anchors, strides)
    h, w = (s * strides[0] for s in predictions[0].shape[-2:])
    scores = torch.sigmoid(objectness).unsqueeze(-1) * torch.sigmoid(classes)
    found = []
    for box, score in zip(boxes, scores):
        if reading.one_class_per_box:
            best = score.argmax(-1, keepdim=True)
            score = torch.zeros_like(score).scatter(-1, best, score.gather(-1, best))
        flat = score.flatten()
        top = flat.topk(min(reading.enter, len(flat)))
        row, label = top.indices // score.shape[-1], top.indices % score.shape[-1]
        near = Detections(clip_boxes_to_image(box[row], (h, w)), top.values, label)
        near = near[(near.boxes[:, 2:] > near.boxes[:, :2]).all(1)]  # centres reach beyond the input, so a box may lie outside
        chosen = near[near.scores > reading.confidence]
        best_first = batched_nms(chosen.boxes.float(), chosen.scores.float(), chosen.labels, reading.nms_iou)
        kept = chosen[best_first[: reading.max_detections]]
        found.append(kept.with_boxes(vote(kept, near, reading.vote_iou)) if reading.vote_iou else kept)
    return found


def vote(kept: Detections, candidates: Detections, iou: float, power: float = 2.0) -> Tensor:
    """Box voting (Gidaris & Komodakis, ICCV 2015, equation 4): where all candidates together put each kept box.

    Each kept box becomes the mean of the candidates of its class that overlap it by at least `iou`, weighted by their scores to a power
    (the paper: 1; 2 was measured to be better here, docs/recipe.md). Scores and order stay. Candidates under the floor vote too, so that
    a box does not move when the floor does.

    Args:
        kept: what suppression has left, M boxes.
        candidates: N boxes, those kept among them.

    Returns:
        [M, 4], in the candidates' coordinates.
    """
    boxes, scores = candidates.boxes.float(), candidates.scores.float()
    voters = (box_iou(kept.boxes.float(), boxes) >= iou) & (kept.labels[:, None] == candidates.labels)
    weight = voters * scores.clamp(min=LEAST_SCORE) ** power
    with torch.autocast(boxes.device.type, enabled=False):  # a mean taken in bf16 is off by pixels
        return (weight @ boxes / weight.sum(1, keepdim=True)).to(kept.boxes.dtype)
