"""Precision, recall and F1 at one confidence, and the confusion matrix, on scenes small enough to count by eye."""

from __future__ import annotations

import pytest
from eval_scenes import CLASSES, found, objects, tables

from spyolo.evaluation.operating import OperatingPoint, at_confidence, best_f1, confusion_matrix, picture_points
from spyolo.evaluation.voc_ap import score_voc

A, B, C, D = [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]
BIRD, CAT, DOG, BACKGROUND = range(4)


@pytest.fixture
def cat_curve():
    truth = {"a": objects(("cat", A), ("cat", B), ("cat", C, "difficult"), ("cat", D))}
    guess = {"a": found(("cat", 0.9, A), ("cat", 0.75, [0, 80, 9, 90]), ("cat", 0.5, B), ("cat", 0.5, C), ("cat", 0.25, A))}
    return score_voc(*tables(truth, guess), len(CLASSES)).curves[CAT]


def test_a_confidence_keeps_scores_equal_to_it(cat_curve):
    assert at_confidence(cat_curve, 0.5) == OperatingPoint(true=2, false=1, positives=3)
    assert at_confidence(cat_curve, 0.51) == OperatingPoint(true=1, false=1, positives=3)
    assert at_confidence(cat_curve, 0.95) == OperatingPoint(true=0, false=0, positives=3)
    assert at_confidence(cat_curve, 0.0) == OperatingPoint(true=2, false=2, positives=3)


def test_shares_and_their_gaps():
    point = OperatingPoint(true=2, false=1, positives=4)
    assert (point.precision, point.recall, point.f1) == (2 / 3, 1 / 2, 4 / 7)
    assert OperatingPoint(0, 0, 4).precision is None and OperatingPoint(0, 0, 4).recall == 0
    assert OperatingPoint(0, 3, 0).recall is None and OperatingPoint(0, 0, 0).f1 is None


def test_the_best_f1_names_its_confidence(cat_curve):
    assert best_f1(cat_curve) == (0.5, pytest.approx(2 * 2 / (3 + 3)))


def test_confusion_counts_what_is_taken_for_what():
    truth = {"a": objects(("cat", A), ("dog", B), ("bird", C)), "b": objects(("cat", A))}
    guess = {"a": found(("cat", 0.9, A), ("cat", 0.8, B), ("dog", 0.7, D)), "b": found(("cat", 0.3, A))}
    matrix = confusion_matrix(*tables(truth, guess), CLASSES, confidence=0.5)
    expected = {(CAT, CAT): 1, (DOG, CAT): 1, (BIRD, BACKGROUND): 1, (BACKGROUND, DOG): 1, (CAT, BACKGROUND): 1}
    assert {(i, j): int(matrix[i, j]) for i in range(4) for j in range(4) if matrix[i, j]} == expected


def test_the_same_class_goes_before_a_better_overlap():
    truth = {"a": objects(("cat", A))}
    guess = {"a": found(("dog", 0.9, A), ("cat", 0.6, [0, 0, 10, 8]))}
    matrix = confusion_matrix(*tables(truth, guess), CLASSES, confidence=0.5)
    assert matrix[CAT, CAT] == 1 and matrix[BACKGROUND, DOG] == 1 and matrix.sum() == 2


def test_difficult_objects_and_what_lies_on_them_are_left_out():
    truth = {"a": objects(("cat", A, "difficult"), ("dog", B, "difficult"))}
    guess = {"a": found(("cat", 0.9, A), ("cat", 0.8, A), ("bird", 0.7, A))}
    assert confusion_matrix(*tables(truth, guess), CLASSES, confidence=0.5).sum() == 0


def test_rows_sum_to_the_objects_and_columns_to_the_detections():
    truth = {"a": objects(("cat", A), ("cat", B), ("dog", C))}
    guess = {"a": found(("cat", 0.9, A), ("cat", 0.8, A), ("cat", 0.8, D), ("bird", 0.9, C))}
    matrix = confusion_matrix(*tables(truth, guess), CLASSES, confidence=0.5)
    assert matrix[:-1].sum(axis=1).tolist() == [0, 2, 1]
    assert matrix[:, :-1].sum(axis=0).tolist() == [1, 3, 0]


def test_each_picture_has_a_point_of_its_own():
    truth = {"a": objects(("cat", A), ("dog", B)), "b": objects(), "c": objects(("cat", A, "difficult"))}
    guess = {"a": found(("cat", 0.9, A), ("dog", 0.4, B)), "b": found(("cat", 0.9, A)), "c": found(("cat", 0.9, A))}
    points = picture_points(*tables(truth, guess), confidence=0.5)
    assert points == [OperatingPoint(1, 0, 2), OperatingPoint(0, 1, 0), OperatingPoint(0, 0, 0)]
