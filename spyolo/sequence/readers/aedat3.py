"""AEDAT 3.1, the format of the DVS128 Gesture recordings: a text header, then packets of events with a head of 28 bytes each.

Little endian. A packet's head: type and source (int16 each), size of an event, offset of its time stamp, overflow of the time stamps,
capacity, number, number of valid events (int32 each). A polarity event: 32 bits (bit 0 valid, bit 1 polarity, bits 2-16 y, 17-31 x), then
31 bits of microseconds, to which the packet's overflow adds its multiple of 2^31.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from spyolo.errors import InputError
from spyolo.files import one_line, read_limited, shortened
from spyolo.sequence.readers.events import Events, checked

HEAD = np.dtype(
    [("type", "<i2"), ("source", "<i2"), ("size", "<i4"), ("offset", "<i4"), ("overflow", "<i4"), ("capacity", "<i4"), ("number", "<i4"),
     ("valid", "<i4")]
)  # fmt: skip
POLARITY = 1
LONGEST = 1 << 16  # line of a header


class Gesture(NamedTuple):
    """One line of a recording's label file."""

    label: int  # from 0
    start: int  # microseconds
    end: int


def skip_header(file: BinaryIO, path: Path) -> None:
    """Go to the first packet."""
    line = file.readline(LONGEST)
    if not line.startswith(b"#!AER-DAT3"):
        raise InputError(f"{path}: not an AEDAT 3 file (its first line is {line[:20]!r})")
    while line.startswith(b"#"):
        if line.strip().upper() == b"#!END-HEADER":
            return
        line = file.readline(LONGEST)
    raise InputError(f"{path}: its header has no end (#!END-HEADER)")


def packets(path: Path) -> Iterator[np.ndarray]:
    """The polarity packets one by one, each as uint32 [number, 2] (data, time stamp with overflow in microseconds as uint64).

    Raises:
        InputError: not this format, or cut off.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed below; opened here for its own message)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    with file:
        skip_header(file, path)
        while head := file.read(HEAD.itemsize):
            if len(head) < HEAD.itemsize:
                raise InputError(f"{path}: cut off inside the head of a packet")
            told = np.frombuffer(head, HEAD)[0]
            size, capacity, number = int(told["size"]), int(told["capacity"]), int(told["number"])
            if size < 8 or size % 4 or not 0 <= number <= capacity or told["overflow"] < 0:
                raise InputError(f"{path}: a packet of {number} of {capacity} events of {size} bytes makes no sense; the file is damaged")
            left = os.fstat(file.fileno()).st_size - file.tell()  # asked before anything of the announced size is made
            if left < capacity * size:
                raise InputError(f"{path}: cut off: a packet announces {capacity * size} bytes, {left} are left")
            if told["type"] != POLARITY:
                file.seek(capacity * size, 1)
                continue
            body = file.read(capacity * size)
            words = np.frombuffer(body, "<u4").reshape(capacity, size // 4)[:number, :2].astype(np.uint64)
            words[:, 1] += np.uint64(int(told["overflow"]) << 31)
            yield words[words[:, 0] & 1 == 1]


def read_window(path: Path, start: int, end: int, width: int = 128, height: int = 128) -> Events:
    """Events with start <= t < end. Packets are read one by one and those outside are dropped at once."""
    kept = []
    for words in packets(path):
        if len(words) and int(words[-1, 1]) >= start:
            if int(words[0, 1]) >= end:
                break
            kept.append(words)
    words = np.concatenate(kept) if kept else np.zeros((0, 2), np.uint64)
    data, t = words[:, 0].astype(np.int64), words[:, 1].astype(np.int64)
    events = checked(Events(t, data >> 17 & 0x7FFF, data >> 2 & 0x7FFF, data >> 1 & 1), width, height, path)
    return events.between(start, end)


def read_labels(path: Path, classes: int = 11) -> list[Gesture]:
    """`class,startTime_usec,endTime_usec`, one gesture a line; classes count from 1 in the file.

    Raises:
        InputError: no such file, no head or no gesture in it, or a line that is none.
    """
    try:
        lines = list(csv.reader(read_limited(path, 1 << 24).decode().splitlines()))
    except OSError as error:
        raise InputError(f"{path}: the labels of a recording cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no table of labels ({one_line(error)})") from None
    if len(lines) < 2 or not lines[0] or lines[0][0].strip().isdecimal():
        raise InputError(f"{path}: expected a line class,startTime_usec,endTime_usec and a line for each gesture after it")
    found = []
    for number, line in enumerate(lines[1:], 2):
        try:
            label, start, end = (int(v) for v in line)
        except ValueError:
            raise InputError(f"{path}, line {number}: expected class,start,end in microseconds, got {shortened(','.join(line))}") from None
        if not 1 <= label <= classes or end <= start:
            raise InputError(f"{path}, line {number}: class {label} from {start} to {end} is no gesture (classes are 1 to {classes})")
        found.append(Gesture(label - 1, start, end))
    return found
