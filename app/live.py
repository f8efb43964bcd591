"""Tab 2: webcam and video. The neurons' state is carried from frame to frame, so one step a frame is enough."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from spyolo.boxes import Detections
from spyolo.detection import DetectorState
from spyolo.errors import InputError
from spyolo.outputs import VideoFile
from spyolo.predictor import Predictor
from spyolo.sources import VideoInfo, video_frames, video_info

from .examples import Examples, offer
from .figures import boxed
from .models import Model, Models
from .parts import (
    MOST_STEPS,
    TOLD_APART,
    by_path,
    picture_steps,
    predictor_for,
    read_upload,
    shown,
    threshold_sliders,
    told,
    unchecked,
    within,
    without_folders,
)
from .sessions import Session, Sessions

CARRIED, FRESH = "Remember: carry the neurons' state over", "Forget: a fresh state every frame"
LEAD = """Neurons that remember need **one time step a frame**: what they saw before helps with what comes next. Compare it with starting
anew every frame (below), which is chosen for a model trained with one time step: it never learned what to do with a state."""
STEPS_INFO = "one is enough to remember; starting anew takes as many as a picture does (T)"
VIDEO_API = """Find objects in a video. Give the video, confidence (0..1), overlap (IoU, 0..1), what happens from one frame to the next,
time steps a frame (1..16) and a model's name. Yields previews; the last answer holds the annotated video (WebM) and a message."""
LARGEST_FRAME = 960
MOST_FRAMES = 3000
PREVIEW_EVERY = 0.4  # seconds
SHOWN_TIMES = 50
STREAM_LIMIT = 3600  # seconds a camera may run before it is asked to start again
CAMERAS = 8  # at once; the next one waits
FRAMES_KEPT = 6  # pictures of a stream that stay for a browser that is slow to fetch them
LOST = "⚠️ No picture from the camera. Is it still connected? Press the record button to start again."


GONE = '<div id="camera-gone" hidden>⚠️ The camera is gone. Plug it in again and reload this page.</div>'
WATCH_CAMERA = """() => setInterval(() => {
    const camera = document.querySelector('#camera'), tracks = camera?.querySelector('video')?.srcObject?.getVideoTracks() ?? [];
    const recording = camera?.querySelector('[title="stop recording"]'), note = document.querySelector('#camera-gone');
    if (recording && tracks.length && tracks.every(track => track.readyState === 'ended')) {
        recording.closest('button').click();  // or the last picture would be sent over and over
        note.hidden = false;
    } else if (recording && note) note.hidden = true;
}, 500)"""


@dataclass
class Stream:
    """What one viewer's stream remembers: of constant size, however long it runs."""

    key: tuple[Any, ...] = ()  # model and mode; another one starts at rest
    state: DetectorState | None = None
    frames: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=SHOWN_TIMES))  # seconds in the network
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=SHOWN_TIMES))

    def see(self, model: Model, predictor: Predictor, image: np.ndarray, mode: str, steps: int) -> Detections:
        """Boxes of the next frame."""
        key = (model.detector, mode, predictor.size)
        if key != self.key:
            self.key, self.state, self.frames = key, None, 0
            self.latencies.clear()
            self.arrivals.clear()
        began = time.perf_counter()
        with model.lock:
            if mode == FRESH:
                found = predictor.predict(image)
            else:
                found, self.state = predictor.step(image, self.state, steps)
        self.latencies.append(time.perf_counter() - began)
        self.arrivals.append(time.perf_counter())
        self.frames += 1
        return found

    @property
    def latency(self) -> float:
        """Median seconds a frame spends in the network."""
        return sorted(self.latencies)[len(self.latencies) // 2] if self.latencies else 0.0

    @property
    def fps(self) -> float:
        """Frames a second as they come out, all included."""
        if len(self.arrivals) < 2:
            return 0.0
        return (len(self.arrivals) - 1) / max(self.arrivals[-1] - self.arrivals[0], 1e-9)

    def tiles(self, boxes: int) -> str:
        values = [("latency", f"{1000 * self.latency:.0f} ms"), ("FPS", f"{self.fps:.1f}"), ("frames", self.frames), ("boxes", boxes)]
        return '<div class="tiles">' + "".join(f'<div class="tile"><b>{v}</b><span>{k}</span></div>' for k, v in values) + "</div>"


def usual_mode(model: Model) -> str:
    """What suits a model: carrying the state over is learned from sequences, and one time step is none."""
    return CARRIED if model.timesteps > 1 else FRESH


class LiveTab:
    """Builds the tab and answers its events."""

    def __init__(self, models: Models, sessions: Sessions, chosen: gr.Dropdown, examples: Examples) -> None:
        self.models, self.sessions, self.chosen = models, sessions, chosen
        self.first = models.load(models.first)
        with gr.Row(), gr.Column():
            gr.Markdown(LEAD)
        with gr.Tabs(elem_id="live-tabs"):
            with gr.Tab("Webcam"):
                camera, camera_out = self._webcam()
            with gr.Tab("Video file"):
                upload, run, stop, video_out = self._video(examples)
        with gr.Row():
            with gr.Column(scale=4, min_width=300):
                usual = usual_mode(self.first)
                self.mode = unchecked(gr.Radio([CARRIED, FRESH], value=usual, label="From one frame to the next", elem_id="mode"))
                self.steps = unchecked(
                    gr.Slider(1, MOST_STEPS, 1, step=1, label="Time steps a frame", info=STEPS_INFO, elem_id="live-steps")
                )
            with gr.Column(scale=4, min_width=300):
                self.confidence, self.iou = threshold_sliders("live", self.first.info.nms_iou)
        asked = [self.confidence, self.iou, self.mode, self.steps, chosen]
        camera.stream(
            self.frame, [camera, *asked], camera_out, stream_every=0.05, time_limit=STREAM_LIMIT, concurrency_limit=CAMERAS,
            show_progress="hidden", **TOLD_APART,
        )  # fmt: skip
        going = run.click(self.film, [upload, *asked], video_out, concurrency_limit=2, api_name="video", api_description=VIDEO_API)
        stop.click(lambda: "Stopped.", None, video_out[-1], cancels=[going], **TOLD_APART)
        self.mode.input(self.usual_steps, [self.mode, chosen], self.steps, show_progress="hidden", **TOLD_APART)
        chosen.change(self.usual, chosen, [self.mode, self.steps, self.iou], show_progress="hidden", **TOLD_APART)

    def _webcam(self) -> tuple[gr.Image, list[Any]]:
        with gr.Row():
            with gr.Column(scale=4, min_width=300):
                options = gr.WebcamOptions(mirror=False, constraints={"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}})
                camera = by_path(
                    gr.Image(
                        label="Camera", sources=["webcam"], streaming=True, type="filepath", height=300, webcam_options=options,
                        elem_id="camera",
                    )
                )
                gr.HTML(GONE)
                gr.Markdown(f"Allow the camera, then press *Record*. {CAMERAS} cameras run at once, a further one waits for its turn.")
            with gr.Column(scale=6, min_width=300):
                seen = shown("What the network sees", 400, "camera-seen", format="jpeg")
                tiles = gr.HTML(elem_id="camera-tiles")
                message = gr.Markdown(elem_id="camera-message")
        return camera, [seen, tiles, message]

    def _video(self, examples: Examples) -> tuple[gr.Video, gr.Button, gr.Button, list[Any]]:
        with gr.Row():
            with gr.Column(scale=4, min_width=300):
                upload = by_path(gr.Video(label="Your video", sources=["upload"], height=260, elem_id="video"))
                self.examples = offer(examples, upload, self.first.drawn, video=True)
                with gr.Row():
                    run = gr.Button("Find objects", variant="primary", elem_id="video-run")
                    stop = gr.Button("Stop", elem_id="video-stop")
            with gr.Column(scale=6, min_width=300):
                seen = shown("What the network sees", 300, "video-seen", format="jpeg")
                tiles = gr.HTML(elem_id="video-tiles")
                message = gr.Markdown(elem_id="video-message")
                result = gr.Video(label="Annotated video", interactive=False, height=300, elem_id="video-result")
        return upload, run, stop, [seen, tiles, result, message]

    @told(1, message_at=None)  # the next frame says it, where there is room for words
    def usual_steps(self, mode: str, name: str) -> Any:
        """One step a frame with the state carried over; as many as for a picture without."""
        return picture_steps(self.models.load(name)) if mode == FRESH else 1

    @told(3, message_at=None)
    def usual(self, name: str) -> list[Any]:
        """Mode, steps a frame and overlap that suit a model just chosen."""
        model = self.models.load(name)
        mode = usual_mode(model)
        return [mode, self.usual_steps(mode, name), model.info.nms_iou]

    def asked_for(self, name: str, confidence: float, iou: float, mode: str, steps: float) -> tuple[Model, Predictor, int]:
        """The model, how it is asked, and the steps a frame."""
        model = self.models.load(name)
        if mode not in (CARRIED, FRESH):
            raise InputError(f"from one frame to the next: choose {CARRIED!r} or {FRESH!r}")
        within("time steps", steps, 1, MOST_STEPS)  # in either mode
        return model, predictor_for(model, confidence, iou, steps if mode == FRESH else None), int(steps)

    def frame(
        self, upload: str | io.BytesIO | None, confidence: float, iou: float, mode: str, steps: float, name: str, request: gr.Request
    ) -> list[Any]:
        """Boxes on one webcam frame. Without a frame (the camera was unplugged) what was seen last stays, and so does the state."""
        if upload is None:
            return [gr.skip(), gr.skip(), LOST]
        session = self.sessions.of(request)
        try:
            model, predictor, steps = self.asked_for(name, confidence, iou, mode, steps)
            image, stream = read_upload(upload, LARGEST_FRAME), session.recall(Stream)
            found = stream.see(model, predictor, image, mode, steps)
        except InputError as error:
            return [gr.skip(), gr.skip(), f"⚠️ {error}"]
        return [session.picture("frame", boxed(image, found, model.classes), keep=FRAMES_KEPT), stream.tiles(len(found)), ""]

    @told(4)
    def film(
        self, upload: str | None, confidence: float, iou: float, mode: str, steps: float, name: str, request: gr.Request
    ) -> Iterator[list[Any]]:
        """Boxes on every frame of a video: previews on the way, the annotated video at the end."""
        if upload is None:
            raise InputError("no video yet: drop one, or choose the drawn one")
        session = self.sessions.of(request)
        self.sessions.keep_upload(session, upload)
        if not Path(upload).is_file():
            raise InputError("this file is no longer kept here; give it again")
        asked = self.asked_for(name, confidence, iou, mode, steps)
        try:
            info = video_info(upload)
            yield from self._annotate(session, asked, mode, video_frames(upload), info)
        except InputError as error:
            raise InputError(without_folders(str(error), upload)) from None

    def _annotate(
        self, session: Session, asked: tuple[Model, Predictor, int], mode: str, frames: Iterator[np.ndarray], info: VideoInfo
    ) -> Iterator[list[Any]]:
        (model, predictor, steps), stream, boxes, last = asked, Stream(), 0, 0.0
        path = session.place("annotated", ".webm")
        if path is None:
            return
        with annotated(path, info.fps, session) as video:
            for image in frames:
                if session.ended:  # nobody waits for it any more
                    return
                found = stream.see(model, predictor, image, mode, steps)
                boxes += len(found)
                drawn = boxed(image, found, model.classes)
                video.add(drawn)
                if time.perf_counter() - last > PREVIEW_EVERY:
                    last, session.used = time.perf_counter(), time.monotonic()
                    said = f"Frame {stream.frames}" + (f" of about {info.frames}" if info.frames else "")
                    yield [session.picture("preview", drawn, keep=FRAMES_KEPT), stream.tiles(len(found)), gr.skip(), said]
                if stream.frames == MOST_FRAMES:
                    break
        cut = " Longer videos are cut there; `spyolo predict --source` has no limit." if stream.frames == MOST_FRAMES else ""
        said = f"**Done:** {stream.frames} frames, {boxes / stream.frames:.1f} boxes a frame, {1000 * stream.latency:.0f} ms each.{cut}"
        yield [session.picture("preview", drawn, keep=FRAMES_KEPT), stream.tiles(len(found)), path, said]


@contextmanager
def annotated(path: str, fps: float, session: Session) -> Iterator[VideoFile]:
    """The annotated video being written. Of a visitor who is gone nothing is kept or told; and nobody is told the server's folders, whose
    names keep visitors apart."""
    try:
        with VideoFile(path, fps) as video:
            try:
                yield video
            finally:
                if session.ended:
                    video.abandon()
    except InputError as error:
        if Path(path).name in str(error):
            raise InputError("the annotated video could not be written here; try again, or a shorter one") from None
        raise
