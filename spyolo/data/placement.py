"""Where pictures land on a training canvas: scale and aspect jitter, random place, and the four tiles of a mosaic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from spyolo.boxes import Objects
from spyolo.data.letterbox import resize


@dataclass(frozen=True)
class AugmentSettings:
    """How strongly training pictures are varied. Ranges are (low, high) unless said otherwise."""

    scale: tuple[float, float] = (0.5, 1.5)  # picture's size against its letterboxed size, log-uniform; above 1 it is cropped
    aspect: float = 0.25  # width over height changes by up to this factor, either way: 1.25
    flip: float = 0.5  # probability of a horizontal flip
    hue: float = 0.05  # in turns of the colour circle, either way
    saturation: tuple[float, float] = (0.5, 1.5)
    brightness: tuple[float, float] = (0.6, 1.4)
    mosaic: float = 0.5  # preset `mosaic`: probability of four pictures instead of one
    mosaic_split: tuple[float, float] = (0.3, 0.7)  # where the canvas is cut, in canvas sides
    mosaic_scale: tuple[float, float] = (0.4, 1.0)  # picture's size in a tile, against its letterboxed size on the whole canvas
    min_visible: float = 0.25  # a box with a smaller part of its area left is dropped
    min_side: float = 3.0  # and so is one thinner than this, in canvas pixels


class Placement(NamedTuple):
    """A picture resized to width x height with its corner at (left, top) of the canvas, shown only inside the tile."""

    width: int
    height: int
    left: int
    top: int
    tile: tuple[int, int, int, int]  # x1 y1 x2 y2 of the canvas


def place_one(rng: np.random.Generator, size: int, picture: tuple[int, int], settings: AugmentSettings) -> Placement:
    """A single picture (width, height) on the whole canvas."""
    return _place(rng, size, picture, (0, 0, size, size), settings.scale, settings.aspect)


def place_four(rng: np.random.Generator, size: int, pictures: list[tuple[int, int]], settings: AugmentSettings) -> list[Placement]:
    """Four pictures in the four tiles around a random split point."""
    x, y = (round(rng.uniform(*settings.mosaic_split) * size) for _ in range(2))
    tiles = [(0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)]
    return [_place(rng, size, picture, tile, settings.mosaic_scale, settings.aspect) for picture, tile in zip(pictures, tiles)]


def _place(
    rng: np.random.Generator,
    size: int,
    picture: tuple[int, int],
    tile: tuple[int, int, int, int],
    scale: tuple[float, float],
    aspect: float,
) -> Placement:
    factor = np.exp(rng.uniform(*np.log(scale))) * size / max(picture)
    stretch = np.exp(rng.uniform(-1, 1) * np.log1p(aspect) / 2)
    width, height = max(2, round(picture[0] * factor * stretch)), max(2, round(picture[1] * factor / stretch))
    room_x, room_y = tile[2] - tile[0] - width, tile[3] - tile[1] - height  # negative: that much is cut off
    left, top = (int(rng.integers(min(0, room), max(0, room), endpoint=True)) for room in (room_x, room_y))
    return Placement(width, height, tile[0] + left, tile[1] + top, tile)


def paste(canvas: np.ndarray, shown: np.ndarray, image: np.ndarray, place: Placement) -> None:
    """Draw the picture on the canvas [S, S, 3], in place, and note in `shown` [S, S] where it lies."""
    x1, y1, x2, y2 = visible(place)
    if x2 > x1 and y2 > y1:
        resized = resize(image, place.width, place.height)
        canvas[y1:y2, x1:x2] = resized[y1 - place.top : y2 - place.top, x1 - place.left : x2 - place.left]
        shown[y1:y2, x1:x2] = 1


def visible(place: Placement) -> tuple[int, int, int, int]:
    """The part of the canvas that shows the picture."""
    x1, y1, x2, y2 = place.tile
    return max(x1, place.left), max(y1, place.top), min(x2, place.left + place.width), min(y2, place.top + place.height)


def place_objects(objects: Objects, picture: tuple[int, int], place: Placement, settings: AugmentSettings) -> Objects:
    """Boxes in pixels of a picture (width, height) -> canvas pixels; clipped first, those with too little left dropped."""
    scale = torch.tensor([place.width / picture[0], place.height / picture[1]]).repeat(2)
    whole = objects.boxes * scale + torch.tensor([place.left, place.top], dtype=torch.float32).repeat(2)
    x1, y1, x2, y2 = visible(place)
    low, high = (torch.tensor(corner * 2, dtype=torch.float32) for corner in ([x1, y1], [x2, y2]))
    clipped = whole.clamp(low, torch.maximum(low, high))
    sides, whole_sides = clipped[:, 2:] - clipped[:, :2], whole[:, 2:] - whole[:, :2]
    kept = (sides.prod(1) >= settings.min_visible * whole_sides.prod(1)) & (sides >= settings.min_side).all(1)
    return objects.with_boxes(clipped)[kept]


def join(parts: list[Objects]) -> Objects:
    """All objects of several tiles."""
    return Objects(*(torch.cat([getattr(part, name) for part in parts]) for name in ("boxes", "labels", "difficult")))
