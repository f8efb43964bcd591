"""The presets of augment.py with torchvision.transforms.v2, on tensors.

`finish_numpy` takes albumentations' place in our loader where that is not installed. `apply_train` and `apply_eval` are the whole presets,
for a loader of your own whose pictures are tensors, on any device: nothing in spyolo calls them (its loader works on the CPU), a test
holds them to augment.py. The same settings and order of steps; the pixels differ (another resampling, another order of colour steps).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from spyolo.boxes import Objects
from spyolo.data.letterbox import FILL, Letterbox
from spyolo.data.placement import AugmentSettings, join, place_four, place_objects, place_one, visible


def apply_train(
    pictures: list[tuple[Tensor, Objects]], size: int, settings: AugmentSettings, rng: np.random.Generator
) -> tuple[Tensor, Objects]:
    """One picture uint8 [3, H, W] on any device, or four as a mosaic -> canvas uint8 [3, size, size] there, and the objects on it (CPU)."""
    sizes = [(image.shape[2], image.shape[1]) for image, _ in pictures]
    places = place_four(rng, size, sizes, settings) if len(pictures) == 4 else [place_one(rng, size, sizes[0], settings)]
    canvas = torch.full((3, size, size), FILL, dtype=torch.uint8, device=pictures[0][0].device)
    shown = torch.zeros_like(canvas[0])
    for (image, _), place in zip(pictures, places):
        x1, y1, x2, y2 = visible(place)
        if x2 > x1 and y2 > y1:
            resized = F.resize(image, [place.height, place.width], antialias=True)
            canvas[:, y1:y2, x1:x2] = resized[:, y1 - place.top : y2 - place.top, x1 - place.left : x2 - place.left]
            shown[y1:y2, x1:x2] = 1
    objects = join([place_objects(found, shape, place, settings) for (_, found), shape, place in zip(pictures, sizes, places)])
    canvas, shown, objects = finish(canvas, shown, objects, settings, rng)
    return canvas.where(shown == 1, FILL), objects


def apply_eval(image: Tensor, objects: Objects, size: int) -> tuple[Tensor, Objects, Letterbox]:
    """Letterbox on the picture's own device; within a few grey levels of `letterbox`, which the CPU path uses."""
    place = Letterbox.fit(image.shape[2], image.shape[1], size)
    width, height = place.inner(image.shape[2], image.shape[1])
    canvas = torch.full((3, size, size), FILL, dtype=torch.uint8, device=image.device)
    canvas[:, place.top : place.top + height, place.left : place.left + width] = F.resize(image, [height, width], antialias=True)
    return canvas, objects.with_boxes(place.to_canvas(objects.boxes)), place


def finish(
    image: Tensor, shown: Tensor, objects: Objects, settings: AugmentSettings, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Objects]:
    """Flip and colour of a canvas uint8 [3, S, S] that shows pictures where `shown` [S, S] is 1."""
    if rng.random() < settings.flip:
        size = (int(image.shape[1]), int(image.shape[2]))
        boxes = tv_tensors.BoundingBoxes(objects.boxes, format="XYXY", canvas_size=size)  # type: ignore[call-arg]
        image, shown = F.horizontal_flip(image), shown.flip(1)
        objects = objects.with_boxes(F.horizontal_flip(boxes).as_subclass(Tensor))
    image = F.adjust_brightness(image, rng.uniform(*settings.brightness))
    image = F.adjust_saturation(image, rng.uniform(*settings.saturation))
    return F.adjust_hue(image, rng.uniform(-settings.hue, settings.hue)), shown, objects


def finish_numpy(
    image: np.ndarray, shown: np.ndarray, objects: Objects, settings: AugmentSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, Objects]:
    """The same for a canvas uint8 [S, S, 3]."""
    done, where, objects = finish(torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(shown), objects, settings, rng)
    return done.permute(1, 2, 0).numpy().copy(), where.numpy(), objects
