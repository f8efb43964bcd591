"""Which detection has found which object, by the rule of the PASCAL VOC devkit (VOCevaldet.m).

The detections of a class are taken from the best score down, equal scores in the order given. Each looks only at the object of its own
class and picture that it overlaps most (the first of equals). Overlap below the threshold: false positive. That object is difficult: the
detection counts neither way, however many land on it. That object is already found: false positive, even where another object would fit.

The best object does not depend on what was found before, so overlaps are worked out once and every threshold is a few array operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spyolo.evaluation.tables import Bools, DetectionTable, Floats, Ints, TruthTable, boxes_overlap

# The ten thresholds of "AP over IoU 0.5..0.95", each the nearest float to its decimal, so that an overlap of exactly 0.55 passes 0.55.
IOU_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))


def pairs_within(truth_group: Ints, detection_group: Ints) -> tuple[Ints, Ints]:
    """Every (detection, object) pair of the same group: (detection rows [P], truth rows [P]), by detection, then by truth row."""
    order = np.argsort(truth_group, kind="stable")
    first = np.searchsorted(truth_group[order], detection_group, side="left")
    count = np.searchsorted(truth_group[order], detection_group, side="right") - first
    detection = np.repeat(np.arange(len(detection_group)), count)
    within = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
    return detection, order[np.repeat(first, count) + within]


@dataclass(frozen=True)
class BestObjects:
    """For each detection, the object of its picture and class that it overlaps most."""

    overlap: Floats  # [N] intersection over union; 0 where there is nothing to overlap
    truth: Ints  # [N] row in the truth table; -1 where there is nothing to overlap


def best_objects(truth: TruthTable, detections: DetectionTable) -> BestObjects:
    """Overlap of each detection with its best object. Both tables must number pictures and classes alike."""
    classes = int(max(truth.labels.max(initial=0), detections.labels.max(initial=0))) + 1
    detection, candidate = pairs_within(truth.image * classes + truth.labels, detections.image * classes + detections.labels)
    overlap = boxes_overlap(detections.boxes[detection], truth.boxes[candidate])
    detection, candidate, overlap = detection[overlap > 0], candidate[overlap > 0], overlap[overlap > 0]
    order = np.lexsort((candidate, -overlap, detection))  # of equal overlaps, the object listed first
    rows, first = np.unique(detection[order], return_index=True)
    best = BestObjects(overlap=np.zeros(len(detections)), truth=np.full(len(detections), -1, np.int64))
    best.overlap[rows] = overlap[order][first]
    best.truth[rows] = candidate[order][first]
    return best


@dataclass(frozen=True)
class Verdicts:
    """What each detection counts as at one overlap threshold; neither mark: it lies on a difficult object and is left out."""

    true: Bools  # [N] true positive
    false: Bools  # [N] false positive


def judge(truth: TruthTable, detections: DetectionTable, best: BestObjects, threshold: float) -> Verdicts:
    """Apply the devkit's rule at one overlap threshold."""
    hit = (best.truth >= 0) & (best.overlap >= threshold)
    on_difficult = np.zeros(len(detections), np.bool_)
    on_difficult[hit] = truth.difficult[best.truth[hit]]
    claims = detections.ranking[(hit & ~on_difficult)[detections.ranking]]  # rows that may be true, best score first
    _, first = np.unique(best.truth[claims], return_index=True)
    true = np.zeros(len(detections), np.bool_)
    true[claims[first]] = True
    return Verdicts(true=true, false=~true & ~on_difficult)
