"""Decoding, suppression and voting as ONNX nodes: what `detection.postprocess` does, number for number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from spyolo.detection.decode import LEAST_SCORE, Reading
from spyolo.export.graph import Wire, Writer, join


def decode(logits: Sequence[Wire], anchors: Sequence[Tensor], strides: Sequence[int], size: int, classes: int) -> tuple[Wire, Wire]:
    """Logits of all scales -> boxes [B, N, 4] in input pixels, and scores [B, N, classes]."""
    boxes, scores = [], []
    for scale, (logit, shapes, stride) in enumerate(zip(logits, anchors, strides)):
        side, count = size // stride, len(shapes)
        flat = logit.reshape(0, count, 5 + classes, side * side).op("Transpose", perm=[0, 1, 3, 2]).reshape(0, count * side**2, 5 + classes)
        centre, sides, objectness, label = flat.sigmoid().split([2, 2, 1, classes], axis=2)
        boxes.append(corners(logit.writer, centre, sides, shapes, stride, side, f"decode.{scale}"))
        scores.append(objectness * label)
    return join(boxes, 1), join(scores, 1)


def corners(writer: Writer, centre: Wire, sides: Wire, shapes: Tensor, stride: int, side: int, name: str) -> Wire:
    """`detection.decode.decode_boxes` on [B, A * H * W, 2] sigmoids."""
    row, column = np.divmod(np.arange(side * side), side)
    cells = np.tile(np.stack([column, row], -1), (len(shapes), 1))[None] - 0.5
    pixels = np.repeat(shapes.double().cpu().numpy() * side * stride, side * side, 0)[None]

    def number(value: float) -> Wire:
        return writer.constant(value, name=f"number.{value:g}")

    middle = (centre * number(2) + writer.constant(cells, name=f"{name}.cells")) * number(stride)
    ratio = sides.op("Max", number(1 / 256)) * number(2)
    half = writer.constant(pixels, name=f"{name}.anchors") * (ratio * ratio) * number(0.5)
    return join([middle - half, middle + half], 2)


def suppress(writer: Writer, boxes: Wire, scores: Wire, size: int, classes: int, how: Reading) -> dict[str, Wire]:
    """Boxes [B, N, 4] and scores [B, N, classes] -> the detections of the whole batch, picture by picture, best first. The floor and the
    overlap can be changed later: they are inputs.

    Returns:
        boxes [M, 4] in input pixels, scores [M], labels [M] and pictures [M] (which row of the batch).
    """
    if how.one_class_per_box:
        label = scores.op("ArgMax", axis=2, keepdims=0)
        score, row = top(writer, scores.op("ReduceMax", writer.constant([2], np.int64), keepdims=0), how.enter)
        label = label.op("GatherElements", row, axis=1)
    else:
        score, index = top(writer, scores.reshape(0, -1), how.enter)
        count = writer.constant(classes, np.int64)
        row, label = index.op("Div", count), index.op("Mod", count)
    box = gather_rows(writer, boxes, row)
    box = box.op("Max", writer.constant(0.0)).op("Min", writer.constant(float(size)))
    low, high = box.split([2, 2], axis=2)
    there = (high - low).op("ReduceMin", writer.constant([2], np.int64), keepdims=0).op("Greater", writer.constant(0.0))
    score = score * there.op("Cast", to=1)  # centres reach beyond the input, so a box may lie outside
    return pick(writer, box, score, label, size, how)


def top(writer: Writer, scores: Wire, candidates: int) -> tuple[Wire, Wire]:
    """The best `candidates` of [B, N], or all where N is less: values and indices [B, K]."""
    n = scores.op("Shape", start=1, end=2)
    k = n.op("Min", writer.constant([candidates], np.int64))
    values, index = scores.op("TopK", k, axis=1, outputs=2)
    return values, index


def gather_rows(writer: Writer, values: Wire, rows: Wire) -> Wire:
    """[B, N, C] at [B, K] -> [B, K, C]."""
    return values.op("GatherND", rows.op("Unsqueeze", writer.constant([2], np.int64)), batch_dims=1)


def pick(writer: Writer, box: Wire, score: Wire, label: Wire, size: int, how: Reading) -> dict[str, Wire]:
    """Non-maximum suppression within each class: classes are moved apart, as torchvision's `batched_nms` does it."""
    confidence = writer.input("confidence", np.float32, [1], np.array([how.confidence], np.float32))
    nms_iou = writer.input("nms_iou", np.float32, [1], np.array([how.nms_iou], np.float32))
    apart = label.op("Cast", to=1).op("Unsqueeze", writer.constant([2], np.int64)) * writer.constant(float(size + 1))
    most = writer.constant([how.max_detections], np.int64)
    chosen = (box + apart).op("NonMaxSuppression", score.op("Unsqueeze", writer.constant([1], np.int64)), most, nms_iou, confidence)
    picture, _, place = chosen.split([1, 1, 1], axis=1)
    where, picture = join([picture, place], 1), picture.reshape(-1)
    found = {name: values.op("GatherND", where) for name, values in {"boxes": box, "scores": score, "labels": label}.items()}
    if how.vote_iou:
        box, score, label = (values.op("Gather", picture, axis=0) for values in (box, score, label))
        found["boxes"] = vote(writer, found["boxes"], found["labels"], box, score, label, how.vote_iou)
    return found | {"pictures": picture}


def vote(writer: Writer, kept: Wire, kept_label: Wire, boxes: Wire, scores: Wire, labels: Wire, iou: float) -> Wire:
    """`detection.decode.vote`: kept [M, 4] and its labels [M]; the candidates of each one's picture, [M, K, 4], [M, K] and [M, K]."""

    def over(axis: int) -> Wire:
        return writer.constant([axis], np.int64)

    near = overlap(writer, kept.op("Unsqueeze", over(1)), boxes).op("GreaterOrEqual", writer.constant(iou))
    voters = near.op("And", labels.op("Equal", kept_label.op("Unsqueeze", over(1)))).op("Cast", to=1)
    score = scores.op("Max", writer.constant(LEAST_SCORE))
    weight = (voters * (score * score)).op("Unsqueeze", over(1))
    total = weight.op("ReduceSum", over(2), keepdims=1)
    return weight.op("MatMul", boxes).op("Div", total).op("Squeeze", over(1))


def overlap(writer: Writer, one: Wire, other: Wire) -> Wire:
    """Intersection over union of boxes [M, 1, 4] and [M, K, 4]: [M, K]."""
    (a, b), (c, d) = one.split([2, 2], axis=2), other.split([2, 2], axis=2)

    def area(sides: Wire) -> Wire:
        return sides.op("ReduceProd", writer.constant([2], np.int64), keepdims=0)

    shared = area((b.op("Min", d) - a.op("Max", c)).op("Max", writer.constant(0.0)))
    return shared.op("Div", area(b - a) + area(d - c) - shared)
