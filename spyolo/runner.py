#!/usr/bin/env python3
"""Run an exported detector with numpy and onnxruntime alone (Pillow too, to read files): no torch, no OpenCV, nothing else of spyolo.

    python runner.py detector.onnx photo.jpg another.png            one JSON line a picture
    python runner.py step.onnx --stream frame*.png                  the pictures are the frames of a film, in this order

This file stands alone: copy it to where the model goes. In Python:

    runner = Runner("detector.onnx", confidence=0.4)
    found = runner.predict(picture)                     # uint8 RGB [H, W, 3] -> Found
    for found in Runner("step.onnx").stream(frames): ...

A file of form `unrolled` shows a picture for the T steps it was exported with. One of form `step` does one step a call and takes the state
in and out: T steps for a picture, one a frame for a film. Nothing is kept in the runner between two calls.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILL = 114  # grey beside the picture, as in training
MAX_PIXELS = 100_000_000  # of a picture file: 10,000 x 10,000 is 300 MB decoded
MIN_SIDE = 2
MOST_STEPS = 1024
State = dict[str, np.ndarray]


class BadInput(ValueError):
    """What is wrong with a file, in one line."""


class Found(NamedTuple):
    """Boxes on one picture, best first."""

    boxes: np.ndarray  # [N, 4] float32: x1, y1, x2, y2 in the picture's own pixels
    scores: np.ndarray  # [N] float32
    labels: np.ndarray  # [N] int64, index into `Runner.classes`


class Place(NamedTuple):
    """Where a picture lies on the square canvas: canvas = picture * scale + (left, top)."""

    scale: float
    left: int
    top: int


class Runner:
    """An exported detector.

    Args:
        path: file written by `spyolo export`.
        confidence: floor on scores; None: as exported.
        nms_iou: overlap above which the worse box of a class is dropped; None: as exported.
        timesteps: steps a picture is shown; None: as exported. Only form `step` can be shown other numbers.
        threads: of onnxruntime; 0: its choice.
        providers: of onnxruntime, such as ["CUDAExecutionProvider"].

    Raises:
        BadInput: no such file, or not one of ours; a number that is out of range.
    """

    def __init__(
        self, path: str | Path, *, confidence: float | None = None, nms_iou: float | None = None, timesteps: int | None = None,
        threads: int = 0, providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:  # fmt: skip
        for name, value in (("confidence", confidence), ("nms_iou", nms_iou)):
            if value is not None and not 0 <= value <= 1:
                raise BadInput(f"{name} must be between 0 and 1, got {value}")
        if timesteps is not None:
            check_steps("timesteps", timesteps)
        self.session = open_session(path, threads, providers)
        told = self.session.get_modelmeta().custom_metadata_map
        if told.get("format") != "spyolo-onnx-1":
            raise BadInput(f"{path}: an ONNX file, but not one that `spyolo export` wrote")
        self.form, self.size = told["form"], int(told["size"])
        self.classes: tuple[str, ...] = tuple(json.loads(told["classes"]))
        self.timesteps = int(told["timesteps"]) if timesteps is None else timesteps
        if self.form == "unrolled" and self.timesteps != int(told["timesteps"]):
            raise BadInput(f"{path}: was exported for {told['timesteps']} steps; for others export it with --form step")
        self.options = {
            name: np.array([value], np.float32) for name, value in (("confidence", confidence), ("nms_iou", nms_iou)) if value is not None
        }
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.states = {i.name: i.shape for i in self.session.get_inputs() if i.name.startswith("state/")}

    def predict(self, picture: np.ndarray | str | Path) -> Found:
        """Boxes on a still picture (uint8 RGB [H, W, 3], or a file), from rest.

        Raises:
            BadInput: a file that cannot be read as a picture, or an array of another shape or type.
        """
        picture = picture if isinstance(picture, np.ndarray) else read_picture(picture)
        canvas, place = letterbox(picture, self.size)
        state = self.rest() if self.form == "step" else None
        for _ in range(self.timesteps if self.form == "step" else 1):
            out, state = self.run(canvas[None], state)
        return self.read(out, place, picture.shape)

    def step(self, frame: np.ndarray, state: State | None = None, steps: int = 1) -> tuple[Found, State]:
        """Show a frame for `steps` steps: its boxes, and the state to hand in with the next one.

        Raises:
            BadInput: the file is not of form `step`, a number of steps that there is not, or an array of another shape or type.
        """
        check_steps("steps", steps)
        if self.form != "step":
            raise BadInput("a stream carries the state from frame to frame: export with --form step for that")
        canvas, place = letterbox(frame, self.size)
        for _ in range(steps):
            out, state = self.run(canvas[None], state)
        assert state is not None
        return self.read(out, place, frame.shape), state

    def stream(self, frames: Iterable[np.ndarray], steps: int = 1) -> Iterator[Found]:
        """Boxes of each frame, from neurons at rest before the first. Raises BadInput as `step` does."""
        state = None
        for frame in frames:
            found, state = self.step(frame, state, steps)
            yield found

    def rest(self, batch: int = 1) -> State:
        """Neurons before the first step."""
        return {name: np.zeros([batch if n == "batch" else n for n in shape], np.float32) for name, shape in self.states.items()}

    def run(self, canvases: np.ndarray, state: State | None = None) -> tuple[dict[str, np.ndarray], State]:
        """Letterboxed pictures, uint8 [B, size, size, 3] -> the graph's outputs by name (boxes in canvas pixels), and the state after."""
        images = np.ascontiguousarray(canvases.transpose(0, 3, 1, 2))
        feeds = {"images": images, **self.options, **(state or (self.rest(len(images)) if self.states else {}))}
        out = dict(zip(self.outputs, self.session.run(None, feeds)))
        return out, {f"state/{name.removeprefix('next/')}": value for name, value in out.items() if name.startswith("next/")}

    def read(self, out: dict[str, np.ndarray], place: Place, shape: tuple[int, ...], row: int = 0) -> Found:
        """The boxes of one picture of the batch, in its own pixels and clipped to it; what lies beside it, on the grey, is none."""
        mine = out["pictures"] == row
        boxes = (out["boxes"][mine] - np.array([place.left, place.top] * 2, np.float32)) / np.float32(place.scale)
        boxes = boxes.clip(0, np.array([shape[1], shape[0]] * 2, np.float32))
        there = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return Found(boxes[there], out["scores"][mine][there], out["labels"][mine][there])


def check_steps(name: str, steps: int) -> None:
    if not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise BadInput(f"{name} must be a whole number from 1 to {MOST_STEPS}, got {steps}")


def open_session(path: str | Path, threads: int, providers: Sequence[str]) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise BadInput("running a model needs onnxruntime: pip install onnxruntime") from None
    if not Path(path).is_file():
        raise BadInput(f"{path}: no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise BadInput(f"{path}: onnxruntime cannot open it ({str(error).splitlines()[0][:200]})") from error


def read_picture(path: str | Path) -> np.ndarray:
    """A picture file of any kind that Pillow knows as RGB uint8 [H, W, 3], by the rules of training: turned as its EXIF data says,
    transparency on white, deeper greys scaled to 8 bits.

    Raises:
        BadInput: missing, no picture, cut off, too large or too small; Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise BadInput("reading picture files needs Pillow: pip install pillow") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large sizes and odd metadata; size is checked here
            with Image.open(path) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS or min(width, height) < MIN_SIDE:
                    raise ValueError(f"{width} x {height}: from {MIN_SIDE} pixels a side to {MAX_PIXELS:,} in all are taken")
                picture.load()
                return np.asarray(to_rgb(ImageOps.exif_transpose(picture)))
    except Exception as error:  # a broken file makes Pillow raise nearly anything
        raise BadInput(f"{path}: not a picture that can be read ({error})") from error


def to_rgb(picture: Any) -> Any:
    """Any mode of Pillow's as RGB: transparency on white, deeper greys scaled to 8 bits. spyolo.data's reader uses it too."""
    from PIL import Image

    if picture.mode.startswith(("I", "F")):  # 16-bit, 32-bit and float greys: Pillow would clip them at 255
        grey = np.asarray(picture, dtype=np.float32)
        # By the kind of file, not by what is in it: frames of one camera must not differ in scale. Floats alone do not tell.
        usual = (65535.0,) if picture.mode.startswith("I") else (1.0, 255.0, 65535.0)
        top = next((t for t in usual if grey.max() <= t), float(grey.max()))
        return Image.fromarray((grey * (255 / top)).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA"):
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def letterbox(picture: np.ndarray, size: int) -> tuple[np.ndarray, Place]:
    """RGB uint8 [H, W, 3] -> the picture, its proportions kept, in the middle of a grey canvas [size, size, 3]."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise BadInput(f"a picture is uint8 RGB [H, W, 3]; got {picture.dtype} {list(picture.shape)}")
    height, width = picture.shape[:2]
    scale = min(size / width, size / height)
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    place = Place(scale, (size - wide) // 2, (size - high) // 2)
    canvas = np.full((size, size, 3), FILL, np.uint8)
    canvas[place.top : place.top + high, place.left : place.left + wide] = resize(picture, wide, high)
    return canvas, place


def resize(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Area averaging when shrinking, bilinear when growing: OpenCV's INTER_AREA and INTER_LINEAR, to a grey level."""
    if picture.shape[:2] == (height, width):
        return picture
    taps = area_taps if width * height < picture.shape[0] * picture.shape[1] else linear_taps
    columns = weighted(picture.transpose(1, 0, 2), *taps(picture.shape[1], width)).transpose(1, 0, 2)  # across first: OpenCV's order
    return np.rint(weighted(columns, *taps(picture.shape[0], height))).clip(0, 255).astype(np.uint8)


def weighted(lines: np.ndarray, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """[N, ...] -> [M, ...] float32: each target line is the sum of its taps; index and weight are [M, taps]."""
    total = np.zeros((len(index), *lines.shape[1:]), np.float32)
    for i, w in zip(index.T, weight.T.astype(np.float32)):
        total += w[:, None, None] * lines[i]
    return total


def area_taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Which source pixels lie under each target pixel, and with what share of it."""
    edges = np.arange(target + 1) * (source / target)
    low, high = edges[:-1, None], edges[1:, None]
    first = np.floor(low).astype(int)
    index = first + np.arange(int(np.ceil((high - first).max())))
    covered = (np.minimum(high, index + 1) - np.maximum(low, index)).clip(0)
    return index.clip(0, source - 1), covered / covered.sum(1, keepdims=True)


def linear_taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear: pixel centres on pixel centres, the border repeated."""
    centre = ((np.arange(target) + 0.5) * (source / target) - 0.5).clip(0, source - 1)[:, None]
    first = np.floor(centre).astype(int)
    return (first + np.array([0, 1])).clip(0, source - 1), np.abs(centre - first - np.array([1, 0]))


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", help="file written by `spyolo export`")
    p.add_argument("pictures", nargs="+", help="picture files")
    p.add_argument("--stream", action="store_true", help="the pictures are frames in order, the state carried on")
    p.add_argument("--confidence", type=float, help="floor on scores [as exported]")
    p.add_argument("--timesteps", type=int, help="of form step: steps a picture is shown [as exported], or with --stream a frame [1]")
    args = p.parse_args(argv)
    status, state = 0, None
    try:
        runner = Runner(args.model, confidence=args.confidence, timesteps=args.timesteps)
        for path in args.pictures:
            try:
                picture = read_picture(path)
            except BadInput as error:
                print(f"error: {error}", file=sys.stderr)
                status = 2
                continue
            if args.stream:
                found, state = runner.step(picture, state, args.timesteps or 1)
            else:
                found = runner.predict(picture)
            seen = [
                {"label": runner.classes[label], "score": round(float(score), 4), "box": [round(float(v), 2) for v in box]}
                for box, score, label in zip(*found)
            ]
            print(json.dumps({"picture": path, "found": seen}))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    raise SystemExit(main())
