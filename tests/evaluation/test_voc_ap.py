"""The devkit's rules, one hand-worked case each, and agreement with an independent scorer on random scenes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from eval_scenes import CLASSES, devkit_ap, found, objects, scenes, tables
from hypothesis import given, settings

from spyolo.boxes import Detections
from spyolo.evaluation.matching import IOU_THRESHOLDS, best_objects, judge
from spyolo.evaluation.voc_ap import Curve, area_ap, eleven_point_ap, score_voc

BOX = [0, 0, 10, 10]
FAR = [50, 50, 60, 60]


def verdicts(truth, detections, threshold=0.5):
    """`+` true, `-` false, `.` left out: one character a detection, in the order given."""
    truth, detections = tables({"a": truth}, {"a": detections})
    judged = judge(truth, detections, best_objects(truth, detections), threshold)
    return "".join("+" if true else "-" if false else "." for true, false in zip(judged.true, judged.false))


def test_an_overlap_equal_to_the_threshold_is_a_match():
    half = [0, 0, 10, 5]  # 50 of 100 pixels: overlap exactly 0.5
    assert verdicts(objects(("cat", BOX)), found(("cat", 0.9, half))) == "+"
    assert verdicts(objects(("cat", BOX)), found(("cat", 0.9, half)), threshold=0.55) == "-"


@pytest.mark.parametrize("percent", range(50, 100, 5))
def test_every_threshold_is_met_by_an_overlap_of_exactly_that_share(percent):
    truth, guess = objects(("cat", [0, 0, 10, 100])), found(("cat", 0.9, [0, 0, 10, percent]))
    place = IOU_THRESHOLDS.index(percent / 100)
    assert verdicts(truth, guess, IOU_THRESHOLDS[place]) == "+"
    assert all(verdicts(truth, guess, higher) == "-" for higher in IOU_THRESHOLDS[place + 1 :])


def test_overlap_is_the_devkits_with_its_one_pixel_more():
    # VOC corners (1, 1, 2, 2) and (2, 1, 3, 2), inclusive: 2 x 2 pixels each, 2 in common, 6 together.
    truth, guess = tables({"a": objects(("cat", [0, 0, 2, 2]))}, {"a": found(("cat", 0.9, [1, 0, 3, 2]))})
    assert best_objects(truth, guess).overlap.tolist() == [1 / 3]


def test_a_second_detection_of_a_found_object_is_false():
    assert verdicts(objects(("cat", BOX)), found(("cat", 0.9, BOX), ("cat", 0.8, BOX))) == "+-"


def test_the_better_score_takes_the_object_whatever_the_order_of_rows():
    assert verdicts(objects(("cat", BOX)), found(("cat", 0.3, BOX), ("cat", 0.8, [0, 0, 10, 9]))) == "-+"


def test_equal_scores_are_taken_in_the_order_given():
    assert verdicts(objects(("cat", BOX)), found(("cat", 0.5, [0, 0, 10, 9]), ("cat", 0.5, BOX))) == "+-"


def test_a_box_whose_best_object_is_taken_is_false_even_where_another_would_fit():
    truth = objects(("cat", [0, 0, 10, 10]), ("cat", [0, 2, 10, 12]))
    both_fit = [0, 0, 10, 11]  # 10/11 of the first, 9/12 of the second
    assert verdicts(truth, found(("cat", 0.9, [0, 0, 10, 10]), ("cat", 0.8, both_fit))) == "+-"


def test_of_equally_good_objects_the_one_listed_first_is_meant():
    truth = objects(("cat", [0, 0, 10, 10]), ("cat", [0, 2, 10, 12], "difficult"))
    between = [0, 1, 10, 11]
    assert verdicts(truth, found(("cat", 0.9, between))) == "+"
    assert verdicts(truth[[1, 0]], found(("cat", 0.9, between))) == "."


def test_a_difficult_object_counts_neither_way_however_often_it_is_found():
    truth = objects(("cat", BOX, "difficult"), ("cat", FAR))
    assert verdicts(truth, found(("cat", 0.9, BOX), ("cat", 0.8, BOX), ("cat", 0.7, FAR), ("cat", 0.6, BOX))) == "..+."
    # ... but a box that overlaps it too little is as false as anywhere
    assert verdicts(truth, found(("cat", 0.9, [0, 0, 10, 4]))) == "-"


def test_only_objects_of_the_same_class_and_picture_are_looked_at():
    assert verdicts(objects(("dog", BOX)), found(("cat", 0.9, BOX))) == "-"
    truth, detections = tables({"a": objects(("cat", BOX)), "b": objects()}, {"b": found(("cat", 0.9, BOX))})
    assert judge(truth, detections, best_objects(truth, detections), 0.5).false.tolist() == [True]


def test_a_box_without_area_is_a_false_positive():
    assert verdicts(objects(("cat", BOX)), found(("cat", 0.9, [3, 3, 3, 3]))) == "-"


def test_both_average_precisions_worked_out_by_hand():
    # Four objects; in order of score: true, false, true, false, false, true; one is never found.
    # recall .25 .25 .5 .5 .5 .75, precision 1 1/2 2/3 1/2 2/5 1/2; envelope at the true ones 1, 2/3, 1/2.
    curve = Curve(np.linspace(0.9, 0.4, 6), np.array([1, 1, 2, 2, 2, 3]), np.array([0, 1, 1, 2, 3, 3]), positives=4)
    assert area_ap(curve) == pytest.approx((1 + 2 / 3 + 1 / 2) / 4)
    # recall 0, .1, .2 -> 1; .3, .4, .5 -> 2/3; .6, .7 -> 1/2; .8, .9, 1 -> 0
    assert eleven_point_ap(curve) == pytest.approx((3 * 1 + 3 * 2 / 3 + 2 * 1 / 2) / 11)


def test_three_of_ten_reach_recall_three_tenths():
    curve = Curve(np.array([0.9, 0.8, 0.7]), np.array([1, 2, 3]), np.array([0, 0, 0]), positives=10)
    assert eleven_point_ap(curve) == pytest.approx(4 / 11)  # recall 0, .1, .2, .3


def test_an_absent_class_has_no_ap_and_is_left_out_of_the_mean():
    truth = {"a": objects(("cat", BOX), ("dog", FAR, "difficult"))}
    scores = score_voc(*tables(truth, {"a": found(("cat", 0.9, BOX), ("bird", 0.9, BOX), ("dog", 0.9, BOX))}), len(CLASSES))
    assert scores.absent == [0, 2]  # no bird at all, and only a difficult dog
    assert np.isnan(scores.voc07[[0, 2]]).all() and np.isnan(scores.voc10[[0, 2]]).all()
    assert scores.mean(scores.voc07)[0] == scores.mean(scores.voc10)[0] == 1.0
    assert scores.positives.tolist() == [0, 1, 0] and scores.difficult.tolist() == [0, 0, 1]


def test_no_detections_give_zero_and_no_truth_gives_no_figure():
    nothing_found = score_voc(*tables({"a": objects(("cat", BOX))}, {}), len(CLASSES))
    assert nothing_found.voc07[1].tolist() == nothing_found.voc10[1].tolist() == [0.0] * 10
    no_truth = score_voc(*tables({"a": objects()}, {"a": found(("cat", 0.9, BOX))}), len(CLASSES))
    assert np.isnan(no_truth.mean(no_truth.voc07)).all()
    assert score_voc(*tables({}, {}), len(CLASSES)).absent == [0, 1, 2]


def test_a_perfect_detector_scores_one_at_every_threshold():
    truth = {"a": objects(("cat", BOX), ("cat", FAR), ("dog", BOX))}
    guess = {"a": Detections(truth["a"].boxes, truth["a"].boxes[:, 0] * 0 + 0.5, truth["a"].labels)}
    scores = score_voc(*tables(truth, guess), len(CLASSES))
    assert scores.mean(scores.voc07).tolist() == scores.mean(scores.voc10).tolist() == [1.0] * 10


@settings(max_examples=60, deadline=None)
@given(scenes)
def test_random_scenes_agree_with_the_independent_scorer(scene):
    truth, detections = scene
    scores = score_voc(*tables(truth, detections), len(CLASSES))
    for label in range(len(CLASSES)):
        for place, percent in enumerate(range(50, 100, 5)):
            expected = devkit_ap(truth, detections, label, Fraction(percent, 100))
            if expected is None:
                assert np.isnan(scores.voc07[label, place])
            else:
                assert scores.voc07[label, place] == pytest.approx(expected[0], abs=1e-12)
                assert scores.voc10[label, place] == pytest.approx(expected[1], abs=1e-12)
