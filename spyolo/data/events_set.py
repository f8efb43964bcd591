"""Recordings of an event camera with boxes, as the rest of the code takes a data set: its "pictures" are the windows that have truth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from spyolo.boxes import Objects
from spyolo.data.events_boxes import GEN1_CLASSES, read_boxes
from spyolo.data.events_dat import EventFile
from spyolo.errors import InputError


class EventSet:
    """The recordings of some folders of a data set in Gen1's layout: ROOT/train/NAME_td.dat beside NAME_bbox.npy.

    Time is cut into windows. The boxes drawn at time t are the truth of the window that ends at t or holds it; the other windows have none,
    which is not the same as being empty.

    Args:
        root: the folder that holds the splits.
        splits: `train`, or several: `train+val`.
        classes: names in the order of the files' class ids.
        window: microseconds.
        min_diagonal, min_side: smaller boxes (sensor pixels) are `difficult`: neither right nor wrong. 30 and 10 is what the authors of the
            data set leave out.
        saturate: events of one pixel and polarity at which a frame is as bright as it gets.

    Attributes:
        recordings: the event files; only their heads are read here.
        ids: of the windows with truth, NAME@window.

    Raises:
        InputError: no such folder, or no recordings in it; a bad file.
    """

    strict = True

    def __init__(
        self, root: str | Path, splits: str, classes: Sequence[str] = GEN1_CLASSES, *, window: int = 50_000, min_diagonal: float = 30,
        min_side: float = 10, saturate: int = 5,
    ) -> None:  # fmt: skip
        self.root, self.classes, self.window, self.saturate = Path(root), tuple(classes), window, saturate
        self.min_diagonal, self.min_side = min_diagonal, min_side
        self.recordings: list[EventFile] = []
        self._truth: list[dict[int, Objects]] = []  # for each recording, window -> objects
        for split in splits.split("+"):
            folder = self.root / split.strip()
            files = sorted(folder.glob("*_td.dat")) if folder.is_dir() else []
            if not files:
                raise InputError(f"{folder} holds no recording (NAME_td.dat beside NAME_bbox.npy); --data is the folder of the splits")
            for path in files:
                self.recordings.append(EventFile(path))
                self._truth.append(self._read_truth(self.recordings[-1]))
        names = [self.name(r) for r in range(len(self.recordings))]
        if len(set(names)) < len(names):
            raise InputError(f"{self.root}: two recordings of {splits} have one name; ids must be unique")
        self._list()

    def _list(self) -> None:
        self.places = [(r, w) for r, truth in enumerate(self._truth) for w in sorted(truth)]
        self.ids = [f"{self.name(r)}@{w}" for r, w in self.places]
        self._index = {name: i for i, name in enumerate(self.ids)}

    def _read_truth(self, recording: EventFile) -> dict[int, Objects]:
        path = recording.path.with_name(recording.path.name.replace("_td.dat", "_bbox.npy"))
        times, boxes, labels = read_boxes(path, len(self.classes))
        last = recording.duration + self.window  # one wrong time would make a recording of years of windows
        if len(times) and int(times.max()) > last:
            raise InputError(f"{path}: a box at {int(times.max())} us, {recording.path.name} ends at {recording.duration} us")
        truth = {}
        for time in np.unique(times):  # a window with truth of two times keeps the later one
            chosen = times == time
            boxed = torch.from_numpy(boxes[chosen])
            sides = boxed[:, 2:] - boxed[:, :2]
            small = (sides.norm(dim=1) < self.min_diagonal) | (sides < self.min_side).any(1)
            limit = torch.tensor([recording.width, recording.height] * 2, dtype=torch.float32)
            clipped = torch.minimum(boxed.clamp(min=0), limit)
            kept = (clipped[:, 2:] > clipped[:, :2]).all(1)
            truth[max(0, (int(time) - 1) // self.window)] = Objects(clipped, torch.from_numpy(labels[chosen]), small)[kept]
        return truth

    def __len__(self) -> int:
        """Windows with truth."""
        return len(self.ids)

    def __repr__(self) -> str:
        return f"EventSet({self.root}: {len(self.recordings)} recordings, {len(self)} windows with truth)"

    def name(self, recording: int) -> str:
        return self.recordings[recording].path.name.removesuffix("_td.dat")

    def windows(self, recording: int) -> int:
        """How many whole windows it lasts, those with truth included."""
        return max(self.end_of_truth(recording), self.recordings[recording].duration // self.window)

    def end_of_truth(self, recording: int) -> int:
        """The number of windows up to the last one with truth."""
        return max(self._truth[recording], default=-1) + 1

    def truth(self, recording: int, window: int) -> Objects | None:
        """None: not known."""
        return self._truth[recording].get(window)

    def frame(self, recording: int, window: int) -> np.ndarray:
        """Event counts, uint8 [H, W, 2]."""
        begin = window * self.window
        return self.recordings[recording].frame(begin, begin + self.window, self.saturate).transpose(1, 2, 0)

    def only(self, recordings: Iterable[int]) -> EventSet:
        """The same set with some of its recordings."""
        chosen = list(recordings)
        other = object.__new__(EventSet)
        other.__dict__.update(self.__dict__)
        other.recordings, other._truth = [self.recordings[r] for r in chosen], [self._truth[r] for r in chosen]
        other._list()
        return other

    # ---- what evaluation, reports and drawing ask of a data set of pictures ----

    def index(self, image_id: str) -> int:
        """Place of an id. Raises KeyError."""
        return self._index[image_id]

    def objects(self, i: int) -> Objects:
        return self._truth[self.places[i][0]][self.places[i][1]]

    def size(self, i: int) -> tuple[int, int]:
        """(width, height) of the sensor."""
        recording = self.recordings[self.places[i][0]]
        return recording.width, recording.height

    def image_path(self, i: int) -> Path:
        return self.recordings[self.places[i][0]].path

    def image(self, i: int) -> np.ndarray:
        """The window as people draw it, RGB uint8 [H, W, 3]: on events red, off events blue."""
        return drawn(self.frame(*self.places[i]))

    def clips(self, length: int) -> Iterator[tuple[int, int]]:
        """(recording, first window) of the runs of `length` windows, one after the other, that hold any truth."""
        for r, truth in enumerate(self._truth):
            for first in range(0, self.windows(r) - length + 1, length):
                if any(first <= w < first + length for w in truth):
                    yield r, first


def drawn(frame: np.ndarray) -> np.ndarray:
    """Counts [H, W, 2] -> RGB [H, W, 3]."""
    off, on = frame[..., 0], frame[..., 1]
    return np.stack([on, np.zeros_like(on), off], -1)
