"""Fit a picture into a canvas without changing its proportions: the same in training, evaluation and prediction."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from spyolo.errors import InputError

# OpenCV's own threads bring nothing at these sizes, and a process forked after they were started hangs at its first resize: loaders fork.
cv2.setNumThreads(0)

FILL = 114  # mid grey, what the detector sees outside the picture


@dataclass(frozen=True)
class Letterbox:
    """Where a picture lies on its canvas: canvas = picture * scale + (left, top), all in pixels."""

    scale: float
    left: int
    top: int
    size: tuple[int, int]  # canvas height, width

    @staticmethod
    def fit(width: int, height: int, size: int | tuple[int, int]) -> Letterbox:
        """Centre a width x height picture on a canvas of `size` (side, or height and width)."""
        canvas_height, canvas_width = (size, size) if isinstance(size, int) else size
        scale = min(canvas_width / width, canvas_height / height)
        corner = Letterbox(scale, 0, 0, (canvas_height, canvas_width))
        inner_width, inner_height = corner.inner(width, height)
        return replace(corner, left=(canvas_width - inner_width) // 2, top=(canvas_height - inner_height) // 2)

    @staticmethod
    def identity(size: int) -> Letterbox:
        """The canvas itself."""
        return Letterbox(1.0, 0, 0, (size, size))

    def inner(self, width: int, height: int) -> tuple[int, int]:
        """Width and height, in whole pixels, of a width x height picture on the canvas."""
        return max(1, round(width * self.scale)), max(1, round(height * self.scale))

    def to_canvas(self, boxes: Tensor) -> Tensor:
        """Boxes [N, 4] in picture pixels -> canvas pixels."""
        return boxes * self.scale + self._offset(boxes)

    def to_picture(self, boxes: Tensor) -> Tensor:
        """Boxes [N, 4] in canvas pixels -> picture pixels, not clipped."""
        return (boxes - self._offset(boxes)) / self.scale

    def _offset(self, boxes: Tensor) -> Tensor:
        return torch.tensor([self.left, self.top, self.left, self.top], dtype=boxes.dtype, device=boxes.device)


def letterbox(image: np.ndarray, size: int | tuple[int, int], fill: int = FILL) -> tuple[np.ndarray, Letterbox]:
    """RGB uint8 [H, W, 3] (or any number of channels) -> (canvas uint8 [size, size, 3], where the picture lies on it).

    `size` is the canvas's side, or (height, width). The picture's sides are rounded to whole pixels, so a box may be off by
    up to half a canvas pixel at the far edge.
    """
    height, width = image.shape[:2]
    place = Letterbox.fit(width, height, size)
    canvas = np.full((*place.size, image.shape[2]), fill, np.uint8)
    inner = resize(image, *place.inner(width, height))
    canvas[place.top : place.top + inner.shape[0], place.left : place.left + inner.shape[1]] = inner
    return canvas, place


def fit_picture(image: np.ndarray, size: int, channels: int) -> tuple[np.ndarray, Letterbox]:
    """A picture (three channels), or a frame of event counts, on the canvas of a detector that takes so many channels; as `letterbox`.

    Raises:
        InputError: an array of another shape or type (cut down to whole numbers, a picture in 0 to 1 would be black).
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels or 0 in image.shape:
        takes = "pictures, uint8 [H, W, 3]" if channels == 3 else f"event frames, uint8 [H, W, {channels}]"
        raise InputError(f"this detector takes {takes}; got an array of {image.dtype} {list(image.shape)}")
    return letterbox(image, size, FILL if channels == 3 else 0)


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Area averaging when shrinking (no aliasing), bilinear when growing; the array itself when the size is already right."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = width * height < image.shape[0] * image.shape[1]
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized.reshape(height, width, *image.shape[2:])  # OpenCV drops a channel that is alone
