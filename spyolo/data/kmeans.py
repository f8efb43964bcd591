"""Anchors fitted to a data set: k-means whose distance is 1 - IoU of two boxes about one centre (Redmon & Farhadi, YOLO9000, 2017)."""

from __future__ import annotations

import numpy as np

from spyolo.data.letterbox import Letterbox
from spyolo.data.voc import VOCSet
from spyolo.errors import InputError


def box_sides(voc: VOCSet, size: int) -> np.ndarray:
    """Width and height of each object on a letterboxed canvas of side `size`: float64 [N, 2].

    Difficult objects, never trained on, are left out.
    """
    sides = [np.zeros((0, 2))]
    for i in range(len(voc)):
        objects = voc.objects(i)
        boxes = objects.boxes[~objects.difficult].double().numpy() * Letterbox.fit(*voc.size(i), size).scale
        sides.append(boxes[:, 2:] - boxes[:, :2])
    return np.concatenate(sides)


def shape_iou(sides: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """IoU of boxes [N, 2] and anchors [K, 2] (width, height) laid about one centre: [N, K]."""
    common = np.minimum(sides[:, None], anchors[None]).prod(2)
    return common / (sides.prod(1)[:, None] + anchors.prod(1)[None] - common)


def fit_anchors(sides: np.ndarray, count: int = 6, seed: int = 0, restarts: int = 8) -> np.ndarray:
    """The `count` shapes [count, 2] with the best mean IoU of `restarts` seeded runs, by rising area.

    Raises:
        InputError: fewer different boxes than anchors.
    """
    different = len(np.unique(sides, axis=0))
    if different < count:
        raise InputError(f"{count} anchors cannot be fitted to {different} different box shapes; name a split with more objects")
    rng = np.random.default_rng(seed)
    fits = [_k_means(sides, count, rng) for _ in range(restarts)]
    best = max(fits, key=lambda anchors: shape_iou(sides, anchors).max(1).mean())
    return best[np.argsort(best.prod(1))]


def _k_means(sides: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """One run from a k-means++ start, until no box changes its anchor."""
    anchors = sides[rng.integers(len(sides))][None]
    while len(anchors) < count:
        distance = 1 - shape_iou(sides, anchors).max(1)
        anchors = np.vstack([anchors, sides[rng.choice(len(sides), p=distance / distance.sum())]])
    nearest = np.full(len(sides), -1)
    for _ in range(300):
        now = shape_iou(sides, anchors).argmax(1)
        if (now == nearest).all():
            break
        nearest = now
        anchors = np.stack([np.median(sides[nearest == k], axis=0) if (nearest == k).any() else anchors[k] for k in range(count)])
    return anchors


def anchor_fit(sides: np.ndarray, anchors: np.ndarray) -> dict[str, object]:
    """How well anchors suit boxes: mean best IoU, share of boxes whose best is over 0.5 and under 0.25, boxes nearest to each anchor."""
    if not len(sides):
        return {"boxes": 0, "mean_best_iou": None, "over_half": None, "under_quarter": None, "boxes_per_anchor": [0] * len(anchors)}
    iou = shape_iou(sides, anchors)
    best = iou.max(1)
    return {
        "boxes": len(sides),
        "mean_best_iou": round(float(best.mean()), 4),
        "over_half": round(float((best > 0.5).mean()), 4),
        "under_quarter": round(float((best < 0.25).mean()), 4),
        "boxes_per_anchor": np.bincount(iou.argmax(1), minlength=len(anchors)).tolist(),
    }


def parse_anchors(text: str) -> np.ndarray:
    """`10,14 23,27` or `10,14,23,27` -> [[10, 14], [23, 27]].

    Raises:
        InputError: not an even number of positive numbers.
    """
    try:
        numbers = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if not numbers or len(numbers) % 2 or not all(0 < number < float("inf") for number in numbers):
        raise InputError(f"anchors {text!r} are not understood; write pairs of width,height in pixels, such as '10,14 23,27'")
    return np.array(numbers).reshape(-1, 2)
