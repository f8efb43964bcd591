"""IDX, the format of MNIST and Fashion-MNIST: a magic number (type and number of dimensions), the sizes, the bytes; as it is or gzipped."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np

from spyolo.errors import InputError
from spyolo.files import one_line, read_limited

MOST_BYTES = 1 << 30
CLASSES = 10  # of MNIST and Fashion-MNIST
FILES = tuple(f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))  # of a set


def read_idx(path: Path) -> np.ndarray:
    """uint8 array of the file's own shape.

    Raises:
        InputError: no such file, not this format, or cut off.
    """
    try:
        data = read_limited(path, MOST_BYTES)
        if path.suffix == ".gz":
            with gzip.open(io.BytesIO(data)) as file:  # a thousandth of it may be on disk
                data = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from None
    if len(data) > MOST_BYTES:
        raise InputError(f"{path}: more than {MOST_BYTES:,} bytes unpacked, which no such file has")
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise InputError(f"{path}: not an IDX file of bytes (it starts with {data[:4]!r})")
    begin = 4 + 4 * data[3]
    if data[3] > 8 or len(data) < begin:
        raise InputError(f"{path}: cut off inside its head, or of {data[3]} dimensions, which no such file has")
    shape = tuple(np.frombuffer(data[4:begin], ">u4").tolist())
    if len(data) - begin != math.prod(shape):
        raise InputError(f"{path}: cut off or too long: {shape} bytes are announced, {len(data) - begin} are there")
    return np.frombuffer(data, np.uint8, offset=begin).reshape(shape)


def read_pictures(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures [N, H, W] and labels [N] of a folder that holds `<split>-images-idx3-ubyte` and `-labels-idx1-ubyte` (.gz or not).

    Raises:
        InputError: a file is missing, damaged or empty, the two are of different length, or a label is none of 0 to 9.
    """
    found = []
    for kind in ("images-idx3", "labels-idx1"):
        name = f"{split}-{kind}-ubyte"
        path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
        if path is None:
            raise InputError(f"{folder}: {name} (or {name}.gz) is missing")
        found.append(read_idx(path))
    pictures, labels = found
    if pictures.ndim != 3 or labels.ndim != 1 or not pictures.size:
        raise InputError(f"{folder}: {split} holds no pictures with a label each (sizes {pictures.shape} and {labels.shape})")
    if len(pictures) != len(labels):
        raise InputError(f"{folder}: {len(pictures)} pictures and {len(labels)} labels of {split}: the files do not belong together")
    if labels.max() >= CLASSES:
        raise InputError(f"{folder}: picture {labels.argmax()} of {split} has the label {labels.max()}; 0 to {CLASSES - 1} are wanted")
    return pictures, labels
