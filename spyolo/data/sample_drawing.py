"""One picture of the sample set: textured background, a few shapes, and exact boxes.

Size, aspect, place, colour, rotation and what hides what are settled without regard to the class: only the outline tells classes apart.
An outline is rotated first and then fitted to its box, so that not even the box's aspect gives the class away.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from spyolo.data.annotation import Annotation, Thing

SAMPLE_CLASSES = ("cross", "disc", "ring", "square", "triangle")

PICTURE_SIZES = ((256, 192), (192, 256), (256, 224), (256, 256))  # width, height
SIDES = (0.08, 0.70)  # longer side of a box against the picture's shorter side, uniform
SMALL = 0.13  # below this an object is marked difficult
IN_VIEW = (0.50, 0.70)  # part of a box that later boxes leave free: at least the first; below the second it is marked difficult
OVERLAP = 0.19  # probability that an object is put upon another one; comes to a quarter of the objects that touch another
MAX_ROTATION = 25.0  # degrees, either way
CONTRAST = 110.0  # least distance in RGB between an object and what is under it
_SUPERSAMPLE = 4
_CROSS = np.array([(1, 3), (1, 1), (3, 1), (3, -1), (1, -1), (1, -3), (-1, -3), (-1, -1), (-3, -1), (-3, 1), (-1, 1), (-1, 3)], float)


Box = tuple[int, int, int, int]  # x1 y1 x2 y2


@dataclass
class _Scene:
    """A picture being drawn."""

    image: np.ndarray  # float32 [H, W, 3], 0 to 255
    owner: np.ndarray  # int [H, W]: the last object whose box lies there, -1 for none
    boxes: list[Box] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def draw_picture(rng: np.random.Generator) -> tuple[np.ndarray, Annotation]:
    """A picture uint8 [H, W, 3] with one to five objects, and its annotation."""
    width, height = PICTURE_SIZES[rng.integers(len(PICTURE_SIZES))]
    scene = _Scene(background(rng, width, height), np.full((height, width), -1))
    for _ in range(rng.integers(1, 5, endpoint=True)):
        _add_object(rng, scene)
    noise = rng.normal(0, rng.uniform(0, 6), scene.image.shape)
    image = (scene.image + noise).clip(0, 255).astype(np.uint8)
    shorter, in_view = min(width, height), _in_view(scene.owner, scene.boxes)
    things = [
        Thing(name, box, max(box[2] - box[0], box[3] - box[1]) < SMALL * shorter or part < IN_VIEW[1])
        for name, box, part in zip(scene.names, scene.boxes, in_view)
    ]
    return image, Annotation(width, height, things)


def outline(name: str, rotation: float) -> list[np.ndarray]:
    """Closed curves [K, 2] of a class, turned by `rotation` degrees, filling the unit square; the second one of a ring is its hole."""
    circle = _polar(np.ones(64))
    curves = {
        "cross": [_CROSS],
        "disc": [circle],
        "ring": [circle, circle * 0.55],
        "square": [_polar(np.ones(4), start=45)],
        "triangle": [_polar(np.ones(3), start=90)],
    }[name]
    angle = np.deg2rad(rotation)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    curves = [curve @ turn for curve in curves]
    low, high = curves[0].min(0), curves[0].max(0)
    return [(curve - low) / (high - low) for curve in curves]


def shape_mask(name: str, rotation: float, width: int, height: int) -> np.ndarray:
    """Coverage of each pixel, float32 [height, width] in 0..1: the outline fitted to width x height, antialiased by supersampling."""
    fine = np.zeros((height * _SUPERSAMPLE, width * _SUPERSAMPLE), np.uint8)
    corner = np.array([fine.shape[1] - 1, fine.shape[0] - 1])
    cv2.fillPoly(fine, [np.rint(curve * corner).astype(np.int32) for curve in outline(name, rotation)], 255)  # even-odd: holes stay open
    return cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A gradient with cloudy noise, perhaps stripes, soft blobs and a bar or two: float32 [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(width, height)
    one, other = rng.uniform(30, 225, (2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (np.cos(angle) * x + np.sin(angle) * y) * rng.uniform(0.2, 0.6) + 0.5
    image = one + (other - one) * ramp[..., None]
    for cells in (4, 12, 40):
        cloud = rng.normal(0, rng.uniform(2, 10), (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(cloud, (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.4:
        angle = rng.uniform(0, np.pi)
        wave = np.sin((np.cos(angle) * x + np.sin(angle) * y) * 2 * np.pi * rng.uniform(4, 24) + rng.uniform(0, 6))
        image += wave[..., None] * rng.uniform(-22, 22, 3)
    for _ in range(rng.integers(0, 5)):
        centre, radius = rng.uniform(0, 1, 2), rng.uniform(0.03, 0.2, 2)
        bump = np.exp(-(((x - centre[0]) / radius[0]) ** 2) - ((y - centre[1]) / radius[1]) ** 2)
        image += bump[..., None] * rng.uniform(-60, 60, 3)
    image = image.astype(np.float32)
    for _ in range(rng.integers(0, 3)):
        start, stop = rng.uniform(0, [width, height], (2, 2))
        bar = np.zeros((height, width), np.uint8)
        cv2.line(bar, tuple(map(int, start)), tuple(map(int, stop)), 255, int(rng.integers(1, 6)), cv2.LINE_AA)
        image += (rng.uniform(0, 255, 3) - image) * (bar[..., None] / 255 * rng.uniform(0.3, 0.9))
    return image.clip(0, 255).astype(np.float32)


def _polar(radii: np.ndarray, start: float = 0.0) -> np.ndarray:
    """Points at even angles; y runs downward, so 90 degrees is the top."""
    angle = np.deg2rad(start) + 2 * np.pi * np.arange(len(radii)) / len(radii)
    return np.stack([radii * np.cos(angle), -radii * np.sin(angle)], axis=1)


def _add_object(rng: np.random.Generator, scene: _Scene) -> None:
    """Draw one object more, where there is room for it."""
    upon = bool(scene.boxes) and rng.random() < OVERLAP
    for _ in range(60):
        box = _draw_box(rng, scene, upon)
        if upon != any(_touch(box, other) for other in scene.boxes):
            continue
        part = (slice(box[1], box[3]), slice(box[0], box[2]))
        owner = scene.owner.copy()
        owner[part] = len(scene.boxes)
        if min(_in_view(owner, scene.boxes), default=1) >= IN_VIEW[0]:
            break
    else:
        return  # a crowded picture keeps what it has
    name, rotation = SAMPLE_CLASSES[rng.integers(len(SAMPLE_CLASSES))], rng.uniform(-MAX_ROTATION, MAX_ROTATION)
    mask = shape_mask(name, rotation, box[2] - box[0], box[3] - box[1])
    scene.image[part] += (_paint(rng, scene.image[part], mask) - scene.image[part]) * mask[..., None]
    scene.owner = owner
    scene.boxes.append(box)
    scene.names.append(name)


def _in_view(owner: np.ndarray, boxes: list[Box]) -> list[float]:
    """For each box, the part of it that no later box covers."""
    return [float((owner[y1:y2, x1:x2] == k).mean()) for k, (x1, y1, x2, y2) in enumerate(boxes)]


def _draw_box(rng: np.random.Generator, scene: _Scene, upon: bool) -> Box:
    """A random box inside the picture; `upon` puts its centre on the rim of an earlier one."""
    height, width = scene.owner.shape
    side = rng.uniform(*SIDES) * min(width, height)
    squeeze = rng.uniform(0.75, 1.0)
    sides = [side, side * squeeze] if rng.random() < 0.5 else [side * squeeze, side]
    w, h = max(8, round(sides[0])), max(8, round(sides[1]))
    if upon:
        x1, y1, x2, y2 = scene.boxes[rng.integers(len(scene.boxes))]
        angle = rng.uniform(0, 2 * np.pi)
        x = (x1 + x2 + np.cos(angle) * (x2 - x1 + w * 0.6) - w) / 2
        y = (y1 + y2 + np.sin(angle) * (y2 - y1 + h * 0.6) - h) / 2
        left, top = int(np.clip(x, 0, width - w)), int(np.clip(y, 0, height - h))
    else:
        left, top = int(rng.integers(0, width - w, endpoint=True)), int(rng.integers(0, height - h, endpoint=True))
    return left, top, left + w, top + h


def _paint(rng: np.random.Generator, under: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A colour that stands out from what lies under it, with a little shading: float32 [h, w, 3]."""
    inside = under[mask > 0.5]
    colours = rng.uniform(0, 255, (20, 3))
    distance = np.linalg.norm(colours[:, None] - inside[:: max(1, len(inside) // 200)][None], axis=2)
    fits = np.quantile(distance, 0.1, axis=1)
    colour = colours[np.argmax(fits >= CONTRAST)] if (fits >= CONTRAST).any() else colours[np.argmax(fits)]
    h, w = mask.shape
    y, x = np.mgrid[0:h, 0:w]
    angle = rng.uniform(0, 2 * np.pi)
    shade = (np.cos(angle) * (x / w - 0.5) + np.sin(angle) * (y / h - 0.5)) * rng.uniform(0, 40)
    return (colour + shade[..., None]).clip(0, 255).astype(np.float32)


def _touch(one: Box, other: Box) -> bool:
    """Whether two boxes have some area in common."""
    return min(one[2], other[2]) > max(one[0], other[0]) and min(one[3], other[3]) > max(one[1], other[1])
