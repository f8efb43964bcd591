"""The presets `train`, `mosaic` and `eval`. The only file that knows albumentations; without it, augment_torch.py takes its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spyolo.boxes import Objects
from spyolo.data.letterbox import FILL, letterbox
from spyolo.data.placement import AugmentSettings, join, paste, place_four, place_objects, place_one

PRESETS = ("train", "mosaic", "eval")

Picture = tuple[np.ndarray, Objects]  # RGB uint8 [H, W, 3] and its objects, in its own pixels
# canvas [S, S, 3], where it shows a picture [S, S], objects, generator -> the first three, flipped and coloured
Finish = Callable[[np.ndarray, np.ndarray, Objects, np.random.Generator], tuple[np.ndarray, np.ndarray, Objects]]


def apply_train(pictures: list[Picture], size: int, settings: AugmentSettings, rng: np.random.Generator) -> tuple[Tensor, Objects]:
    """One picture, or four as a mosaic -> canvas uint8 [3, size, size] and the objects on it, everything drawn from `rng`."""
    sizes = [(image.shape[1], image.shape[0]) for image, _ in pictures]
    places = place_four(rng, size, sizes, settings) if len(pictures) == 4 else [place_one(rng, size, sizes[0], settings)]
    canvas, shown = np.full((size, size, 3), FILL, np.uint8), np.zeros((size, size), np.uint8)
    for (image, _), place in zip(pictures, places):
        paste(canvas, shown, image, place)
    objects = join([place_objects(found, shape, place, settings) for (_, found), shape, place in zip(pictures, sizes, places)])
    canvas, shown, objects = _finish(settings)(canvas, shown, objects, rng)
    canvas[shown == 0] = FILL  # the colour change is for the pictures alone
    return to_tensor(canvas), objects


def apply_eval(image: np.ndarray, size: int) -> Tensor:
    """The letterboxed picture, uint8 [3, size, size]; nothing is random."""
    return to_tensor(letterbox(image, size)[0])


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> uint8 [3, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


@cache
def _finish(settings: AugmentSettings) -> Finish:
    """Flip and colour, by albumentations or by its twin."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network for a newer version on import
    try:
        import albumentations
    except ImportError:
        from spyolo.data.augment_torch import finish_numpy

        return lambda image, shown, objects, rng: finish_numpy(image, shown, objects, settings, rng)
    return _albumentations_finish(albumentations, settings)


def _albumentations_finish(A: Any, settings: AugmentSettings) -> Finish:
    steps = A.Compose(
        [
            A.HorizontalFlip(p=settings.flip),
            A.ColorJitter(
                brightness=settings.brightness, contrast=(1, 1), saturation=settings.saturation, hue=(-settings.hue, settings.hue), p=1
            ),
        ],
        bbox_params=A.BboxParams(format="pascal_voc", label_fields=["index"], clip=True),
    )

    def finish(
        image: np.ndarray, shown: np.ndarray, objects: Objects, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, Objects]:
        steps.set_random_seed(int(rng.integers(2**31)))
        done = steps(image=image, mask=shown, bboxes=objects.boxes.numpy(), index=np.arange(len(objects)))
        boxes = torch.as_tensor(np.asarray(done["bboxes"], dtype=np.float32).reshape(-1, 4))
        return done["image"], done["mask"], objects[torch.as_tensor(np.asarray(done["index"], dtype=np.int64))].with_boxes(boxes)

    return finish
