"""Events of a Prophesee recording, `*_td.dat`, read where they lie: a file of any length is read in bounded memory.

The format: header lines that start with `%` (among them Height and Width), one byte event type, one byte event size, then events of eight
bytes: time in microseconds (32 bits), and a word of x (14 bits), y (14 bits) and polarity (1 bit), little-endian, in order of time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spyolo.errors import InputError

RECORD = np.dtype([("t", "<u4"), ("word", "<u4")])
EVENT = np.dtype([("t", "<u4"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
CHUNK = 1 << 16  # events in memory at a time: half a megabyte as stored
TYPES = (0x00, 0x0C)  # 2D events of a contrast detector, older and newer files
MOST_PIXELS = 1 << 24  # frames of that size are made on a header's word
GEN1 = (304, 240)  # sensor of a file whose header does not say


class EventFile:
    """One recording.

    Attributes:
        width, height: of the sensor.
        count: how many events it holds.

    Raises:
        InputError: missing, cut off, or not this format; names the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                self._start, fields = _read_header(file)
                kind = file.read(2)
                size = self.path.stat().st_size
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror or error}") from None
        except ValueError as error:
            raise InputError(f"{self.path} is no .dat file of events: {error}") from None
        if len(kind) < 2 or kind[0] not in TYPES or kind[1] != RECORD.itemsize:
            raise InputError(f"{self.path} is no .dat file of 2D events: type and size of its events are {list(kind)}, not [0 or 12, 8]")
        self._start += 2
        self.width, self.height = fields.get("width", GEN1[0]), fields.get("height", GEN1[1])
        if not (0 < self.width <= 1 << 14 and 0 < self.height <= 1 << 14 and self.width * self.height <= MOST_PIXELS):
            raise InputError(f"{self.path}: its header says the sensor is {self.width} x {self.height}")
        self.count, rest = divmod(size - self._start, RECORD.itemsize)
        if rest:
            raise InputError(f"{self.path} is cut off in the middle of an event ({rest} bytes too many); fetch it again")

    @property
    def duration(self) -> int:
        """Time of the last event, microseconds."""
        return int(self._records(self.count - 1, 1)["t"][0]) if self.count else 0

    def read(self, first: int, count: int) -> np.ndarray:
        """Events `first`, `first` + 1, ... as an array of EVENT; fewer than `count` at the end."""
        records = self._records(first, max(0, min(count, self.count - first)))
        events = np.empty(len(records), EVENT)
        events["t"], word = records["t"], records["word"]
        events["x"], events["y"], events["p"] = word & 0x3FFF, (word >> 14) & 0x3FFF, (word >> 28) & 1
        return events

    def index_at(self, time: int) -> int:
        """Number of events before `time` (microseconds), found by halving: some thirty reads of one event."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self._records(middle, 1)["t"][0] < time:
                low = middle + 1
            else:
                high = middle
        return low

    def chunks(self, begin: int, end: int, size: int = CHUNK) -> Iterator[np.ndarray]:
        """Events with begin <= t < end (microseconds), at most `size` at a time.

        Raises:
            InputError: times that run backwards, or an event beside the sensor.
        """
        at, before = self.index_at(begin), begin
        while at < self.count:
            events = self.read(at, size)
            times = events["t"].astype(np.int64)
            if times[0] < before or (np.diff(times) < 0).any():
                raise InputError(f"{self.path}: times run backwards near event {at:,}; the recording is not in order")
            inside = int(np.searchsorted(times, end))
            events = events[:inside]
            if inside and (events["x"].max() >= self.width or events["y"].max() >= self.height):
                raise InputError(f"{self.path}: an event near {at:,} lies beside the sensor of {self.width} x {self.height}")
            if inside:
                yield events
            if inside < len(times):
                return
            at, before = at + len(times), int(times[-1])

    def frame(self, begin: int, end: int, saturate: int = 5) -> np.ndarray:
        """Counts of the events of a window, one channel a polarity (off, on), uint8 [2, H, W]: 255 stands for `saturate` or more."""
        cells = 2 * self.height * self.width
        counts = np.zeros(cells, np.int64)
        for e in self.chunks(begin, end):
            counts += np.bincount((e["p"].astype(np.int64) * self.height + e["y"]) * self.width + e["x"], minlength=cells)
        return (np.minimum(counts, saturate) * 255 // saturate).astype(np.uint8).reshape(2, self.height, self.width)

    def _records(self, first: int, count: int) -> np.ndarray:
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self._start + first * RECORD.itemsize)
            return np.frombuffer(file.read(count * RECORD.itemsize), RECORD)


def _read_header(file: object) -> tuple[int, dict[str, int]]:
    """Where the header ends, and the numbers in it by name in small letters. Raises ValueError."""
    fields: dict[str, int] = {}
    start = 0
    while True:
        line = file.readline(200)  # type: ignore[attr-defined]
        if not line.startswith(b"%"):
            file.seek(start)  # type: ignore[attr-defined]
            return start, fields
        if not line.endswith(b"\n"):
            raise ValueError("a line of its header does not end")
        words = line[1:].split()
        if len(words) == 2 and words[1].isdigit():
            fields[words[0].decode("latin-1").lower()] = int(words[1])
        start += len(line)


def write_dat(path: str | Path, events: np.ndarray, width: int = GEN1[0], height: int = GEN1[1]) -> None:
    """Write an array with fields t, x, y, p as a `.dat` file.

    Raises:
        InputError: it cannot be written.
    """
    records = np.empty(len(events), RECORD)
    records["t"] = events["t"]
    x, y, p = (events[name].astype(np.uint32) for name in ("x", "y", "p"))
    records["word"] = x | (y << 14) | (p << 28)
    head = f"% Data file containing Event2D events.\n% Version 2\n% Height {height}\n% Width {width}\n".encode()
    try:
        Path(path).write_bytes(head + bytes((TYPES[1], RECORD.itemsize)) + records.tobytes())
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
