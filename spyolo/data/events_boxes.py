"""Boxes of a Prophesee recording, `*_bbox.npy`: one record a box, with the time at which it was drawn."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spyolo.errors import InputError
from spyolo.files import one_line, read_limited

MOST_BYTES = 1 << 30
GEN1_CLASSES = ("car", "pedestrian")
NAMES = {"t": ("t", "ts"), "x": ("x",), "y": ("y",), "w": ("w",), "h": ("h",), "class_id": ("class_id",)}  # files of two ages


class TimedBoxes(NamedTuple):
    """N boxes in order of time."""

    times: np.ndarray  # [N] int64, microseconds
    boxes: np.ndarray  # [N, 4] float32, x1 y1 x2 y2 in sensor pixels, as the file has them
    labels: np.ndarray  # [N] int64


def read_boxes(path: str | Path, num_classes: int) -> TimedBoxes:
    """Read one file. Nothing is unpickled.

    Raises:
        InputError: missing, another array, or a class that there is not; names the file.
    """
    path = Path(path)
    try:
        found = np.load(io.BytesIO(read_limited(path, MOST_BYTES)), allow_pickle=False)  # from memory: a header may announce any length
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; every recording NAME_td.dat needs its NAME_bbox.npy") from None
    except InputError:
        raise
    except Exception as error:  # a damaged head makes numpy raise errors of many kinds
        raise InputError(f"{path} is no .npy file of boxes: {one_line(error) or type(error).__name__}") from None
    if not isinstance(found, np.ndarray):
        raise InputError(f"{path} is no .npy file of boxes but an archive")
    names = found.dtype.names or ()
    columns = {}
    for field, spellings in NAMES.items():
        name = next((n for n in spellings if n in names), None)
        if name is None or found.ndim != 1:
            raise InputError(f"{path}: field {field!r} is missing; its fields are {', '.join(names) or 'none'}")
        columns[field] = found[name]
        if columns[field].ndim != 1 or columns[field].dtype.kind not in "iuf":
            raise InputError(f"{path}: field {field!r} holds {columns[field].dtype}, numbers are wanted")
    order = np.argsort(columns["t"], kind="stable")
    t, x, y, w, h, label = (columns[field][order] for field in NAMES)
    x, y, w, h = (side.astype(np.float64) for side in (x, y, w, h))  # a file's small whole numbers would wrap round
    boxes = np.stack([x, y, x + w, y + h], 1).astype(np.float32)
    if not np.isfinite(boxes).all():
        raise InputError(f"{path}: box {int(order[np.isfinite(boxes).all(1).argmin()])} is not four numbers")
    strange = ~((label >= 0) & (label < num_classes))
    if strange.any():
        raise InputError(f"{path}: class {label[strange][0]:g} is none of the {num_classes} classes in use")
    return TimedBoxes(t.astype(np.int64), boxes, label.astype(np.int64))


def write_boxes(path: str | Path, times: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> None:
    """Write boxes [N, 4] (x1 y1 x2 y2) as the data set's own files have them."""
    numbers = [(name, "<f4") for name in ("x", "y", "w", "h")]
    out = np.zeros(len(times), np.dtype([("t", "<u8"), *numbers, ("class_id", "u1"), ("confidence", "<f4"), ("track_id", "<u4")]))
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    out["t"], out["class_id"], out["confidence"] = times, labels, 1
    out["x"], out["y"] = boxes[:, 0], boxes[:, 1]
    out["w"], out["h"] = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    np.save(path, out)
