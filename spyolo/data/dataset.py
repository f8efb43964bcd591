"""Pictures and truth as the detector takes them, the same for any number of loader processes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from spyolo.boxes import Objects
from spyolo.data.augment import PRESETS, Picture, apply_eval, apply_train
from spyolo.data.cache import PictureCache
from spyolo.data.letterbox import FILL, Letterbox, resize
from spyolo.data.placement import AugmentSettings
from spyolo.data.problems import DataWarning
from spyolo.data.shards import ShardSet
from spyolo.data.voc import VOCSet
from spyolo.errors import InputError
from spyolo.files import user_cache_folder


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
        cache: keep decoded pictures, no larger than they are used: `ram` while this object lives, `disk` in a file for later runs too.
        cache_folder: where `disk` keeps it (default: the user's cache folder).

    A picture that cannot be read raises InputError when the set is strict. Otherwise it is warned of and counted in `unreadable`; a
    training preset then takes the next picture, `eval` an empty grey canvas (so that its objects count as missed).
    """

    def __init__(
        self, voc: VOCSet | ShardSet, size: int, preset: str = "train", seed: int = 0, settings: AugmentSettings | None = None,
        cache: str = "none", cache_folder: str | Path | None = None,
    ) -> None:  # fmt: skip
        if preset not in PRESETS:
            raise InputError(f"augmentation preset {preset!r} is none of {', '.join(PRESETS)}")
        if cache not in ("none", "ram", "disk"):
            raise InputError(f"cache {cache!r} is none of none, ram, disk")
        self.voc = voc
        self.size = size
        self.preset = preset
        self.seed = seed
        self.settings = settings or AugmentSettings()
        # In shared memory, so that loader processes that live on see a new epoch, and their counts are seen here.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._unreadable = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._cache: PictureCache | None = None
        if cache != "none" and isinstance(voc, ShardSet):
            raise InputError("shards are not cached decoded; cache must be none")
        if cache != "none" and isinstance(voc, VOCSet):
            folder = Path(cache_folder or user_cache_folder()) if cache == "disk" else None
            self._cache = PictureCache(voc, [self._kept_size(i) for i in range(len(voc))], folder)

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
        if self.preset == "eval":
            return self._eval_sample(i)
        rng = np.random.default_rng([self.seed, int(self._epoch), i])
        chosen = [i]
        if self.preset == "mosaic" and rng.random() < self.settings.mosaic:
            chosen += rng.integers(*self.voc.span(i), size=3).tolist()
        image, objects = apply_train([self._next_readable(k) for k in chosen], self.size, self.settings, rng)
        return Sample(image, objects, self.voc.ids[i], Letterbox.identity(self.size))

    def picture(self, i: int) -> np.ndarray:
        """Picture i, RGB uint8 [H, W, 3], at the size in which the preset uses (and the cache keeps) it."""
        kept = self._cache.get(i) if self._cache else None
        if kept is None:
            kept = resize(self.voc.image(i), *self._kept_size(i))
            if self._cache:
                self._cache.put(i, kept)
        return kept

    def _kept_size(self, i: int) -> tuple[int, int]:
        """(width, height), never more than the picture's own nor than its largest appearance on a canvas."""
        width, height = self.voc.size(i)
        if self.preset == "eval":  # exactly what the letterbox makes of it, so that a cache changes no pixel
            place = Letterbox.fit(width, height, self.size)
            return place.inner(width, height) if place.scale < 1 else (width, height)
        most = self.size * max(1.0, self.settings.scale[1])
        shrink = min(1.0, most / max(width, height))
        return max(2, round(width * shrink)), max(2, round(height * shrink))

    def _eval_sample(self, i: int) -> Sample:
        place = Letterbox.fit(*self.voc.size(i), self.size)
        try:
            image, objects = apply_eval(self.picture(i), self.size), self.voc.objects(i)
        except InputError as error:
            self._tolerate(error, "an empty canvas stands in")
            image, objects = torch.full((3, self.size, self.size), FILL, dtype=torch.uint8), Objects.empty()
        return Sample(image, objects.with_boxes(place.to_canvas(objects.boxes)), self.voc.ids[i], place)

    def _next_readable(self, i: int) -> Picture:
        for k in ((i + step) % len(self) for step in range(len(self))):
            try:
                image, objects, (width, height) = self.picture(k), self.voc.objects(k), self.voc.size(k)
                scale = torch.tensor([image.shape[1] / width, image.shape[0] / height]).repeat(2)
                return image, objects.with_boxes(objects.boxes * scale)
            except InputError as error:
                self._tolerate(error, "left out")
        raise InputError(f"none of the {len(self)} pictures of {self.voc.root} can be read")

    def _tolerate(self, error: InputError, instead: str) -> None:
        if self.voc.strict:
            raise error
        self._unreadable += 1
        warnings.warn(f"{error}; {instead} ({self.unreadable} so far)", DataWarning, stacklevel=2)
