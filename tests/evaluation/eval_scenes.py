"""Small scenes written as Python lists, random scenes, and a VOC scorer written from the devkit's text with none of our code."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from hypothesis import strategies as st

from spyolo.boxes import Detections, Objects
from spyolo.evaluation.tables import DetectionTable, TruthTable

CLASSES = ("bird", "cat", "dog")


def objects(*rows):
    """Rows of (class name, box) or (class name, box, "difficult")."""
    return Objects(
        boxes=torch.tensor([row[1] for row in rows], dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor([CLASSES.index(row[0]) for row in rows], dtype=torch.int64),
        difficult=torch.tensor([len(row) > 2 for row in rows], dtype=torch.bool),
    )


def found(*rows):
    """Rows of (class name, score, box)."""
    return Detections(
        boxes=torch.tensor([row[2] for row in rows], dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([row[1] for row in rows], dtype=torch.float32),
        labels=torch.tensor([CLASSES.index(row[0]) for row in rows], dtype=torch.int64),
    )


def tables(truth, detections):
    truth_table = TruthTable.of(truth)
    return truth_table, DetectionTable.of(detections, truth_table.ids, CLASSES)


def perfect(truth, score=0.9):
    """A detector that says exactly what is there."""
    return {name: Detections(o.boxes, torch.full((len(o),), score), o.labels) for name, o in truth.items()}


def random_scene(seed, pictures=4, span=12):
    """Crowded little pictures on whole pixels, so that ties, exact thresholds and doubles happen; few distinct scores."""
    draw = np.random.default_rng(seed)
    truth, detections = {}, {}
    for picture in range(pictures):
        names = f"{picture:06d}"

        def boxes(count):
            corner = draw.integers(0, span, (count, 2))
            corners = np.concatenate([corner, corner + draw.integers(1, span, (count, 2))], axis=1)
            return torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)

        n, m = draw.integers(0, 6), draw.integers(0, 12)
        labels = torch.tensor(draw.integers(0, len(CLASSES), n))
        truth[names] = Objects(boxes(n), labels, torch.tensor(draw.random(n) < 0.3))
        guess, copied = boxes(m), draw.random(m) < 0.5
        guess_labels = torch.tensor(draw.integers(0, len(CLASSES), m))
        for row in np.flatnonzero(copied & (n > 0)):  # half of them near something
            target = draw.integers(0, n)
            guess[row] = truth[names].boxes[target] + torch.tensor([0.0, 0.0, *draw.integers(0, 3, 2)])
            guess_labels[row] = labels[target]
        detections[names] = Detections(guess, torch.tensor(draw.integers(1, 6, m) / 8, dtype=torch.float32), guess_labels)
    return truth, detections


scenes = st.integers(0, 2**32 - 1).map(random_scene)


def devkit_ap(truth, detections, label, threshold):
    """(VOC07 AP, VOC10 AP) of one class, or None for an absent one. VOCevaldet.m in plain Python: 1-based inclusive corners, fractions."""
    boxes = {name: [_corners(b) for b, k in zip(o.boxes, o.labels) if k == label] for name, o in truth.items()}
    hard = {name: [bool(d) for d, k in zip(o.difficult, o.labels) if k == label] for name, o in truth.items()}
    positives = sum(not d for flags in hard.values() for d in flags)
    rows = [(float(s), name, _corners(b)) for name, f in detections.items() for b, s, k in zip(f.boxes, f.scores, f.labels) if k == label]
    rows.sort(key=lambda row: -row[0])
    taken = {name: [False] * len(flags) for name, flags in hard.items()}
    true = false = 0
    curve = []
    for _, name, box in rows:
        most, which = Fraction(-1), None
        for place, other in enumerate(boxes[name]):
            width = min(box[2], other[2]) - max(box[0], other[0]) + 1
            height = min(box[3], other[3]) - max(box[1], other[1]) + 1
            if width > 0 and height > 0:
                common = width * height
                share = Fraction(common, _area(box) + _area(other) - common)
                if share > most:
                    most, which = share, place
        if most >= threshold:
            if hard[name][which]:
                continue
            if taken[name][which]:
                false += 1
            else:
                true += 1
                taken[name][which] = True
        else:
            false += 1
        curve.append((Fraction(true, positives) if positives else None, Fraction(true, true + false)))
    if not positives:
        return None
    eleven = sum(max((p for r, p in curve if r >= Fraction(k, 10)), default=Fraction(0)) for k in range(11)) / 11
    area, before = Fraction(0), Fraction(0)
    for place, (recall, _) in enumerate(curve):
        area += (recall - before) * max(p for _, p in curve[place:])
        before = recall
    return float(eleven), float(area)


def _corners(box):
    x1, y1, x2, y2 = (int(v) for v in box)
    return x1 + 1, y1 + 1, x2, y2


def _area(box):
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
