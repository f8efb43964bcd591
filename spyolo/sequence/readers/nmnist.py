"""N-MNIST: .bin files of 5 bytes an event, and the same events packed into arrays.

An event: x, y (a byte each), then 24 bits big endian: the highest is the polarity, the rest microseconds. An event at y = 240 is none:
it says that 2^13 microseconds passed without one that could be written.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from spyolo.errors import InputError
from spyolo.files import one_line, read_limited
from spyolo.sequence.readers.events import Events, checked

MOST_BYTES = 16 << 30
SIDE = 34
OVERFLOW_ROW, OVERFLOW = 240, 1 << 13
CLASSES = 10


def read_bin(path: Path, side: int = SIDE) -> Events:
    """All events of a recording.

    Raises:
        InputError: cut off, of another sensor, or with a time that goes back.
    """
    try:
        data = np.frombuffer(read_limited(path, 1 << 28), np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) % 5:
        raise InputError(f"{path}: cut off: {len(data)} bytes are not a whole number of events of 5 bytes")
    x, y, high, middle, low = data.reshape(-1, 5).astype(np.int64).T
    t = (high & 0x7F) << 16 | middle << 8 | low
    overflow = y == OVERFLOW_ROW
    t = t + OVERFLOW * np.cumsum(overflow)
    real = ~overflow
    return checked(Events(t[real], x[real], y[real], high[real] >> 7), side, side, path)


class Recordings:
    """The recordings of one split, from arrays `<split>_x, _y, _p, _t, _offsets, _label` of an .npz file.

    Raises:
        InputError: no such file, arrays that are missing, empty or of another length, offsets that leave the events, a label that is no
            digit.
    """

    def __init__(self, path: Path, split: str, side: int = SIDE) -> None:
        self.path, self.split, self.side = path, split, side
        try:
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > MOST_BYTES:
                raise InputError(f"{path}: {unpacked:,} bytes unpacked, more than {MOST_BYTES:,}")
            with np.load(path, allow_pickle=False) as file:
                self.t, self.x, self.y, self.p, self.offsets, self.label = (
                    file[f"{split}_{k}"] for k in ("t", "x", "y", "p", "offsets", "label")
                )
        except KeyError as error:
            raise InputError(f"{path}: the array {error.args[0].split()[0]} is missing") from None
        except InputError:
            raise
        except Exception as error:  # a damaged archive makes zipfile, zlib and numpy raise errors of their own
            raise InputError(f"{path}: not readable as .npz ({one_line(error) or type(error).__name__})") from None
        for name in ("t", "x", "y", "p", "offsets", "label"):
            array = getattr(self, name)
            if array.ndim != 1 or array.dtype.kind not in "iu":
                raise InputError(f"{path}: the array {split}_{name} is {array.dtype} {array.shape}; whole numbers in one row are wanted")
        lengths = {k: len(getattr(self, k)) for k in ("t", "x", "y", "p")}
        if len(set(lengths.values())) > 1:
            raise InputError(f"{path}: the arrays of the events of {split} differ in length: {lengths}")
        if len(self.offsets) != len(self.label) + 1:
            raise InputError(f"{path}: {split} has {len(self.label)} labels for {len(self.offsets) - 1} recordings")
        if not len(self.label):
            raise InputError(f"{path}: {split} has no recordings")
        if self.label.min() < 0 or self.label.max() >= CLASSES:
            i = int(((self.label < 0) | (self.label >= CLASSES)).argmax())
            raise InputError(f"{path}: recording {i} of {split} has the label {self.label[i]}; 0 to {CLASSES - 1} are wanted")
        self.offsets = self.offsets.astype(np.int64)  # unsigned ones never seem to go back
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.t) or (np.diff(self.offsets) < 0).any():
            raise InputError(f"{path}: the offsets of {split} do not lead from 0 to its {len(self.t)} events")

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, i: int) -> Events:
        a, b = self.offsets[i], self.offsets[i + 1]
        events = Events(*(v[a:b].astype(np.int64) for v in (self.t, self.x, self.y, self.p)))
        return checked(events, self.side, self.side, f"{self.path}, {self.split} {i}")
