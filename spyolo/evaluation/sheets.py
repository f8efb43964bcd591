"""Sheets of the best, the median and the worst pictures: truth on the left, what the detector says on the right, counts above.

A picture's score is its F1 at the operating confidence, by the VOC matching rule; pictures with neither objects nor detections have none
and are left out. Equal scores are put in order by the number of objects (the fuller picture first), then by the split's order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from spyolo.drawing import draw_boxes
from spyolo.evaluation.metrics import Assessment
from spyolo.evaluation.operating import OperatingPoint, picture_points
from spyolo.evaluation.plot import Exhibit

SIDE, CAPTION, GAP, ACROSS = 300, 24, 6, 3  # pixels of a picture, of the words above it, between pictures; pairs in a row

KINDS = {
    "best": "The pictures with the highest F1; of equals, those with the most objects.",
    "median": "The pictures around the median F1: what to expect.",
    "worst": "The pictures with the lowest F1; of equals, those with the most objects.",
}


def picture_sheets(result: Assessment, image: Callable[[int], np.ndarray], count: int = 9) -> list[Exhibit]:
    """A sheet of each kind.

    Args:
        result: what was judged.
        image: place in the split -> RGB uint8 [H, W, 3]; called for the pictures shown only. `picture_or_grey` of a set spares the
            sheets one that cannot be read.
        count: pictures on a sheet.
    """
    points = picture_points(result.truth, result.detections, result.confidence)
    places = chosen(points, count)
    truth, said = result.truth.by_image(), result.detections[result.detections.scores >= result.confidence].by_image()
    sheets = []
    for kind, caption in KINDS.items():
        pairs = []
        for place in places[kind]:
            name, picture = result.truth.ids[place], image(place)
            objects, found = truth[name], said[name]
            left = draw_boxes(picture, objects.boxes, objects.labels, result.classes, style="truth")
            right = draw_boxes(picture, found.boxes, found.labels, result.classes, found.scores)
            pairs.append(_pair(left, right, _words(name, points[place])))
        title = f"{kind.capitalize()} pictures"
        explained = f"{caption} Truth (dashed) on the left, detections of at least {result.confidence:g} on the right."
        rows = [_row(result.truth.ids[place], points[place]) for place in places[kind]]
        sheets.append(Exhibit(f"pictures_{kind}", title, explained, _sheet(pairs), rows))
    return sheets


def chosen(points: Sequence[OperatingPoint], count: int) -> dict[str, list[int]]:
    """Places of the best, median and worst pictures, each in its own order."""
    scores = {place: point.f1 for place, point in enumerate(points) if point.f1 is not None}
    best = sorted(scores, key=lambda place: (-scores[place], -points[place].positives, place))
    worst = sorted(scores, key=lambda place: (scores[place], -points[place].positives, place))
    start = max(0, (len(best) - count) // 2)
    return {"best": best[:count], "median": best[start : start + count], "worst": worst[:count]}


def _row(name: str, point: OperatingPoint) -> dict[str, Any]:
    return {"image_id": name, "f1": point.f1, "true": point.true, "false": point.false, "objects": point.positives}


def _words(name: str, point: OperatingPoint) -> str:
    return f"{name}   F1 {point.f1:.2f}   found {point.true} of {point.positives}, {point.false} false"


def _pair(left: np.ndarray, right: np.ndarray, words: str) -> np.ndarray:
    """Two pictures of one size side by side, words above: [H, W, 3]."""
    scale = SIDE / max(left.shape[:2])
    width, height = max(1, round(left.shape[1] * scale)), max(1, round(left.shape[0] * scale))
    canvas = Image.new("RGB", (2 * SIDE + GAP, SIDE + CAPTION), "white")
    for picture, start in ((left, 0), (right, SIDE + GAP)):
        small = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
        canvas.paste(small, (start + (SIDE - width) // 2, CAPTION + (SIDE - height) // 2))
    ImageDraw.Draw(canvas).text((2, 4), words, fill="#1f2933", font=ImageFont.load_default(14))
    return np.asarray(canvas)


def _sheet(pairs: Sequence[np.ndarray]) -> np.ndarray:
    """Pairs in rows of ACROSS on white."""
    if not pairs:
        return np.full((CAPTION, 2 * SIDE, 3), 255, np.uint8)
    across, (height, width, _) = min(ACROSS, len(pairs)), pairs[0].shape
    down = -(-len(pairs) // across)
    sheet = np.full((down * (height + GAP) + GAP, across * (width + 3 * GAP) + GAP, 3), 255, np.uint8)
    for place, pair in enumerate(pairs):
        top, left = GAP + place // across * (height + GAP), GAP + place % across * (width + 3 * GAP)
        sheet[top : top + height, left : left + width] = pair
    return sheet
