"""The stream score on detectors whose behaviour is known: one that knows the truth, one that lags, one that forgets; and a real one."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from test_stream_video import Drawn
from torch import nn

from spyolo.boxes import Detections
from spyolo.detection import build_detector, postprocess
from spyolo.evaluation.meter import dense_counts
from spyolo.evaluation.stream import StreamMode, carried, format_stream, fresh, run_stream
from spyolo.evaluation.video import PseudoVideo

CLASSES = ("circle", "square")


@pytest.fixture(autouse=True)
def nothing_is_compiled():
    """Compiling a kernel takes longer than all of these tests."""
    with torch.compiler.set_stance("force_eager"):
        yield


def video(**options):
    return PseudoVideo(Drawn(), **({"size": 64, "clips": 2, "shots": 3, "frames": 4} | options))


class Oracle:
    """Knows the truth of every frame; what it says is up to `say(truth, frame number in the clip)`."""

    def __init__(self, source, say):
        self.clips = [[frame.objects for frame in source.clip(i)] for i in range(len(source))]
        self.say = say

    def __call__(self, images, state):
        number = 0 if state is None else state
        found = []
        for clip in self.clips:
            truth = self.say(clip, number)
            found.append(Detections(truth.boxes, torch.full((len(truth),), 0.9), truth.labels))
        return found, number + 1


def test_a_detector_that_knows_the_truth_scores_one_everywhere():
    stream = video()
    result = run_stream(stream, {"oracle": StreamMode(Oracle(stream, lambda clip, n: clip[n]))}, CLASSES)
    mode = result["modes"]["oracle"]
    assert mode["voc10_ap50"] == mode["voc07_ap50"] == 1.0
    assert [row["voc10_ap50"] for row in mode["since_cut"]] == [1.0] * 4
    assert [row["frames"] for row in mode["since_cut"]] == [4] * 4  # two clips, two shots after a cut
    assert [row["frames"] for row in mode["since_start"]] == [2] * 4
    assert mode["flicker"] < 0.02
    assert mode["energy"] is None


def test_a_detector_one_frame_late_fails_right_after_the_cut():
    """It reports the frame before: nearly right within a shot, wrong at its first frame."""
    stream = video(frames=12, seed=1)
    late = StreamMode(Oracle(stream, lambda clip, n: clip[max(n - 1, 0)]))
    rows = run_stream(stream, {"late": late}, CLASSES)["modes"]["late"]["since_cut"]
    assert rows[0]["voc10_ap50"] < 0.6
    assert rows[5]["voc10_ap50"] > rows[0]["voc10_ap50"] + 0.3


def test_a_detector_that_sees_every_other_frame_flickers_fully():
    stream = video()
    nothing = torch.zeros(0, dtype=torch.int64)
    blinking = StreamMode(Oracle(stream, lambda clip, n: clip[n] if n % 2 == 0 else clip[n][nothing]))
    mode = run_stream(stream, {"blinking": blinking}, CLASSES)["modes"]["blinking"]
    assert mode["flicker"] == 1.0
    assert mode["jitter"] is None


def real_modes():
    torch.manual_seed(0)
    detector = build_detector("spyv4_lite", 2, width=0.25).eval()
    twin = build_detector("yolov4_tiny", 2, width=0.25).eval()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, -1, 2)  # so that something fires

    def read(model):
        return partial(postprocess, anchors=model.anchors, strides=model.strides)

    return detector, twin, {
        "carried": carried(detector, read(detector)),
        "fresh T=3": fresh(detector, 3, read(detector)),
        "ann twin": fresh(twin, 1, read(twin)),
    }  # fmt: skip


def test_energy_a_frame_of_the_three_ways():
    """Carried: one step and one encoder a frame; fresh: three steps, one encoder; the twin: its dense products."""
    detector, twin, modes = real_modes()
    result = run_stream(video(), modes, CLASSES, batch_size=2)
    energy = {name: mode["energy"] for name, mode in result["modes"].items()}
    plain = dense_counts(twin, torch.zeros(1, 3, 64, 64)).total("synapse").dense_macs
    assert energy["ann twin"]["synaptic_mj"] == pytest.approx(plain * 4.6e-9)
    gates = dense_counts(detector, torch.zeros(1, 3, 64, 64)).total("gate").dense_macs * 4.6e-9
    assert energy["carried"]["gates_mj"] == pytest.approx(gates)
    assert energy["fresh T=3"]["gates_mj"] == pytest.approx(3 * gates)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    text = format_stream(result)
    for word in ("carried", "fresh T=3", "ann twin", "flicker", "+3"):
        assert word in text, word


def test_carried_state_is_carried_and_fresh_steps_are_not():
    """What a carried mode says of a frame depends on the frames before; running clips side by side changes nothing."""
    seen = {}

    def read(name, predictions):
        seen.setdefault(name, []).append([p.clone() for p in predictions])
        return [Detections.empty() for _ in predictions[0]]

    detector, _, _ = real_modes()
    stream = video(clips=1, shots=2, frames=2)
    for name in ("carried", "fresh"):
        mode = carried(detector, partial(read, name)) if name == "carried" else fresh(detector, 1, partial(read, name))
        run_stream(stream, {name: mode}, CLASSES)
    assert all(torch.equal(a, b) for a, b in zip(seen["carried"][0], seen["fresh"][0]))  # the first frame: both start at rest
    assert not all(torch.equal(a, b) for a, b in zip(seen["carried"][1], seen["fresh"][1]))


def test_batches_of_clips_give_the_same_scores():
    """On a detector of white rectangles that looks at the pixels."""

    def step(images, state):
        found = []
        for image in images:
            white = (image > 127).all(0).nonzero()
            if not len(white):
                found.append(Detections.empty())
                continue
            (y1, x1), (y2, x2) = white.min(0).values.tolist(), (white.max(0).values + 1).tolist()
            found.append(Detections(torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32), torch.tensor([0.9]), torch.tensor([1])))
        return found, None

    results = [run_stream(video(clips=3), {"seeing": StreamMode(step)}, CLASSES, batch_size=size) for size in (1, 2, 3)]
    assert results[0] == results[1] == results[2]
    assert results[0]["modes"]["seeing"]["voc10_ap50"] > 0.9
