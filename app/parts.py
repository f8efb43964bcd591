"""What the tabs share: checked uploads, messages instead of tracebacks, common controls."""

from __future__ import annotations

import base64
import binascii
import functools
import inspect
import io
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from spyolo.data import read_image
from spyolo.data.letterbox import resize
from spyolo.errors import InputError
from spyolo.outputs import rows
from spyolo.predictor import Predictor

from .models import Model

MOST_STEPS = 16
LARGEST_SHOWN = 1600  # pixels; larger pictures are shown smaller, and found in as they are shown
TOLD_APART = {"api_visibility": "private"}  # of listeners that are no part of the API


def by_path(component: Any) -> Any:
    """Make an upload arrive as its path (or, from a camera, its bytes), undecoded: our own reader checks it first.

    An address in place of a file is refused: Gradio would fetch it, and this page asks no other computer for anything.
    """
    fetch = getattr(component, "async_move_resource_to_block_cache", None)

    async def keep(path: Any) -> Any:
        if "://" in str(path):
            raise gr.Error("Addresses are not fetched here: upload the file itself.", print_exception=False)
        return await fetch(path) if fetch else None

    component.async_move_resource_to_block_cache = keep

    def preprocess(payload: Any) -> str | io.BytesIO | None:
        if payload is None:
            return None
        url = getattr(payload, "url", None)
        if url and url.startswith("data:"):
            try:
                return io.BytesIO(base64.b64decode(url.partition(",")[2], validate=True))
            except binascii.Error:
                return io.BytesIO()
        return payload.path

    component.preprocess = preprocess
    return component


def read_upload(upload: str | io.BytesIO | None, most: int = LARGEST_SHOWN) -> np.ndarray:
    """An uploaded picture as RGB, no side longer than `most`.

    Raises:
        InputError: none given, or not readable; never names the server's folders.
    """
    if upload is None:
        raise InputError("no picture yet: drop one, or choose one of the drawn ones")
    if isinstance(upload, str) and not Path(upload).is_file():
        raise InputError("this file is no longer kept here; give it again")
    try:
        image = read_image(upload)
    except InputError as error:
        raise InputError(without_folders(str(error), upload)) from None
    if max(image.shape[:2]) > most:
        scale = most / max(image.shape[:2])
        image = resize(image, max(2, round(image.shape[1] * scale)), max(2, round(image.shape[0] * scale)))
    return image


def without_folders(message: str, upload: Any) -> str:
    """A message that names the file as its owner knows it."""
    return message.replace(str(upload), Path(upload).name) if isinstance(upload, str) else message


def told(outputs: int, message_at: int | None = -1) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a listener of `outputs` outputs: bad input becomes the text at `message_at` (None: another listener tells it), and all else
    stays as it is."""

    def problem(error: InputError) -> Any:
        values: list[Any] = [gr.skip() for _ in range(outputs)]
        if message_at is not None:
            values[message_at] = f"⚠️ {error}"
        return values if outputs > 1 else values[0]

    def decorate(listener: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(listener)
        def plain(*args: Any) -> Any:
            try:
                return listener(*args)
            except InputError as error:
                return problem(error)

        @functools.wraps(listener)
        def stepwise(*args: Any) -> Generator[Any, None, None]:
            try:
                yield from listener(*args)
            except InputError as error:
                yield problem(error)

        return stepwise if inspect.isgeneratorfunction(listener) else plain

    return decorate


def unchecked(component: Any) -> Any:
    """Hand values on as they come. Our own checks tell what is wrong; Gradio's leave a traceback in the log of the server."""
    component.preprocess = lambda value: value
    return component


def shown(title: str, height: int, elem_id: str, **how: Any) -> gr.Image:
    """A picture that answers, under a heading: Gradio's own label would lie over the picture's corner, and over the boxes there."""
    gr.Markdown(f"**{title}**")
    return gr.Image(label=title, show_label=False, interactive=False, height=height, elem_id=elem_id, **({"buttons": []} | how))


def picture_steps(model: Model) -> int:
    """Steps that a picture is usually shown to a model here: as trained, as far as the sliders go."""
    return min(model.timesteps, MOST_STEPS)


def threshold_sliders(prefix: str, nms_iou: float) -> tuple[gr.Slider, gr.Slider]:
    """Confidence, and the overlap that a model's boxes are usually read with."""
    sure, overlap = "boxes that the network is less sure of are hidden", "of two boxes that overlap by more than this, only one stays"
    return (
        unchecked(gr.Slider(0.05, 0.95, 0.3, step=0.05, label="Confidence", info=sure, elem_id=f"{prefix}-confidence")),
        unchecked(gr.Slider(0.1, 0.9, nms_iou, step=0.05, label="Overlap (IoU)", info=overlap, elem_id=f"{prefix}-iou")),
    )


def within(name: str, value: Any, low: float, high: float) -> None:
    """Raises InputError for a value that is no number, or out of range."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise InputError(f"{name} must be between {low} and {high}, got {str(value)[:40]!r}")


def predictor_for(model: Model, confidence: float, iou: float, steps: float | None = None) -> Predictor:
    """A predictor of one request. Sliders keep within their ends, scripts may not.

    Raises:
        InputError: a value that is no number, or out of range.
    """
    for name, value, low, high in (("confidence", confidence, 0, 1), ("overlap", iou, 0, 1), ("time steps", steps, 1, MOST_STEPS)):
        if steps is None and name == "time steps":
            continue
        within(name, value, low, high)
    return model.predictor(confidence=confidence, nms_iou=iou, timesteps=None if steps is None else int(steps))


def listed(found: Any, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Detections as plain values: [{"class", "score", "box": [x1, y1, x2, y2]}], boxes in pixels of the picture as shown."""
    return [{"class": name, "score": score, "box": box} for name, score, box in rows(found, classes)]
