"""Boxes on one picture, after each step, and on a stream of frames."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from spyolo import engine
from spyolo.boxes import Detections
from spyolo.checkpoint import WeightsInfo, load_detector
from spyolo.data import SAMPLE_CLASSES, DetectionDataset, VOCSet, letterbox, read_image
from spyolo.detection import Reading, build_detector
from spyolo.errors import InputError
from spyolo.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(weights_file) -> Predictor:
    return Predictor.load(weights_file, confidence=0.05)


@pytest.fixture(scope="module")
def voc(sample_root) -> VOCSet:
    return VOCSet(sample_root, "2007:val", SAMPLE_CLASSES)


def same(a: Detections, b: Detections) -> bool:
    return torch.equal(a.boxes, b.boxes) and torch.equal(a.scores, b.scores) and torch.equal(a.labels, b.labels)


def test_it_works_as_its_file_says(predictor):
    assert predictor.classes == SAMPLE_CLASSES and (predictor.timesteps, predictor.size) == (2, 64)
    assert not predictor.detector.training


def test_boxes_are_best_first_in_the_picture_s_pixels(predictor, voc):
    for i in range(len(voc)):
        image = voc.image(i)
        before = image.copy()
        seen = predictor.predict(image)
        width, height = voc.size(i)
        assert len(seen) > 0 and seen.scores.min() > 0.05
        assert seen.scores.tolist() == sorted(seen.scores.tolist(), reverse=True)
        assert (seen.boxes[:, :2] >= 0).all() and (seen.boxes[:, 2:] <= torch.tensor([width, height])).all()
        assert seen.boxes[:, 2:].max() > 64 and np.array_equal(image, before)


def test_a_prediction_is_what_evaluation_sees(predictor, voc):
    """The same letterbox, steps and thresholds: only the way in differs."""
    reading = Reading(0.05, one_class_per_box=True)
    found = engine.detect(predictor.detector, DetectionDataset(voc, 64, "eval"), (2,), reading=reading, batch_size=1)[2]
    for i, name in enumerate(voc.ids):
        assert same(predictor.predict(voc.image(i)), found[name])


def test_what_was_seen_before_does_not_matter(predictor, voc):
    first = predictor.predict(voc.image(0))
    predictor.predict(voc.image(1))
    list(predictor.stream([voc.image(2)]))
    assert same(predictor.predict(voc.image(0)), first)


def test_each_step_is_read_out(weights_file, voc):
    predictor = Predictor.load(weights_file, confidence=0.05, timesteps=4)
    steps = predictor.each_step(voc.image(0))
    assert len(steps) == 4 and same(steps[-1], predictor.predict(voc.image(0))) and not same(steps[0], steps[-1])
    assert same(steps[1], Predictor.load(weights_file, confidence=0.05).predict(voc.image(0)))


def test_an_ordinary_network_is_shown_a_picture_or_frame_once(voc, monkeypatch):
    twin = build_detector("yolov4_tiny", len(SAMPLE_CLASSES), width=0.1).eval()
    predictor = Predictor(twin, WeightsInfo(twin.spec, SAMPLE_CLASSES, size=64, timesteps=3), confidence=0.0)
    calls, inner = [], twin.step
    monkeypatch.setattr(twin, "step", lambda *args, **kwargs: (calls.append(1), inner(*args, **kwargs))[1])
    (seen,) = predictor.each_step(voc.image(0))
    assert len(calls) == 1 and same(predictor.step(voc.image(0), steps=4)[0], seen) and len(calls) == 2


def test_where_no_fast_path_is_taken_the_precision_asked_for_stays():
    twin = build_detector("yolov4_tiny", len(SAMPLE_CLASSES), width=0.1).eval()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        predictor = Predictor(twin, WeightsInfo(twin.spec, SAMPLE_CLASSES, size=64, timesteps=1), amp="bf16", fast="bf16")
    said = " ".join(str(t.message) for t in told)  # a CPU without bf16 instructions says so too
    assert predictor.amp == "bf16" and "no fast path here" in said and "is not read" not in said


def test_a_stream_carries_its_state_from_frame_to_frame(weights_file, voc):
    """A still camera: frame by frame it sees what it would see of one picture step by step."""
    predictor = Predictor.load(weights_file, confidence=0.05, timesteps=4)
    still = [voc.image(0)] * 4
    for a, b in zip(predictor.stream(still), predictor.each_step(voc.image(0)), strict=True):
        assert same(a, b)
    state = None
    for frame, expected in zip(still, predictor.stream(still)):
        seen, state = predictor.step(frame, state)
        assert same(seen, expected)
    other = list(predictor.stream([voc.image(1), voc.image(0)]))[-1]
    assert not same(other, predictor.each_step(voc.image(0))[0])  # the frame before is not forgotten


def test_frames_of_any_shape_may_follow_each_other(predictor):
    frames = [np.full((h, w, 3), 90, np.uint8) for h, w in ((40, 60), (60, 40), (1, 200), (500, 3))]
    for frame, seen in zip(frames, predictor.stream(frames)):
        assert (seen.boxes[:, 2:] <= torch.tensor([frame.shape[1], frame.shape[0]])).all()


def test_options(weights_file, voc):
    image = voc.image(0)
    ways = ({}, {"nms_iou": 1.0}, {"max_detections": 1})
    usual, crowded, one = (len(Predictor.load(weights_file, confidence=0.05, **way).predict(image)) for way in ways)
    assert one == 1 < usual < crowded
    assert len(Predictor.load(weights_file, confidence=1.0).predict(image)) == 0
    large = Predictor.load(weights_file, size=96)
    assert large.size == 96 and large.predict(image).boxes.dtype == torch.float32
    rough = Predictor.load(weights_file, confidence=0.05, amp="bf16").predict(image)
    assert len(rough) > 0


def test_boxes_are_read_with_the_vote_of_the_file_unless_another_is_asked_for(weights_file, voc):
    detector, info = load_detector(weights_file)
    said = replace(info, vote_iou=0.4)
    plain, voted, told, silenced = (
        Predictor(detector, i, confidence=0.05, vote_iou=iou).predict(voc.image(0))
        for i, iou in ((info, None), (said, None), (info, 0.4), (said, 0.0))
    )
    assert torch.equal(voted.boxes, told.boxes) and torch.equal(plain.boxes, silenced.boxes)
    assert torch.equal(voted.scores, plain.scores) and not torch.equal(voted.boxes, plain.boxes)


def test_boxes_are_dropped_at_the_overlap_of_the_file_unless_another_is_asked_for(weights_file, voc):
    detector, info = load_detector(weights_file)
    counts = [
        len(Predictor(detector, i, confidence=0.05, nms_iou=iou).predict(voc.image(0)))
        for i, iou in ((info, None), (replace(info, nms_iou=0.1), None), (info, 0.1), (replace(info, nms_iou=0.1), 0.5))
    ]
    assert counts[1] == counts[2] < counts[0] == counts[3]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"timesteps": 0}, "timesteps: a whole number from 1"), ({"timesteps": -1}, "timesteps: a whole number from 1"),
        ({"size": 0}, "size: a multiple of 32"), ({"size": 100}, "size: a multiple of 32"),
        ({"max_detections": -1}, "max_detections: a whole number from 1"),
        ({"confidence": 5}, "confidence: a number from 0 to 1"), ({"nms_iou": -1}, "nms_iou: a number from 0 to 1"),
        ({"vote_iou": float("nan")}, "vote_iou: a number from 0 to 1"), ({"amp": "fp8"}, "amp must be auto, none or bf16, got 'fp8'"),
    ],
)  # fmt: skip
def test_options_out_of_their_range_are_told_at_once(weights_file, option, told):
    with pytest.raises(InputError, match=told):
        Predictor.load(weights_file, **option)


@pytest.mark.parametrize("image", [np.full((8, 8, 3), 0.5, np.float32), np.zeros((0, 8, 3), np.uint8)])
def test_pictures_that_are_none_are_told(predictor, image):
    with pytest.raises(InputError, match=r"takes pictures, uint8 \[H, W, 3\]; got an array of"):
        predictor.predict(image)


def test_one_class_a_box(predictor, voc):
    seen = predictor.predict(voc.image(0))
    places = {tuple(box) for box in seen.boxes.tolist()}
    assert len(places) == len(seen)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no such weights file"):
        Predictor.load(tmp_path / "nowhere.safetensors")


def test_a_picture_from_disk_is_the_same_picture(predictor, voc):
    assert np.array_equal(read_image(voc.image_path(0)), voc.image(0))
    canvas, place = letterbox(voc.image(0), predictor.size)
    assert canvas.shape == (64, 64, 3) and place.scale < 1
