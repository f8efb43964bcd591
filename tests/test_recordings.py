"""A detector on event recordings: the state goes from window to window, it learns from clips, and every command takes what it made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from event_files import make_recordings

from spyolo import engine, recordings
from spyolo.boxes import Objects
from spyolo.checkpoint import WeightsInfo, load_detector, save_weights
from spyolo.cli import run
from spyolo.data.events_clips import EventClips, EventPlayback, collate_clips
from spyolo.data.events_set import EventSet
from spyolo.detection import DetectionLoss, Reading, build_detector, postprocess
from spyolo.errors import InputError
from spyolo.evaluation.energy import EnergyMeter
from spyolo.learning import BPTT, FPTT
from spyolo.neurons import detach
from spyolo.predictor import Predictor
from spyolo.trainer import Trainer


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return make_recordings(tmp_path_factory.mktemp("events"))


def tiny(seed: int = 0, **options: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_detector("spyv4_lite", 2, width=0.05, threshold=0.2, in_channels=2, **options)


@pytest.fixture
def seeing(root) -> torch.nn.Module:
    detector = tiny()
    clips = EventClips(EventSet(root, "train"), 64, 4, "eval")
    engine.recalibrate(detector, [collate_clips([clips[0], clips[4]])], 4, device=torch.device("cpu"))
    with torch.no_grad():
        for head in detector.heads:
            head.conv.weight.normal_(std=0.3)
    return detector.eval()


def test_recordings_are_played_with_one_state_from_start_to_end(root, seeing):
    """Side by side and one by one say the same; and that is a loop over windows."""
    events = EventSet(root, "val")
    how = {"reading": Reading(0.01)}
    together, alone = (recordings.detect(seeing, EventPlayback(events, 64, n), (1,), **how)[1] for n in (8, 1))
    assert list(together) == list(alone) == events.ids
    state, expected = None, None
    for window in range(8):
        frame = EventPlayback(events, 64, 1)[window]
        with torch.inference_mode():
            predictions, state = seeing(frame, state)
        expected = postprocess(predictions, seeing.anchors, seeing.strides, Reading(0.01))[0]
    expected = engine.in_picture(expected, EventPlayback(events, 64).place(0), 304, 240)
    found = alone["val0@7"]
    assert len(found) > 0 and torch.equal(found.scores, expected.scores)
    for name in events.ids:
        torch.testing.assert_close(together[name].scores, alone[name].scores, rtol=1e-4, atol=1e-5)
        assert (alone[name].boxes[:, 2] <= 304).all() and (alone[name].boxes[:, 3] <= 240).all()
    with torch.inference_mode():  # the state matters: the same window from rest is another
        fresh = postprocess(seeing(EventPlayback(events, 64, 1)[7])[0], seeing.anchors, seeing.strides, Reading(0.01))[0]
        fresh = engine.in_picture(fresh, EventPlayback(events, 64).place(0), 304, 240)
    assert len(fresh) != len(expected) or not torch.equal(fresh.scores, expected.scores)


def test_a_recording_that_has_ended_costs_nothing(tmp_path, seeing):
    """Boxes, operations and their price are those of each recording played alone, however many are played side by side."""
    events = EventSet(uneven(tmp_path), "val")
    measured = []
    for together in (8, 1):
        with EnergyMeter(seeing) as meter:
            found = recordings.detect(seeing, EventPlayback(events, 64, together), (1,), reading=Reading(0.01))[1]
        measured.append((found, meter.counts().per_step()))
    (together, counts), (alone, wanted) = measured
    assert [events.end_of_truth(r) for r in range(3)] == [4, 12, 8] and counts.pictures == wanted.pictures == 24
    assert counts.total() == wanted.total()
    for name in events.ids:
        torch.testing.assert_close(together[name].scores, alone[name].scores, rtol=1e-4, atol=1e-5)


def uneven(root: Path) -> Path:
    """Recordings whose boxes end after one, three and two of the three times."""
    make_recordings(root, {"val": 3})
    for number, kept in enumerate((1, 3, 2)):
        path = root / "val" / f"val{number}_bbox.npy"
        np.save(path, np.load(path)[:kept])
    return root


@pytest.mark.parametrize("plan", [[1, 1, 1, 1], [2, 2], [4]])
def test_a_clip_is_learned_window_by_window(root, plan):
    """As a loop by hand over the windows; a part without truth moves no weight but hands its state on."""
    clips = EventClips(EventSet(root, "train"), 64, 4, "eval")
    batch = collate_clips([clips[0], clips[4]])
    detector, twin = tiny(), tiny()
    updates = []
    rule = FPTT(torch.optim.SGD(detector.parameters(), 0.01), 0.3)
    noted = {"after_update": lambda: updates.append(1)}
    log = engine.train_batch(detector.train(), DetectionLoss(), rule, batch.images, batch.objects, plan, **noted)
    by_hand, loss, state, at = FPTT(torch.optim.SGD(twin.parameters(), 0.01), 0.3), DetectionLoss(), None, 0
    twin.train()
    expected = 0
    for steps in plan:
        state = None if state is None else detach(state)
        part, known = torch.zeros(()), False
        by_hand.optimizer.zero_grad(set_to_none=True)
        for step in range(at, at + steps):
            predictions, state = twin(batch.images[step], state)
            if all(o is None for o in batch.objects[step]):
                continue
            known = True
            part = part + loss(twin, predictions, loss.assign(twin, batch.objects[step], (64, 64))).total / steps
        at += steps
        if known:
            part.backward()
            by_hand.step()
            expected += 1
    assert len(updates) == expected == 1  # truth comes with the last window of these clips only
    for (name, a), b in zip(detector.state_dict().items(), twin.state_dict().values()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)
    assert torch.isfinite(log.loss) and log.box > 0


def test_windows_without_truth_are_neither_right_nor_wrong(root, seeing):
    """Half of a batch without truth: the loss and its gradient are those of the other half."""
    clips = EventClips(EventSet(root, "train"), 64, 4, "eval")
    frame, objects = clips[0].frames[3:4], clips[0].objects[3]
    detector, loss = seeing, DetectionLoss()

    def gradient(images: torch.Tensor, truth: list[Objects | None]) -> torch.Tensor:
        detector.zero_grad()
        predictions, _ = detector(images)
        loss(detector, predictions, loss.assign(detector, truth, (64, 64))).total.backward()
        return torch.cat([p.grad.flatten() for p in detector.parameters() if p.grad is not None])

    both = torch.cat([frame, frame.flip(-1)])
    torch.testing.assert_close(gradient(both, [objects, None]), gradient(frame, [objects]), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(gradient(both, [objects, Objects.empty()]), gradient(frame, [objects]))
    assert gradient(both, [None, None]).abs().sum() == 0


@pytest.fixture
def trained(root, tiny_config, unadorned) -> Trainer:
    config = tiny_config(
        source="events", data=str(root), train="train", val="val", classes=None, timesteps=4, epochs=2, batch=4, window_ms=50,
    )  # fmt: skip
    trainer = Trainer(config, quiet=True)
    assert trainer.fit()
    return trainer


def test_a_run_on_recordings_and_what_takes_its_weights(trained, root, tmp_path, capsys):
    from spyolo.summary import finish

    assert trained.timesteps == 4 and trained.per_epoch == 2 and trained.classes == ("car", "pedestrian")
    told = finish(trained)
    assert "energy a window" in told and (trained.folder.path / "predictions.png").exists()
    detector, info = load_detector(trained.folder.best)
    assert detector.spec.in_channels == 2 and info.notes["window_ms"] == 50
    options = ["--weights", str(trained.folder.best), "--data", str(root), "--split", "val", "--workers", "0", "--quiet"]
    assert run("eval", [*options, "--json", str(tmp_path / "m.json"), "--recalibrate", "train"]) == 0
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["energy"]["total_mj"] > 0 and metrics["protocol"]["split"] == "val"
    assert metrics["protocol"]["window_ms"] == 50 and "carried" in metrics["protocol"]["state"]
    files = ["--weights", str(trained.folder.best), "--data", str(root), "--split", "val", "--out", str(tmp_path / "out")]
    assert run("publish", [*files, "--name", "events", "--to", str(tmp_path / "shelf"), "--quiet"]) == 0

    events = EventSet(root, "val")
    predictor = Predictor(detector, info, confidence=0.01)
    seen = list(predictor.stream(events.frame(0, w) for w in range(4)))
    assert len(seen) == 4 and all((d.boxes >= 0).all() for d in seen)
    with pytest.raises(InputError, match=r"takes event frames, uint8 \[H, W, 2\]; got an array of uint8 \[48, 64, 3\]"):
        predictor.predict(np.zeros((48, 64, 3), np.uint8))


def test_the_time_of_a_window_is_measured_and_there_is_no_stream_score(root, tmp_path, capsys):
    """Of a detector with two channels."""
    detector = tiny()
    save_weights(tmp_path / "events.safetensors", detector, WeightsInfo(detector.spec, ("car", "pedestrian"), size=64, timesteps=4))
    options = ["--weights", str(tmp_path / "events.safetensors"), "--data", str(root), "--split", "val", "--quiet"]
    assert run("eval", [*options, "--workers", "0", "--json", str(tmp_path / "m.json"), "--latency", "--energy-pictures", "0"]) == 0
    assert json.loads((tmp_path / "m.json").read_text())["anytime"][0]["latency_ms"] > 0
    capsys.readouterr()
    assert run("eval", [*options, "--stream"]) == 2
    told = capsys.readouterr().err
    assert "takes 2 channels (an event camera has 2); --stream makes its video of pictures" in told and told.count("\n") == 1


def test_a_detector_of_neither_pictures_nor_events_is_told_what_eval_shows(tmp_path, capsys):
    detector = build_detector("spyv4_lite", 2, width=0.05, in_channels=4)
    save_weights(tmp_path / "four.safetensors", detector, WeightsInfo(detector.spec, ("car", "pedestrian"), size=64))
    assert run("eval", ["--weights", str(tmp_path / "four.safetensors"), "--data", str(tmp_path), "--quiet"]) == 2
    told = capsys.readouterr().err
    assert "takes 4 channels (an event camera has 2); eval shows pictures, which have 3" in told and told.count("\n") == 1


def test_a_run_on_recordings_resumes_to_the_bit(trained, tiny_config):
    config = tiny_config(**{name: getattr(trained.config, name) for name in ("source", "data", "train", "val", "classes", "timesteps")})
    stopped = Trainer(config, quiet=True)
    stopped.set_rates, inner = lambda: (setattr(stopped, "stopping", True), inner())[0], stopped.set_rates  # type: ignore[method-assign]
    assert not stopped.fit() and stopped.batch == 1
    assert Trainer(config, resume=True, quiet=True).fit()
    a, b = (load_detector(Path(c.out) / "last.safetensors")[0].state_dict() for c in (trained.config, config))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_bad_combinations_are_told(tiny_config):
    with pytest.raises(InputError, match="in_channels must be 3 with source voc, got 2"):
        tiny_config(in_channels=2)
    assert tiny_config(source="events", in_channels=2).channels == 2


def test_bptt_over_a_clip_reaches_its_first_window(root):
    clips = EventClips(EventSet(root, "train"), 64, 4, "eval")
    batch = collate_clips([clips[0]])
    detector = tiny().train()
    images = (batch.images.float() / 255).requires_grad_()
    engine.train_batch(detector, DetectionLoss(), BPTT(torch.optim.SGD(detector.parameters(), 0.1)), images, batch.objects, [4])
    assert images.grad[0].abs().sum() > 0
