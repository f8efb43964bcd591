"""Clips of recordings for training, and whole recordings for evaluation: frames of event counts on square canvases, window after window."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from spyolo.boxes import Objects
from spyolo.data.dataset import Batch
from spyolo.data.events_set import EventSet
from spyolo.data.letterbox import Letterbox, letterbox
from spyolo.data.placement import AugmentSettings, paste, place_objects, place_one
from spyolo.errors import InputError


@dataclass(frozen=True)
class Clip:
    """Windows that follow each other."""

    frames: Tensor  # uint8 [T, 2, size, size]
    objects: list[Objects | None]  # of each window, in canvas pixels; None: not known
    clip_id: str


def collate_clips(clips: list[Clip]) -> Batch:
    """B clips -> images [T, B, 2, H, W]; objects: T lists of B."""
    frames = torch.stack([c.frames for c in clips], 1)
    objects = [list(step) for step in zip(*(c.objects for c in clips))]
    return Batch(frames, objects, [c.clip_id for c in clips], [])  # type: ignore[arg-type]


class EventClips(Dataset[Clip]):
    """An EventSet in clips of `length` windows that hold any truth; all of a clip is varied alike.

    Args:
        preset: `train` (or `mosaic`, which is the same here) scales, shifts and flips, as a function of (seed, epoch, clip); `eval`
            letterboxes.

    Raises:
        InputError: recordings shorter than a clip.
    """

    collate = staticmethod(collate_clips)

    def __init__(
        self, voc: EventSet, size: int, length: int, preset: str = "train", seed: int = 0, settings: AugmentSettings | None = None
    ) -> None:
        self.voc, self.size, self.length, self.seed = voc, size, length, seed
        self.preset = "train" if preset == "mosaic" else preset
        self.settings = settings or AugmentSettings()
        self.clips = list(voc.clips(length))
        if not self.clips:
            raise InputError(f"{voc!r}: no run of {length} windows of {voc.window / 1000:g} ms holds truth; make --timesteps smaller")
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.clips)

    def set_epoch(self, epoch: int) -> None:
        """Choose what `train` draws; call before each pass."""
        self._epoch.fill_(epoch)

    def __getitem__(self, i: int) -> Clip:
        recording, first = self.clips[i]
        windows = range(first, first + self.length)
        frames = [self.voc.frame(recording, w) for w in windows]
        truth = [self.voc.truth(recording, w) for w in windows]
        frames, truth = self._fitted(frames, truth) if self.preset == "eval" else self._varied(frames, truth, i)
        stacked = torch.from_numpy(np.ascontiguousarray(np.stack(frames).transpose(0, 3, 1, 2)))
        return Clip(stacked, truth, f"{self.voc.name(recording)}@{first}")

    def _fitted(
        self, frames: list[np.ndarray], truth: list[Objects | None]
    ) -> tuple[list[np.ndarray], list[Objects | None]]:
        place = Letterbox.fit(frames[0].shape[1], frames[0].shape[0], self.size)
        fitted = [letterbox(f, self.size, fill=0)[0] for f in frames]
        return fitted, [None if o is None else o.with_boxes(place.to_canvas(o.boxes)) for o in truth]

    def _varied(
        self, frames: list[np.ndarray], truth: list[Objects | None], i: int
    ) -> tuple[list[np.ndarray], list[Objects | None]]:
        rng = np.random.default_rng([self.seed, int(self._epoch), i])
        sensor = (frames[0].shape[1], frames[0].shape[0])
        place = place_one(rng, self.size, sensor, self.settings)
        flip = rng.random() < self.settings.flip
        canvases = []
        for frame in frames:
            canvas = np.zeros((self.size, self.size, 2), np.uint8)
            paste(canvas, np.zeros((self.size, self.size), np.uint8), frame, place)
            canvases.append(cv2.flip(canvas, 1) if flip else canvas)
        placed = [None if o is None else place_objects(o, sensor, place, self.settings) for o in truth]
        return canvases, [mirrored(o, self.size) if flip and o is not None else o for o in placed]


def mirrored(objects: Objects, width: int) -> Objects:
    x1, y1, x2, y2 = objects.boxes.unbind(1)
    return objects.with_boxes(torch.stack([width - x2, y1, width - x1, y2], 1))


def the_one(items: list[Tensor]) -> Tensor:
    """A loader's batch of one, without the dimension."""
    return items[0]


class EventPlayback(Dataset[Tensor]):
    """Whole recordings from their start, `together` side by side: item k is one window of each, uint8 [B, 2, size, size].

    `steps[k]` says which: the recordings and the window. One whose truth has ended is no longer among them; the others of its group go on.
    """

    collate = staticmethod(the_one)

    def __init__(self, voc: EventSet, size: int, together: int = 8) -> None:
        self.voc, self.size = voc, size
        every = range(len(voc.recordings))
        groups = [list(every[k : k + together]) for k in range(0, len(every), together)]
        ends = {r: voc.end_of_truth(r) for r in every}
        self.steps = [([r for r in group if w < ends[r]], w) for group in groups for w in range(max(ends[r] for r in group))]

    def __len__(self) -> int:
        return len(self.steps)

    def place(self, recording: int) -> Letterbox:
        r = self.voc.recordings[recording]
        return Letterbox.fit(r.width, r.height, self.size)

    def __getitem__(self, k: int) -> Tensor:
        group, window = self.steps[k]
        frames = np.zeros((len(group), self.size, self.size, 2), np.uint8)
        for row, recording in zip(frames, group):
            if window < self.voc.windows(recording):
                row[:] = letterbox(self.voc.frame(recording, window), self.size, fill=0)[0]
        return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
