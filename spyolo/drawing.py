"""Labelled boxes on pictures, sheets of pictures, and saving them. Shared by checks, prediction, reports and the app."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from spyolo.errors import InputError
from spyolo.files import write_whole

Style = Literal["truth", "prediction"]


def class_colour(label: int) -> tuple[int, int, int]:
    """RGB of a class: neighbours in the list are far apart in hue."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.85 if label % 2 else 0.65, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_boxes(
    image: np.ndarray,
    boxes: Any,
    labels: Any,
    classes: Sequence[str],
    scores: Any = None,
    style: Style = "prediction",
) -> np.ndarray:
    """Labelled boxes on a copy of a picture.

    Args:
        image: RGB uint8 [H, W, 3].
        boxes: [N, 4] x1 y1 x2 y2 in its pixels, tensor or array.
        labels: [N] indices into `classes`.
        scores: [N] in [0, 1], written behind the name; None leaves them out.
        style: `prediction` draws full lines, `truth` dashed ones, so that both can lie on one picture.

    Returns:
        RGB uint8 [H, W, 3]; the picture handed in is unchanged.
    """
    canvas = Image.fromarray(np.ascontiguousarray(image))
    pen = ImageDraw.Draw(canvas)
    shorter = min(canvas.size)
    line, font = max(1, round(shorter / 200)), _font(max(10, round(shorter / 28)))
    marks = np.asarray(scores, dtype=float) if scores is not None else [None] * len(labels)
    for box, label, score in zip(np.asarray(boxes, dtype=float).reshape(-1, 4), np.asarray(labels, dtype=int), marks):
        colour = class_colour(int(label))
        x1, y1, x2, y2 = box.tolist()
        (_dashed if style == "truth" else _framed)(pen, (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), colour, line)
        _tag(pen, canvas.size, x1, y1, classes[label] if score is None else f"{classes[label]} {score:.2f}", colour, font)
    return np.asarray(canvas)


def contact_sheet(images: Sequence[np.ndarray], columns: int, side: int = 256, gap: int = 4) -> np.ndarray:
    """Pictures of any size, each fitted into a square of `side` pixels, in rows of `columns`: RGB uint8 on white."""
    rows = max(1, -(-len(images) // columns))
    sheet = Image.new("RGB", (columns * (side + gap) + gap, rows * (side + gap) + gap), "white")
    for k, image in enumerate(images):
        picture = Image.fromarray(np.ascontiguousarray(image))
        scale = side / max(picture.size)
        picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), Image.Resampling.BILINEAR)
        row, column = divmod(k, columns)
        left, top = gap + column * (side + gap), gap + row * (side + gap)
        sheet.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))
    return np.asarray(sheet)


def save_image(path: str | Path, array: np.ndarray) -> Path:
    """Write RGB uint8 [H, W, 3] as the kind its name asks for, whole or not at all; makes the folder.

    Raises:
        InputError: an ending that stands for no kind of picture, or a folder that cannot be written.
    """
    path = Path(path)
    kinds = Image.registered_extensions()
    if path.suffix.lower() not in kinds:
        raise InputError(f"{path}: {path.suffix or 'no ending'} is no kind of picture; write .png or .jpg")
    coded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(coded, kinds[path.suffix.lower()])
    return write_whole(path, coded.getvalue())


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _framed(pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float], colour: tuple[int, int, int], line: int) -> None:
    pen.rectangle(box, outline=colour, width=line)


def _dashed(pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float], colour: tuple[int, int, int], line: int) -> None:
    x1, y1, x2, y2 = box
    dash = 4 * line
    for start in np.arange(x1, x2, 2 * dash).tolist():
        for y in (y1, y2):
            pen.line((start, y, min(start + dash, x2), y), fill=colour, width=line)
    for start in np.arange(y1, y2, 2 * dash).tolist():
        for x in (x1, x2):
            pen.line((x, start, x, min(start + dash, y2)), fill=colour, width=line)


def _tag(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], x: float, y: float, text: str, colour: tuple[int, int, int], font: Any
) -> None:
    """A name above the box (or, at the picture's rim, inside it), dark or light after its ground."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x, y = round(x), round(y)  # Pillow cuts text at fractions of a pixel
    x = min(max(0, x), max(0, size[0] - width))
    y = y - height if y >= height else max(0, y)
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    pen.text((x + 2 - left, y + 2 - top), text, fill="black" if luminance > 140 else "white", font=font)
