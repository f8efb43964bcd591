"""What a detector does at one confidence: precision, recall and F1 of each class, and which classes it takes for which.

Precision and recall follow the VOC matching rule (see matching). A confusion matrix needs a rule of its own, since there a detection may
meet an object of another class: pairs that overlap enough are taken one by one, those of the same class first, then by overlap, then by
score, each detection and each object at most once. What is left over meets the background. Difficult objects, and detections left over on
them, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spyolo.evaluation.matching import best_objects, judge, pairs_within
from spyolo.evaluation.tables import DetectionTable, Ints, TruthTable, boxes_overlap
from spyolo.evaluation.voc_ap import Curve


@dataclass(frozen=True)
class OperatingPoint:
    """Counts at one confidence; each share is None where it would divide by nothing."""

    true: int
    false: int
    positives: int

    @property
    def precision(self) -> float | None:
        return _share(self.true, self.true + self.false)

    @property
    def recall(self) -> float | None:
        return _share(self.true, self.positives)

    @property
    def f1(self) -> float | None:
        return _share(2 * self.true, self.true + self.false + self.positives)


def at_confidence(curve: Curve, confidence: float) -> OperatingPoint:
    """Where a class's curve stands when only scores of at least `confidence` are kept."""
    kept = int(np.searchsorted(-curve.scores, -confidence, side="right"))
    true, false = (int(curve.true[kept - 1]), int(curve.false[kept - 1])) if kept else (0, 0)
    return OperatingPoint(true, false, curve.positives)


def best_f1(curve: Curve) -> tuple[float, float] | None:
    """(confidence, F1) where the class's F1 is highest, at the highest such confidence; None without detections or positives."""
    if not curve.positives or not len(curve.scores):
        return None
    last_of_score = np.append(np.diff(curve.scores) != 0, True)  # a confidence keeps all equal scores or none
    f1, scores = curve.f1[last_of_score], curve.scores[last_of_score]
    place = int(f1.argmax())
    return float(scores[place]), float(f1[place])


def confusion_matrix(
    truth: TruthTable, detections: DetectionTable, classes: Sequence[str], confidence: float, overlap: float = 0.5
) -> Ints:
    """[K + 1, K + 1] counts: row = class of the object, column = class of the detection, the last of each = background (nothing there)."""
    background = len(classes)
    detections = detections[detections.scores >= confidence]
    hit, met, _ = _overlapping(truth, detections, overlap)
    partner = _one_to_one(truth, detections, overlap)
    on_difficult = np.zeros(len(detections), np.bool_)
    on_difficult[hit[truth.difficult[met]]] = True

    paired = np.flatnonzero(partner >= 0)
    spare = np.flatnonzero((partner < 0) & ~on_difficult)
    missed = np.setdiff1d(np.flatnonzero(~truth.difficult), partner[paired])
    matrix = np.zeros((background + 1, background + 1), np.int64)
    np.add.at(matrix, (truth.labels[partner[paired]], detections.labels[paired]), 1)
    matrix[background] += np.bincount(detections.labels[spare], minlength=background + 1)
    matrix[:, background] += np.bincount(truth.labels[missed], minlength=background + 1)
    return matrix


def picture_points(truth: TruthTable, detections: DetectionTable, confidence: float, overlap: float = 0.5) -> list[OperatingPoint]:
    """The operating point of each picture, all classes together, by the VOC matching rule: which pictures go well and which do not."""
    detections = detections[detections.scores >= confidence]
    verdicts = judge(truth, detections, best_objects(truth, detections), overlap)
    counts = [
        np.bincount(image, minlength=len(truth.ids)).tolist()
        for image in (detections.image[verdicts.true], detections.image[verdicts.false], truth.image[~truth.difficult])
    ]
    return [OperatingPoint(*numbers) for numbers in zip(*counts)]


def _overlapping(truth: TruthTable, detections: DetectionTable, overlap: float) -> tuple[Ints, Ints, np.ndarray]:
    """(detection rows, truth rows, overlaps) of all pairs of a picture that overlap enough, whatever their classes."""
    detection, candidate = pairs_within(truth.image, detections.image)
    shares = boxes_overlap(detections.boxes[detection], truth.boxes[candidate])
    enough = shares >= overlap
    return detection[enough], candidate[enough], shares[enough]


def _one_to_one(truth: TruthTable, detections: DetectionTable, overlap: float) -> Ints:
    """[N] the object each detection is paired with, or -1; difficult objects pair with nothing."""
    detection, candidate, shares = _overlapping(truth, detections, overlap)
    other_class = detections.labels[detection] != truth.labels[candidate]
    order = np.lexsort((candidate, detection, -detections.scores[detection], -shares, other_class))
    order = order[~truth.difficult[candidate[order]]]
    partner = np.full(len(detections), -1, np.int64)
    taken: set[int] = set()
    for row, target in zip(detection[order].tolist(), candidate[order].tolist()):
        if partner[row] < 0 and target not in taken:
            partner[row] = target
            taken.add(target)
    return partner


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
