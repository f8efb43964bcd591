"""VOC's own results format: one text file a class, `comp4_det_test_CLASS.txt`, one detection a line.

A line is `image_id confidence xmin ymin xmax ymax`, corners counted from 1 and inclusive (the devkit's), so a box of spyolo.boxes is
written as `x1 + 1, y1 + 1, x2, y2`. On reading, the middle words (competition and set) may be any: `comp3_det_val_car.txt` holds cars
just as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from spyolo.boxes import Detections
from spyolo.errors import InputError
from spyolo.evaluation.tables import Row, listed
from spyolo.files import one_line, read_limited, write_whole

MOST_BYTES = 4 << 30

_LINE = "`image_id confidence xmin ymin xmax ymax`"
_FILE_NAME = re.compile(r"comp\d+_det_[^_]+_(?P<name>.+)\.txt")


def read_voc_text(folder: Path, classes: Sequence[str]) -> list[Row]:
    """Rows of every class's file, in file order. A class without a file has no detections."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        match = _FILE_NAME.fullmatch(path.name)
        if not match:
            continue
        name = match["name"]
        if name not in classes:
            raise InputError(f"{path}: unknown class {name!r}: none of {listed(classes, 25)}; give the detector's list with --classes")
        if name in files:
            raise InputError(f"{folder}: two files for class {name!r}, {files[name].name} and {path.name}; keep one set a folder")
        files[name] = path
    if not files:
        raise InputError(f"{folder} holds no VOC results: files named comp4_det_test_CLASS.txt, CLASS being one of {listed(classes)}")
    return [row for label, name in enumerate(classes) if name in files for row in _read_class(files[name], label)]


def write_voc_text(folder: str | Path, detections: Mapping[str, Detections], classes: Sequence[str], image_set: str = "test") -> None:
    """One file a class, also for classes without detections. Numbers are written in full, so that reading gives the same boxes back."""
    lines: list[list[str]] = [[] for _ in classes]
    for image_id, found in detections.items():
        for (x1, y1, x2, y2), score, label in zip(found.boxes.double().tolist(), found.scores.double().tolist(), found.labels.tolist()):
            lines[label].append(f"{image_id} {score!r} {x1 + 1!r} {y1 + 1!r} {x2!r} {y2!r}\n")
    for name, rows in zip(classes, lines):
        if "/" in name or "\\" in name:
            raise InputError(f"class {name!r} cannot be part of a file name, as VOC's text format needs; save JSON instead")
        write_whole(Path(folder) / f"comp4_det_{image_set}_{name}.txt", "".join(rows))


def _read_class(path: Path, label: int) -> list[Row]:
    try:
        lines = read_limited(path, MOST_BYTES).decode("utf-8-sig").splitlines()
    except InputError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text: {one_line(error)}") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        words = line.rsplit(maxsplit=5)  # from the right: an id may hold spaces
        if not words:
            continue
        where = f"{path}, line {number}"
        if len(words) != 6:
            raise InputError(f"{where}: expected {_LINE}, found {len(words)} words; the file may be cut short")
        try:
            score, xmin, ymin, xmax, ymax = map(float, words[1:])
        except ValueError as error:
            raise InputError(f"{where}: {one_line(error)}; expected {_LINE}") from None
        rows.append(Row(where, words[0].strip(), label, (xmin - 1, ymin - 1, xmax, ymax), score))
    return rows
