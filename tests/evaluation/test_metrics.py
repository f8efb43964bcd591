"""The dictionary of metrics, its table, and the warnings about what most likely went wrong."""

from __future__ import annotations

import json

import pytest
import torch
from eval_scenes import CLASSES, found, objects, perfect, random_scene, tables

from spyolo.boxes import Detections
from spyolo.data import Letterbox
from spyolo.errors import InputError
from spyolo.evaluation.diagnosis import suspicions
from spyolo.evaluation.metrics import evaluate_detections, format_metrics, format_protocol

TRUTH = {
    "a": objects(("cat", [10, 20, 60, 90]), ("dog", [100, 10, 190, 120]), ("dog", [5, 5, 20, 20], "difficult")),
    "b": objects(("cat", [30, 30, 130, 100])),
    "c": objects(),
}
SIZES = [(200, 150)] * 3


def test_a_perfect_detector_has_every_figure():
    metrics = evaluate_detections(TRUTH, perfect(TRUTH), CLASSES, protocol={"split": "2007:val"})
    ap = {key: value for key, value in metrics.items() if "_ap" in key}
    assert ap.pop("coco_ap_small") is None  # only the difficult dog is that small
    assert len(ap) == 10 and all(value == pytest.approx(1.0) for value in ap.values())
    assert metrics["precision"] == metrics["recall"] == metrics["f1"] == 1.0
    assert metrics["absent_classes"] == ["bird"] and metrics["per_class"]["bird"]["voc07_ap50"] is None
    assert metrics["per_class"]["dog"]["objects"] == 1 and metrics["per_class"]["dog"]["difficult"] == 1
    protocol = metrics["protocol"]
    assert protocol["split"] == "2007:val" and protocol["pictures"] == 3 and protocol["pictures_without_objects"] == 1
    assert (protocol["objects"], protocol["difficult_objects"], protocol["detections"]) == (3, 1, 4)


def test_means_are_over_the_classes_that_are_there():
    guess = {"a": found(("cat", 0.9, [10, 20, 60, 90]))}  # one of two cats, no dog
    metrics = evaluate_detections(TRUTH, guess, CLASSES)
    assert metrics["per_class"]["cat"]["voc10_ap50"] == 0.5
    assert metrics["voc10_ap50"] == 0.25
    assert metrics["per_class"]["cat"]["voc07_ap50"] == pytest.approx(6 / 11)
    assert metrics["voc07_ap50"] == pytest.approx(3 / 11)
    assert (metrics["precision"], metrics["recall"]) == (1.0, 1 / 3)


def test_ap_over_thresholds_falls_where_the_box_is_loose():
    guess = {"b": found(("cat", 0.9, [30, 30, 130, 82]))}  # 52 of 70 lines: overlap 0.743, good for five thresholds
    truth = {"b": TRUTH["b"]}
    metrics = evaluate_detections(truth, guess, CLASSES)
    assert [row["voc10"] for row in metrics["by_iou"]] == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert metrics["voc10_ap50_95"] == metrics["voc07_ap50_95"] == 0.5 and metrics["voc10_ap75"] == 0


def test_the_metrics_are_json_and_twice_the_same():
    truth, guess = random_scene(11, span=80)
    first, second = (json.dumps(evaluate_detections(truth, guess, CLASSES), allow_nan=False) for _ in range(2))
    assert first == second


def test_the_order_of_pictures_and_rows_does_not_matter_without_ties():
    truth, guess = random_scene(5, pictures=6)
    scores = torch.linspace(0.1, 0.9, sum(map(len, guess.values()))).split([len(g) for g in guess.values()])
    guess = {name: Detections(g.boxes, s, g.labels) for (name, g), s in zip(guess.items(), scores)}
    turned = {name: guess[name][torch.arange(len(guess[name]) - 1, -1, -1)] for name in reversed(guess)}
    assert evaluate_detections(truth, guess, CLASSES) == evaluate_detections(truth, turned, CLASSES)


def test_the_table_shows_per_cent_and_names_absent_classes():
    metrics = evaluate_detections(TRUTH, {"a": found(("cat", 0.9, [10, 20, 60, 90]))}, CLASSES)
    text = format_metrics(metrics)
    assert "VOC10+ AP50 (area)        25.00" in text
    assert "no objects of bird: no AP, left out of the means" in text
    protocol = format_protocol(metrics["protocol"])
    assert "voc difficult: not counted" in protocol and "pictures: 3" in protocol and "coco backend: " in protocol


@pytest.mark.parametrize(
    ("guess", "message"),
    [
        ({"z": found()}, "pictures that are not in the truth: z"),
        ({"a": found(("cat", float("nan"), [0, 0, 1, 1]))}, "picture a: the score is not a number"),
        ({"a": found(("cat", 0.5, [9, 0, 1, 1]))}, "picture a: the box is upside down"),
        ({"a": Detections(torch.ones(1, 4), torch.ones(1), torch.tensor([7]))}, r"picture a: the class index is outside 0\.\.2"),
    ],
)
def test_bad_detections_are_refused(guess, message):
    with pytest.raises(InputError, match=message):
        evaluate_detections(TRUTH, guess, CLASSES)


def test_truth_of_other_classes_is_refused():
    with pytest.raises(InputError, match="same class list"):
        evaluate_detections(TRUTH, {}, CLASSES[:1])


def warned(truth, guess, **options):
    return " | ".join(suspicions(*tables(truth, guess), CLASSES, SIZES, **options))


def test_a_sound_set_of_detections_raises_no_suspicion():
    assert warned(TRUTH, perfect(TRUTH)) == ""


def test_no_detections_above_the_floor_are_pointed_out():
    assert warned(TRUTH, {}, floor=0.3) == "there are no detections at or above the confidence floor 0.3: every AP is 0"


def test_scores_that_are_all_low_or_no_probabilities_are_pointed_out():
    assert "all scores are below 0.5, where precision and recall are read; the best is 0.3" in warned(TRUTH, perfect(TRUTH, score=0.3))
    assert "not within 0..1" in warned(TRUTH, perfect(TRUTH, score=7.0))


def test_classes_that_do_not_overlap_are_pointed_out():
    only_birds = {name: Detections(g.boxes, g.scores, g.labels * 0) for name, g in perfect(TRUTH).items()}
    assert "no class is both in the truth (cat, dog) and among the detections (bird)" in warned(TRUTH, only_birds)


def test_a_truth_without_objects_is_pointed_out():
    said = {"a": found(("cat", 0.9, [0, 0, 9, 9]))}
    assert "the truth holds no object of any of the 3 classes (bird, cat, dog)" in warned({"a": objects()}, said)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("pixels of a letterboxed 416 x 416 canvas", lambda boxes: Letterbox.fit(200, 150, 416).to_canvas(boxes)),
        ("shares of the picture's sides", lambda boxes: boxes / torch.tensor([200, 150, 200, 150])),
        ("pixels of a stretched 640 x 640 canvas", lambda boxes: boxes * 640 / torch.tensor([200, 150, 200, 150])),
        ("y before x", lambda boxes: boxes[:, [1, 0, 3, 2]]),
    ],
)
def test_boxes_that_were_not_mapped_back_are_pointed_out(name, wrong):
    guess = {key: g.with_boxes(wrong(g.boxes)) for key, g in perfect(TRUTH).items()}
    assert f"read as {name}, they overlap 100% of the objects" in warned(TRUTH, guess)
