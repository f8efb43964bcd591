"""Predictor: a pure detector beside stateful convenience, for pictures and for streams."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from spyolo.boxes import Detections
from spyolo.checkpoint import WeightsInfo, load_detector
from spyolo.data import Letterbox, read_image
from spyolo.data.letterbox import fit_picture
from spyolo.detection import DetectorState, SpikingYOLO, fuse, postprocess, settled
from spyolo.detection.fast import FastDetector
from spyolo.engine import in_picture
from spyolo.errors import InputError
from spyolo.health import NotFinite, check_state
from spyolo.neurons import autocast, choose_amp
from spyolo.ranges import SIZES, STEPS, check_whole


class Predictor:
    """A detector with its classes, input size and thresholds.

    `predict(picture)` shows a still picture for T steps from rest. `stream(frames)` shows each frame once and carries the state from one to
    the next: a video costs one step a frame. Nothing is kept here between two calls, so threads may share one; each brings its own state.

        predictor = Predictor.load("weights/best.safetensors", confidence=0.4)
        found = predictor.predict("photo.jpg")
        for found in predictor.stream(video_frames("film.mp4")): ...

    Args:
        detector: in evaluation mode.
        info: what its weights file says (classes, input size, T).
        timesteps: T for pictures; None: what it was trained with.
        size: input side; None: what it was trained with.
        confidence: floor on scores.
        nms_iou: overlap above which the worse box of a class is dropped; None: as the weights file says.
        vote_iou: overlap from which boxes of a class vote on where the better one is; 0: they do not; None: as the weights file says.
        amp: `bf16` autocast, `none`, or `auto`: where the device has bf16.
        fast: `fp32`, `bf16` or `int8`: take the fast path of `detection.fuse` at this precision; `none`: the detector as it is.
        settle: stop before T steps when a step changed no box (`detection.settled`).

    Raises:
        InputError: an option that is out of its range.
    """

    def __init__(
        self, detector: SpikingYOLO, info: WeightsInfo, *, timesteps: int | None = None, size: int | None = None, confidence: float = 0.3,
        nms_iou: float | None = None, max_detections: int = 100, device: torch.device | str = "cpu", amp: str = "none",
        fast: str = "none", settle: bool = False, vote_iou: float | None = None,
    ) -> None:  # fmt: skip
        timesteps, size = info.timesteps if timesteps is None else timesteps, info.size if size is None else size
        check_whole("timesteps", timesteps, *STEPS)
        check_whole("size", size, *SIZES)
        self.reading = info.reading(confidence, nms_iou, vote_iou, max_detections=max_detections, one_class_per_box=True)
        if amp not in ("auto", "none", "bf16"):
            raise InputError(f"amp must be auto, none or bf16, got {amp!r}")
        self.device = torch.device(device)
        self.amp = choose_amp(amp, self.device)
        self.detector, self.info, self.settle = detector.to(self.device).eval(), info, settle
        if fast != "none":
            self.detector = fuse(detector, fast)
            if isinstance(self.detector, FastDetector) and self.amp != "none":
                warnings.warn(f"amp {self.amp} is not read: the fast path has its precision from fast ({fast})", stacklevel=2)
                self.amp = "none"
        self.timesteps, self.size = self.detector.steps_of(timesteps), size

    @classmethod
    def load(cls, path: str | Path, **options: object) -> Predictor:
        """From a weights file; `options` as above.

        Raises:
            InputError: no such file, or not ours.
        """
        return cls(*load_detector(path), **options)  # type: ignore[arg-type]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.info.classes

    def predict(self, image: np.ndarray | str | Path) -> Detections:
        """Boxes on a picture (uint8 RGB [H, W, 3], or a file), in its own pixels, best first.

        Raises:
            InputError: a file that cannot be read as a picture.
        """
        return self.each_step(image)[-1]

    @torch.inference_mode()
    def each_step(self, image: np.ndarray | str | Path) -> list[Detections]:
        """What is seen after each of the T steps: T detections of the same picture (fewer if they settle, where that is asked for)."""
        image = image if isinstance(image, np.ndarray) else read_image(image)
        canvas, place = self.fitted(image)
        with autocast(self.device, self.amp):
            found: list[Detections] = []
            for predictions, _ in self.detector.run(self.tensor(canvas), self.timesteps):
                found.append(self.read(predictions))
                if self.settle and len(found) > 1 and settled(*found[-2:], floor=self.reading.confidence):
                    break
        return [in_picture(d, place, image.shape[1], image.shape[0]) for d in found]

    @torch.inference_mode()
    def step(
        self, image: np.ndarray, state: DetectorState | None = None, steps: int = 1, check: bool = True
    ) -> tuple[Detections, DetectorState]:
        """Show one frame for `steps` steps: boxes, and the state to hand in with the next frame (of any size).

        Raises:
            NotFinite: with `check`, a state that has NaN or infinity in it; names the layer.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        canvas, place = self.fitted(image)
        with autocast(self.device, self.amp):
            current = self.detector.encode(self.tensor(canvas))
            for _ in range(self.detector.steps_of(steps)):
                predictions, state = self.detector.step(current, state)
            found = self.read(predictions)
        assert state is not None
        if check:
            check_state(state)
        return in_picture(found, place, image.shape[1], image.shape[0]), state

    def stream(self, frames: Iterable[np.ndarray], steps: int = 1, every: int = 10, restart: bool = False) -> Iterator[Detections]:
        """Boxes of each frame, `steps` steps a frame, from neurons at rest before the first.

        Args:
            every: frames between looks for a state that is not finite.
            restart: begin again from rest when there is one, with a warning that counts; False: raise NotFinite.

        Raises:
            InputError: `every` under 1.
        """
        if every < 1:
            raise InputError(f"every must be at least 1, got {every}")
        state: DetectorState | None = None
        restarts = 0
        for number, frame in enumerate(frames, 1):
            try:
                found, state = self.step(frame, state, steps, check=number % every == 0)
            except NotFinite as error:
                if not restart or state is None:
                    raise NotFinite(f"frame {number}: {error}") from None
                restarts += 1
                warnings.warn(f"frame {number}: {error}; done, {restarts} time(s) so far", stacklevel=2)
                found, state = self.step(frame, None, steps)
            yield found

    def fitted(self, image: np.ndarray) -> tuple[np.ndarray, Letterbox]:
        """A picture, or a frame of event counts, on its canvas.

        Raises:
            InputError: another number of channels than the detector takes.
        """
        return fit_picture(image, self.size, self.detector.spec.in_channels)

    def tensor(self, canvas: np.ndarray) -> torch.Tensor:
        """A canvas, uint8 [H, W, 3], as the detector takes it: [1, 3, H, W] on its device."""
        return torch.from_numpy(np.ascontiguousarray(canvas)).permute(2, 0, 1).unsqueeze(0).to(self.device)

    def read(self, predictions: tuple[torch.Tensor, ...]) -> Detections:
        """One step's logits of one picture -> boxes in canvas pixels, by this predictor's thresholds, on the CPU."""
        return postprocess(predictions, self.detector.anchors, self.detector.strides, self.reading)[0].to("cpu")
