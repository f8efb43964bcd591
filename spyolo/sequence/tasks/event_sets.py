"""Recordings of event cameras, made into frames as they are read: N-MNIST, CIFAR10-DVS, DVS128 Gesture."""

from __future__ import annotations

import re
from abc import abstractmethod
from pathlib import Path

import numpy as np
import torch

from spyolo.errors import InputError
from spyolo.files import read_limited
from spyolo.sequence.batch import Batch
from spyolo.sequence.objectives import ACCURACY
from spyolo.sequence.readers import aedat2, aedat3, nmnist
from spyolo.sequence.readers.events import Events, to_frames
from spyolo.sequence.tasks.base import Task

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class EventSet(Task):
    """Frames [T, 2, H, W] of event counts, cut by time or by number of events. A batch holds the frames of its own recordings only.

    Args:
        timesteps: frames a recording, T.
        by: `time` or `count`.
        shrink: sums squares of so many pixels a side into one.
        flat: frames as vectors, for dense networks.
    """

    objective = ACCURACY
    side = 128

    def __init__(self, timesteps: int, by: str, shrink: int = 1, *, flat: bool = False, seed: int = 0) -> None:
        super().__init__(seed)
        self.timesteps, self.by, self.shrink, self.flat = timesteps or 20, by, shrink, flat
        side = -(-self.side // shrink)
        self.inputs = (2 * side * side,) if flat else (2, side, side)

    @abstractmethod
    def labels(self, split: str) -> list[int]:
        """The label of each recording."""

    @abstractmethod
    def recording(self, split: str, i: int) -> tuple[Events, int]:
        """Events and label of one recording, read now."""

    @abstractmethod
    def told(self, split: str, i: int) -> str:
        """Where a recording lies, for messages."""

    def train_batch(self, indices: list[int], epoch: int) -> Batch:
        return self.frames("train", indices)

    def test_batch(self, indices: list[int]) -> Batch:
        return self.frames("test", indices)

    def frames(self, split: str, indices: list[int]) -> Batch:
        side = -(-self.side // self.shrink)
        frames = np.empty((self.timesteps, len(indices), 2, side, side), np.int16)
        labels = []
        for column, i in enumerate(self.places(split, indices)):
            frames[:, column], label = self.counted(split, i)
            labels.append(label)
        inputs = torch.from_numpy(frames)
        return Batch(inputs.flatten(2) if self.flat else inputs, torch.tensor(labels), self.timesteps)

    def counted(self, split: str, i: int) -> tuple[np.ndarray, int]:
        """Frames and label of one recording, whose events are gone with the call: two recordings are never held."""
        events, label = self.recording(split, i)
        if not len(events.t):
            raise InputError(f"recording {i} of {split} ({self.told(split, i)}) has no events: blank frames would be learned")
        counts = to_frames(events, self.timesteps, self.side, self.side, self.by, self.shrink)
        return np.minimum(counts, 32767), label


class NMNIST(EventSet):
    """N-MNIST (Orchard et al., 2015): folders Train/0..9 and Test/0..9 of .bin files, or an .npz of the same events end to end."""

    outputs, side = 10, nmnist.SIDE

    def __init__(self, root: Path, timesteps: int, by: str, shrink: int = 1, *, flat: bool = False, seed: int = 0) -> None:
        super().__init__(timesteps, by, shrink, flat=flat, seed=seed)
        packed = root if root.suffix == ".npz" else next(iter(sorted(root.glob("*.npz"))), None)
        self.packed = {split: nmnist.Recordings(packed, split) for split in ("train", "test")} if packed else {}
        self.files = {} if packed else {split: labelled_files(root / split.title(), "*.bin") for split in ("train", "test")}
        self.samples, self.tests = (len((self.packed or self.files)[split]) for split in ("train", "test"))

    def labels(self, split: str) -> list[int]:
        return self.packed[split].label.tolist() if self.packed else [label for _, label in self.files[split]]

    def recording(self, split: str, i: int) -> tuple[Events, int]:
        if self.packed:
            return self.packed[split][i], int(self.packed[split].label[i])
        path, label = self.files[split][i]
        return nmnist.read_bin(path), label

    def told(self, split: str, i: int) -> str:
        return str(self.packed[split].path if self.packed else self.files[split][i][0])


def labelled_files(folder: Path, pattern: str, names: tuple[str, ...] = tuple("0123456789")) -> list[tuple[Path, int]]:
    """Files of one folder a class, in the order of their numbers.

    Raises:
        InputError: a class has no folder or no file.
    """
    found = []
    for label, name in enumerate(names):
        files = sorted((folder / name).glob(pattern), key=lambda p: ([int(n) for n in re.findall(r"\d+", p.stem)], p.name))
        if not files:
            raise InputError(f"{folder / name}: no {pattern} here; one folder a class is expected: {', '.join(names)}")
        found += [(path, label) for path in files]
    return found


class CIFAR10DVS(EventSet):
    """CIFAR10-DVS (Li et al., 2017): a folder a class with 1,000 .aedat files. It has no official split: the last tenth of each class
    is the test, as SpikingJelly's `split_to_train_test_set` cuts at 0.9."""

    outputs = 10

    def __init__(self, root: Path, timesteps: int, by: str, shrink: int = 1, *, flat: bool = False, seed: int = 0) -> None:
        super().__init__(timesteps, by, shrink, flat=flat, seed=seed)
        files = labelled_files(root, "*.aedat", CIFAR10)
        self.files: dict[str, list[tuple[Path, int]]] = {"train": [], "test": []}
        for label in range(len(CIFAR10)):
            own = [f for f in files if f[1] == label]
            cut = min(-(-len(own) * 9 // 10), len(own) - 1)
            self.files["train"] += own[:cut]
            self.files["test"] += own[cut:]
        self.samples, self.tests = len(self.files["train"]), len(self.files["test"])

    def labels(self, split: str) -> list[int]:
        return [label for _, label in self.files[split]]

    def recording(self, split: str, i: int) -> tuple[Events, int]:
        path, label = self.files[split][i]
        return aedat2.read_aedat2(path), label

    def told(self, split: str, i: int) -> str:
        return str(self.files[split][i][0])


class DVSGesture(EventSet):
    """DVS128 Gesture (Amir et al., 2017): recordings of several gestures each, with their times in a label file beside them, and the
    lists trials_to_train.txt and trials_to_test.txt."""

    outputs = 11

    def __init__(self, root: Path, timesteps: int, by: str, shrink: int = 1, *, flat: bool = False, seed: int = 0) -> None:
        super().__init__(timesteps, by, shrink, flat=flat, seed=seed)
        self.gestures = {split: listed_gestures(root, f"trials_to_{split}.txt") for split in ("train", "test")}
        self.samples, self.tests = len(self.gestures["train"]), len(self.gestures["test"])

    def labels(self, split: str) -> list[int]:
        return [gesture.label for _, gesture in self.gestures[split]]

    def recording(self, split: str, i: int) -> tuple[Events, int]:
        path, gesture = self.gestures[split][i]
        return aedat3.read_window(path, gesture.start, gesture.end), gesture.label

    def told(self, split: str, i: int) -> str:
        path, gesture = self.gestures[split][i]
        return f"{path}, {gesture.start} to {gesture.end} microseconds"


def listed_gestures(root: Path, name: str) -> list[tuple[Path, aedat3.Gesture]]:
    """Every gesture of the recordings that a list names; recordings are not opened yet.

    Raises:
        InputError: the list, a recording or its labels are missing.
    """
    try:
        lines = read_limited(root / name, 1 << 20).decode().split()
    except OSError as error:
        raise InputError(f"{root / name}: cannot be read ({error.strerror}); needed: the folder DvsGesture") from None
    except UnicodeDecodeError:
        raise InputError(f"{root / name}: no list of recordings: not text") from None
    found = []
    for line in lines:
        path = root / line
        if not path.is_file():
            raise InputError(f"{path}: this recording of {name} is missing")
        found += [(path, gesture) for gesture in aedat3.read_labels(path.with_name(f"{path.stem}_labels.csv"))]
    if not found:
        raise InputError(f"{root / name}: names no recording")
    return found
