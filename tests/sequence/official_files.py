"""Small files in the official formats, written by hand: nothing here reads what our own code wrote."""

from __future__ import annotations

import gzip
import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from spyolo.errors import InputError

Event = tuple[int, int, int, int]  # t, x, y, p


def aedat3_bytes(packets: list[list[Event]], overflow: int = 0) -> bytes:
    """DVS128 Gesture's format: packets of polarity events, all valid."""
    out = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
    for packet in packets:
        out += struct.pack("<hhiiiiii", 1, 1, 8, 4, overflow, len(packet), len(packet), len(packet))
        out += b"".join(struct.pack("<II", x << 17 | y << 2 | p << 1 | 1, t) for t, x, y, p in packet)
    return out


def aedat2_bytes(events: list[Event]) -> bytes:
    """CIFAR10-DVS's format; x and y are those of the address."""
    return b"#!AER-DAT2.0\r\n# recorded\r\n" + b"".join(struct.pack(">II", y << 8 | x << 1 | p, t) for t, x, y, p in events)


def nmnist_bytes(events: list[Event]) -> bytes:
    return b"".join(bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for t, x, y, p in events)


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


def write_wav(path: Path, samples: np.ndarray, rate: int = 8000, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def write_mnist(folder: Path, train: int = 24, test: int = 12) -> Path:
    """28 x 28 pictures with a bright band at the height of their digit."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % 10
        pictures = np.zeros((count, 28, 28), np.uint8)
        for i, label in enumerate(labels):
            pictures[i, 2 + 2 * label : 5 + 2 * label] = 200
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(pictures)))
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    return folder


def refused(call, *arguments, **options) -> str:
    """What an InputError says, in one line."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
