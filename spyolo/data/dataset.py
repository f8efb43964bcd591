"""Pictures and truth as the detector takes them, the same for any number of loader processes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from spyolo.boxes import Objects
from spyolo.data.augment import PRESETS, Picture, apply_eval, apply_train, to_tensor
from spyolo.data.letterbox import FILL, Letterbox
from spyolo.data.placement import AugmentSettings
from spyolo.data.problems import DataWarning
from spyolo.data.voc import VOCSet
from spyolo.errors import InputError


@dataclass(frozen=True)
class Sample:
    """One picture on its canvas."""

    image: Tensor  # uint8 [3, size, size]
    objects: Objects  # in canvas pixels
    image_id: str
    letterbox: Letterbox  # how to get back to the picture; training presets: the canvas itself


@dataclass(frozen=True)
class Batch:
    """B samples."""

    images: Tensor  # uint8 [B, 3, H, W]
    objects: list[Objects]
    ids: list[str]
    letterboxes: list[Letterbox]

    def __len__(self) -> int:
        return len(self.ids)

    def pin_memory(self) -> Batch:
        return replace(self, images=self.images.pin_memory())


def collate(samples: list[Sample]) -> Batch:
    """For DataLoader(collate_fn=collate)."""
    return Batch(
        torch.stack([s.image for s in samples]), [s.objects for s in samples], [s.image_id for s in samples], [s.letterbox for s in samples]
    )


class DetectionDataset(Dataset[Sample]):
    """A VOCSet as square canvases.

    Args:
        voc: what to read.
        size: side of the canvas in pixels.
        preset: `eval` letterboxes; `train` adds scale, aspect, place, flip and colour; `mosaic` shows four pictures half of the time.
        seed: sample i of epoch e is a function of (seed, e, i) alone.
        settings: how strongly the training presets vary pictures.

    A picture that cannot be read raises InputError when the set is strict. Otherwise it is warned of and counted in `unreadable`; a
    training preset then takes the next picture, `eval` an empty grey canvas (so that its objects count as missed).
    """

    def __init__(self, voc: VOCSet, size: int, preset: str = "train", seed: int = 0, settings: AugmentSettings | None = None) -> None:
        if preset not in PRESETS:
            raise InputError(f"augmentation preset {preset!r} is none of {', '.join(PRESETS)}")
        self.voc = voc
        self.size = size
        self.preset = preset
        self.seed = seed
        self.settings = settings or AugmentSettings()
        # In shared memory, so that loader processes that live on see a new epoch, and their counts are seen here.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._unreadable = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.voc)

    @property
    def unreadable(self) -> int:
        """How often a picture could not be used."""
        return int(self._unreadable)

    def set_epoch(self, epoch: int) -> None:
        """Choose what the training presets draw; call before each pass."""
        self._epoch.fill_(epoch)

    def __getitem__(self, i: int) -> Sample:
        if not 0 <= i < len(self):
            raise IndexError(i)
        if get_worker_info() is not None:
            cv2.setNumThreads(1)  # the loader processes are the parallelism
        if self.preset == "eval":
            return self._eval_sample(i)
        rng = np.random.default_rng([self.seed, int(self._epoch), i])
        chosen = [i]
        if self.preset == "mosaic" and rng.random() < self.settings.mosaic:
            chosen += rng.integers(len(self), size=3).tolist()
        image, objects = apply_train([self._next_readable(k) for k in chosen], self.size, self.settings, rng)
        return Sample(image, objects, self.voc.ids[i], Letterbox.identity(self.size))

    def picture(self, i: int) -> Picture:
        """Picture i, RGB uint8 [H, W, 3], and its objects in its pixels."""
        return self.voc.image(i), self.voc.objects(i)

    def _eval_sample(self, i: int) -> Sample:
        try:
            image, objects, place = apply_eval(self.picture(i), self.size)
        except InputError as error:
            self._tolerate(error, "an empty canvas stands in")
            grey = np.full((self.size, self.size, 3), FILL, np.uint8)
            image, objects, place = to_tensor(grey), Objects.empty(), Letterbox.fit(*self.voc.size(i), self.size)
        return Sample(image, objects, self.voc.ids[i], place)

    def _next_readable(self, i: int) -> Picture:
        for step in range(len(self)):
            try:
                return self.picture((i + step) % len(self))
            except InputError as error:
                self._tolerate(error, "left out")
        raise InputError(f"none of the {len(self)} pictures of {self.voc.root} can be read")

    def _tolerate(self, error: InputError, instead: str) -> None:
        if self.voc.strict:
            raise error
        self._unreadable += 1
        warnings.warn(f"{error}; {instead} ({self.unreadable} so far)", DataWarning, stacklevel=2)
