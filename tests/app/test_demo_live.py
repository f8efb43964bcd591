"""The live tab without a browser: frames of a camera, video files."""

from __future__ import annotations

import gc
import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from app_samples import NOISE
from PIL import Image

from app.live import CARRIED, FRAMES_KEPT, FRESH, Stream
from app.models import Models
from spyolo.outputs import VideoFile
from spyolo.sources import video_frames


def coded() -> io.BytesIO:
    """A frame as a camera sends it."""
    frame = io.BytesIO()
    Image.fromarray(NOISE).save(frame, "PNG")
    return frame


def stream_of(tabs: SimpleNamespace, visitor: Any) -> Stream:
    return tabs.sessions.of(visitor).recall(Stream)


def test_state_is_carried_or_fresh_as_chosen(tabs: SimpleNamespace, models: Models, name: str) -> None:
    model = models.load(name)
    predictor = model.predictor(confidence=0.001)
    carried, fresh = Stream(), Stream()
    for _ in range(3):
        kept = carried.see(model, predictor, NOISE, CARRIED, 1)
        anew = fresh.see(model, predictor, NOISE, FRESH, 2)
    assert torch.equal(kept.scores, model.predictor(confidence=0.001, timesteps=3).predict(NOISE).scores)
    assert torch.equal(anew.scores, predictor.predict(NOISE).scores)


def test_a_model_that_never_saw_two_steps_is_asked_anew_each_frame(
    tabs: SimpleNamespace, models: Models, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = models.load(name).info
    assert learned.timesteps > 1 and tabs.live.usual(name) == [CARRIED, 1, 0.5]
    monkeypatch.setattr(models.load(name), "info", replace(learned, timesteps=1))
    assert tabs.live.usual(name) == [FRESH, 1, 0.5]


def test_a_model_trained_with_more_steps_than_the_sliders_have_is_asked_for_as_many_as_they_have(
    tabs: SimpleNamespace, models: Models, name: str, noise: str, visitor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models.load(name), "info", replace(models.load(name).info, timesteps=20))
    steps = tabs.picture.usual(name)[0].value
    assert tabs.live.usual_steps(FRESH, name) == steps == 16
    assert len(tabs.picture.detect(noise, 0.3, 0.5, steps, name, visitor)[1]) == 16
    tabs.live.asked_for(name, 0.3, 0.5, FRESH, steps)


def test_a_model_that_is_gone_changes_nothing(tabs: SimpleNamespace) -> None:
    skipped = gr.skip()
    assert tabs.live.usual("gone") == [skipped, skipped, skipped] and tabs.live.usual_steps(FRESH, "gone") == skipped


def test_a_change_of_mode_starts_at_rest(tabs: SimpleNamespace, name: str, visitor: Any) -> None:
    for mode in (CARRIED, CARRIED, FRESH):
        tabs.live.frame(coded(), 0.3, 0.5, mode, 1, name, visitor)
    assert stream_of(tabs, visitor).frames == 1 and stream_of(tabs, visitor).state is None


def test_an_unplugged_camera_is_told_and_the_stream_goes_on(tabs: SimpleNamespace, name: str, visitor: Any) -> None:
    for frame in (coded(), coded(), None):
        *_, message = tabs.live.frame(frame, 0.3, 0.5, CARRIED, 1, name, visitor)
    assert "connected" in message and stream_of(tabs, visitor).frames == 2
    *_, message = tabs.live.frame(coded(), 0.3, 0.5, CARRIED, 1, name, visitor)
    assert message == "" and stream_of(tabs, visitor).frames == 3


def test_a_broken_frame_is_told_and_the_stream_goes_on(tabs: SimpleNamespace, name: str, visitor: Any) -> None:
    tabs.live.frame(coded(), 0.3, 0.5, CARRIED, 1, name, visitor)
    *_, message = tabs.live.frame(io.BytesIO(b"no picture"), 0.3, 0.5, CARRIED, 1, name, visitor)
    assert "cannot be read" in message and stream_of(tabs, visitor).frames == 1


def test_only_the_newest_pictures_of_a_stream_stay_on_disk(tabs: SimpleNamespace, name: str, visitor: Any) -> None:
    for _ in range(FRAMES_KEPT + 4):
        boxed, *_ = tabs.live.frame(coded(), 0.3, 0.5, CARRIED, 1, name, visitor)
    assert len(list(Path(boxed).parent.iterdir())) == FRAMES_KEPT


def tensors() -> list[torch.Tensor]:
    """All that are alive."""
    gc.collect()
    return [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]


def test_a_long_stream_keeps_nothing_but_its_state(models: Models, name: str) -> None:
    model, stream = models.load(name), Stream()
    predictor = model.predictor()
    others = tensors()  # held, so that what earlier tests left does not go in between and is not counted
    known = set(map(id, others))

    def tensors_after(frames: int) -> int:
        for _ in range(frames):
            stream.see(model, predictor, NOISE, CARRIED, 1)
        return sum(id(o) not in known for o in tensors())

    assert tensors_after(60) == tensors_after(60)
    assert len(stream.latencies) == len(stream.arrivals) == 50 and stream.fps > 0


@pytest.mark.slow
def test_500_frames_in_a_row(models: Models, name: str) -> None:
    """Memory flat, and the median latency of the last 50 at most 1.2 times that of frames 20 to 70.

    Other programs may slow the end of one run: a stream that grows slower does so in each of three.
    """
    resource = pytest.importorskip("resource")
    model, ratios, peaks = models.load(name), list[float](), list[int]()
    predictor = model.predictor()
    for _ in range(3):
        stream, times = Stream(), list[float]()
        for _ in range(500):
            stream.see(model, predictor, NOISE, CARRIED, 1)
            times.append(stream.latencies[-1])
        ratios.append(float(np.median(times[-50:]) / np.median(times[20:70])))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert peaks[-1] - peaks[0] < 20_000  # kB
    assert min(ratios) <= 1.2


def test_an_annotated_video_of_the_same_length_comes_out(tabs: SimpleNamespace, name: str, tmp_path: Path, visitor: Any) -> None:
    with VideoFile(tmp_path / "film.webm", 10) as video:
        for k in range(6):
            video.add(np.full((48, 64, 3), 40 * k, np.uint8))
    *_, last = tabs.live.film(str(tmp_path / "film.webm"), 0.001, 0.5, CARRIED, 1, name, visitor)
    assert len(list(video_frames(last[2]))) == 6 and "6 frames" in last[3]


@pytest.mark.parametrize(("content", "told"), [(b"", "empty"), (b"text", "cannot be read as a video"), (None, "no video yet")])
def test_a_bad_video_is_told(tabs: SimpleNamespace, name: str, tmp_path: Path, visitor: Any, content: bytes | None, told: str) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(content or b"")
    (answer,) = tabs.live.film(None if content is None else str(path), 0.3, 0.5, CARRIED, 1, name, visitor)
    assert told in answer[3] and str(tmp_path) not in answer[3]


@pytest.fixture
def film(tmp_path: Path) -> str:
    with VideoFile(tmp_path / "film.webm", 10) as video:
        for k in range(6):
            video.add(np.full((48, 64, 3), 40 * k, np.uint8))
    return str(tmp_path / "film.webm")


def test_a_visitor_is_never_told_the_folder_of_the_session(
    tabs: SimpleNamespace, name: str, film: str, visitor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is what keeps others out."""
    monkeypatch.setattr(VideoFile, "whole", lambda self: False)  # as on a full disk
    *_, last = tabs.live.film(film, 0.001, 0.5, CARRIED, 1, name, visitor)
    assert "the annotated video could not be written here" in last[3] and "/" not in last[3] and "annotated-" not in last[3]


def test_a_page_closed_in_mid_film_leaves_nothing_and_raises_nothing(
    tabs: SimpleNamespace, name: str, film: str, visitor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.live.PREVIEW_EVERY", 0.0)
    session, films = tabs.sessions.of(visitor), []
    inner = VideoFile.__init__
    monkeypatch.setattr(VideoFile, "__init__", lambda self, *args: (films.append(self), inner(self, *args))[1])
    running = tabs.live.film(film, 0.001, 0.5, CARRIED, 1, name, visitor)
    next(running)
    tabs.sessions.end(visitor)
    assert session.ended
    running.close()
    assert films and not films[0].part.exists() and not films[0].path.exists()
