"""Pseudo-video: pans and zooms over the pictures of a VOC-format set, with cuts between them, and the truth of every frame.

A clip is a few shots; a shot is one picture seen through a moving square window; between two shots there is a cut. Real video with boxes in
every frame is rare, and its classes are never those of the data set at hand; here both come with the set. Frames are a function of
(set, options, seed).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor

from spyolo.boxes import Objects
from spyolo.data.letterbox import FILL
from spyolo.errors import InputError
from spyolo.evaluation.pictures import Pictures, picture_or_grey


@dataclass(frozen=True)
class View:
    """What part of a picture a frame shows: frame = picture * scale + (dx, dy), in pixels."""

    scale: float
    dx: float
    dy: float
    size: int  # side of the frame

    @staticmethod
    def of(centre: np.ndarray, side: float, size: int) -> View:
        """A square window of the picture, `side` pixels wide around `centre` (x, y), shown at `size` pixels."""
        scale = size / side
        dx, dy = (size / 2 - centre * scale).tolist()
        return View(scale, dx, dy, size)

    def to_frame(self, boxes: Tensor) -> Tensor:
        """Boxes [N, 4] in picture pixels -> frame pixels, not clipped."""
        return boxes * self.scale + boxes.new_tensor([self.dx, self.dy] * 2)

    def to_picture(self, boxes: Tensor) -> Tensor:
        """Boxes [N, 4] in frame pixels -> picture pixels."""
        return (boxes - boxes.new_tensor([self.dx, self.dy] * 2)) / self.scale

    def window(self) -> Tensor:
        """The frame's own outline in picture pixels, [4]."""
        return self.to_picture(torch.tensor([[0.0, 0.0, self.size, self.size]]))[0]


@dataclass(frozen=True)
class Frame:
    """One frame and everything that is known of it."""

    name: str  # clip/shot/frame, unique within the video
    image: np.ndarray  # uint8 [size, size, 3] RGB
    objects: Objects  # boxes in frame pixels, clipped to the frame
    view: View
    shot: int  # 0: the clip's first, before any cut
    since_cut: int  # frames since this shot began


@dataclass(frozen=True)
class PseudoVideo:
    """A set of clips.

    Args:
        pictures: where they are filmed.
        size: side of a frame.
        clips, shots, frames: how many clips, shots a clip, frames a shot. Pictures are drawn without repetition until all were used.
        seed: of the choice of pictures and of the camera.
        least_visible: an object of which less (a share of its area) is in the frame becomes `difficult`: neither right nor wrong to find.
        least_side: so does one that is narrower or lower, in frame pixels.

    Raises:
        InputError: no picture has an object to find, or an option is not positive.
    """

    pictures: Pictures
    size: int = 416
    clips: int = 16
    shots: int = 3
    frames: int = 8
    seed: int = 0
    least_visible: float = 0.5
    least_side: float = 8.0
    _order: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("size", "clips", "shots", "frames"):
            if getattr(self, name) < 1:
                raise InputError(f"stream option {name} must be at least 1, got {getattr(self, name)}")
        usable = [i for i in range(len(self.pictures)) if bool((~self.pictures.objects(i).difficult).any())]
        if not usable:
            raise InputError("a stream needs at least one picture with an object that is not difficult; the split has none of its classes")
        object.__setattr__(self, "_order", np.random.default_rng([self.seed, 0]).permutation(usable))

    def __len__(self) -> int:
        return self.clips

    def picture(self, clip: int, shot: int) -> int:
        """Which picture a shot shows."""
        return int(self._order[(clip * self.shots + shot) % len(self._order)])

    def clip(self, i: int) -> Iterator[Frame]:
        """The frames of clip i. Raises InputError where one of its pictures cannot be read and the set is strict."""
        for shot in range(self.shots):
            picture = self.picture(i, shot)
            image, objects = picture_or_grey(self.pictures, picture), self.pictures.objects(picture)
            draw = np.random.default_rng([self.seed, 1, i, shot])
            views = camera(draw, image.shape[1], image.shape[0], self.size, self.frames)
            source = shrunk(image, max(view.scale for view in views))
            for number, view in enumerate(views):
                seen = self.seen(objects, view)
                yield Frame(f"{i}/{shot}/{number}", render(source, image.shape, view), seen, view, shot, number)

    def seen(self, objects: Objects, view: View) -> Objects:
        """The objects of a picture as they are in a frame."""
        whole = view.to_frame(objects.boxes)
        boxes = whole.clamp(0, self.size)
        sides = boxes[:, 2:] - boxes[:, :2]
        visible = sides.prod(1) / (whole[:, 2:] - whole[:, :2]).prod(1)
        poor = (visible < self.least_visible) | (sides.min(1).values < self.least_side)
        return Objects(boxes, objects.labels, objects.difficult | poor)[(sides > 0).all(1)]


def camera(draw: np.random.Generator, width: int, height: int, size: int, frames: int) -> list[View]:
    """The views of one shot over a width x height picture: a pan, a zoom in or a zoom out, at constant speed.

    The window is a square of 50 to 100 % of the longer side. It stays inside the picture along each axis on which it fits, and is centred
    on the other, where the frame shows grey.
    """
    kind = draw.choice(["pan", "zoom in", "zoom out"])
    wide, narrow = draw.uniform(0.85, 1.0), draw.uniform(0.5, 0.65)
    share = {"pan": (draw.uniform(0.55, 0.75),) * 2, "zoom in": (wide, narrow), "zoom out": (narrow, wide)}[str(kind)]
    place = np.stack([draw.uniform(0.0, 0.3, 2), draw.uniform(0.7, 1.0, 2)])  # from near one corner of the room left to near the other
    place = np.where(draw.random(2) < 0.5, place, place[::-1])
    extent, views = np.array([width, height], float), []
    for moment in np.linspace(0.0, 1.0, frames):
        side = max(width, height) * share[0] ** (1 - moment) * share[1] ** moment
        room = np.maximum(extent - side, 0)
        middle = np.minimum(side, extent) / 2
        views.append(View.of(middle + room * (place[0] * (1 - moment) + place[1] * moment), side, size))
    return views


def shrunk(image: np.ndarray, scale: float) -> np.ndarray:
    """A picture that is shown at `scale` at most, reduced to it by averaging areas: what is left to interpolate does not alias."""
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def render(source: np.ndarray, shape: Sequence[int], view: View) -> np.ndarray:
    """A frame, uint8 [size, size, 3], of a picture of `shape` (height, width) of which `source` is a copy at any size; grey outside."""
    x, y = view.scale * shape[1] / source.shape[1], view.scale * shape[0] / source.shape[0]
    # A pixel's middle lies at index + 1/2, and the transform holds for middles.
    matrix = np.array([[x, 0, view.dx + (x - 1) / 2], [0, y, view.dy + (y - 1) / 2]])
    return cv2.warpAffine(source, matrix, (view.size,) * 2, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(FILL,) * 3)
