"""When a still picture has been looked at long enough."""

from __future__ import annotations

from torchvision.ops import box_iou

from spyolo.boxes import Detections


def settled(before: Detections, after: Detections, *, floor: float = 0.3, iou: float = 0.9, score: float = 0.05) -> bool:
    """Whether one more step changed no box worth showing: each box over `floor` has one of its class in the other set that overlaps it by
    at least `iou` and whose score is within `score`. Two empty sets are settled."""
    before, after = (d[d.scores > floor] for d in (before, after))
    if len(before) != len(after):
        return False
    if not len(before):
        return True
    same = (box_iou(before.boxes, after.boxes) >= iou) & (before.labels[:, None] == after.labels)
    same &= (before.scores[:, None] - after.scores).abs() <= score
    return bool(same.any(0).all() and same.any(1).all())
