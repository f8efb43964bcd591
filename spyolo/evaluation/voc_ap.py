"""Average precision by the rules of PASCAL VOC, under both of their names.

- `voc07`: the 11-point interpolation of VOC2007: the mean, over recall 0, 0.1 ... 1, of the best precision at that recall or beyond.
- `voc10`: the area under the monotone precision-recall curve, the devkit's rule since VOC2010.

Difficult objects are not counted among the positives. A class that has no other object has no AP: it is NaN and left out of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spyolo.evaluation.matching import IOU_THRESHOLDS, Verdicts, best_objects, judge
from spyolo.evaluation.tables import Bools, DetectionTable, Floats, Ints, TruthTable


@dataclass(frozen=True)
class Curve:
    """Precision against recall of one class at one overlap threshold; one point a counted detection, from the best score down."""

    scores: Floats  # [n]
    true: Ints  # [n] true positives down to this score
    false: Ints  # [n] false positives down to this score
    positives: int  # objects to be found, difficult ones not counted

    @property
    def precision(self) -> Floats:
        return self.true / (self.true + self.false)

    @property
    def recall(self) -> Floats:
        return self.true / self.positives if self.positives else np.full(len(self.true), np.nan)

    @property
    def f1(self) -> Floats:
        return 2 * self.true / (self.true + self.false + self.positives)


@dataclass(frozen=True)
class VOCScores:
    """Average precisions in 0..1; NaN for a class without positives."""

    thresholds: tuple[float, ...]
    voc07: Floats  # [classes, thresholds]
    voc10: Floats  # [classes, thresholds]
    positives: Ints  # [classes]
    difficult: Ints  # [classes] objects left out
    curves: list[Curve]  # [classes], at the first threshold

    @property
    def absent(self) -> list[int]:
        """Classes left out of every mean."""
        return np.flatnonzero(self.positives == 0).tolist()

    def mean(self, table: Floats) -> Floats:
        """Mean over the classes that have one: [classes, thresholds] -> [thresholds], NaN where no class has."""
        return table[self.positives > 0].mean(axis=0) if (self.positives > 0).any() else np.full(len(self.thresholds), np.nan)


def envelope(precision: Floats) -> Floats:
    """The best precision from each point of a curve on: the curve made monotone."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def eleven_point_ap(curve: Curve) -> float:
    """VOC2007's AP. Recall is compared with k/10 in whole numbers: 3 of 10 reaches 0.3, although 3 * 0.1 > 0.3 in floating point."""
    if not curve.positives:
        return float("nan")
    reached = np.searchsorted(10 * curve.true, np.arange(11) * curve.positives, side="left")
    best = np.append(envelope(curve.precision), 0.0)  # a recall that is never reached has precision 0
    return float(best[reached].mean())


def area_ap(curve: Curve) -> float:
    """VOC2010's AP: each true positive adds one step of recall, 1 / positives wide, as high as the envelope."""
    if not curve.positives:
        return float("nan")
    steps = np.diff(curve.true, prepend=0) > 0
    return float(envelope(curve.precision)[steps].sum() / curve.positives)


def class_curves(truth: TruthTable, detections: DetectionTable, verdicts: Verdicts, classes: int) -> list[Curve]:
    """The curve of each class at the threshold the verdicts were made at."""
    counted: Bools = verdicts.true | verdicts.false
    ranked = detections.ranking[counted[detections.ranking]]
    positives = np.bincount(truth.labels[~truth.difficult], minlength=classes)
    curves = []
    for label in range(classes):
        rows = ranked[detections.labels[ranked] == label]
        true = verdicts.true[rows]
        curves.append(Curve(detections.scores[rows], np.cumsum(true), np.cumsum(~true), int(positives[label])))
    return curves


def score_voc(truth: TruthTable, detections: DetectionTable, classes: int, thresholds: Sequence[float] = IOU_THRESHOLDS) -> VOCScores:
    """Both VOC average precisions of every class at every overlap threshold."""
    best = best_objects(truth, detections)
    by_threshold = [class_curves(truth, detections, judge(truth, detections, best, threshold), classes) for threshold in thresholds]
    return VOCScores(
        thresholds=tuple(thresholds),
        voc07=np.array([[eleven_point_ap(curves[label]) for curves in by_threshold] for label in range(classes)]),
        voc10=np.array([[area_ap(curves[label]) for curves in by_threshold] for label in range(classes)]),
        positives=np.bincount(truth.labels[~truth.difficult], minlength=classes),
        difficult=np.bincount(truth.labels[truth.difficult], minlength=classes),
        curves=by_threshold[0],
    )
