"""COCO's results format: a list of detections.

    {"image_id": "000012", "category_id": 7, "category": "car", "bbox": [x, y, width, height], "score": 0.9}

The image id is the devkit's; `category_id` counts from 1 in class order, and the name beside it makes a different class order show; boxes
are 0-based pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from spyolo.boxes import Detections
from spyolo.errors import InputError
from spyolo.evaluation.tables import Row, listed
from spyolo.files import one_line, read_limited, shortened, write_whole

MOST_BYTES = 4 << 30
_LIST = "give the detector's class list, in its order, with --classes"


def read_coco_json(path: Path, classes: Sequence[str]) -> list[Row]:
    """Rows of a COCO results file, in its order."""
    entries = _load_json(path)
    if not isinstance(entries, list):
        raise InputError(f"{path}: COCO results are a list of detections, this holds {_kind(entries)}")
    rows = [_row(entry, f"{path}, entry {number}", classes) for number, entry in enumerate(entries, start=1)]
    numbers: dict[Any, int] = {}
    for number, entry in enumerate(entries, start=1):
        if "id" in entry:
            other = numbers.setdefault(json.dumps(entry["id"]), number)
            if other != number:
                raise InputError(f"{path}: entries {other} and {number} have the same id {entry['id']!r}; ids must be unique, or left out")
    return rows


def write_coco_json(path: str | Path, detections: Mapping[str, Detections], classes: Sequence[str]) -> None:
    """Detections as COCO results, one line each."""
    lines = (line for image_id, found in detections.items() for line in coco_entries(image_id, found, classes))
    write_whole(path, "[\n" + ",\n".join(lines) + "\n]\n")


def coco_entries(image_id: str, found: Detections, classes: Sequence[str]) -> Iterator[str]:
    """The entry of each detection, as JSON on one line."""
    corners = found.boxes.double()
    boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).tolist()
    for box, score, label in zip(boxes, found.scores.double().tolist(), found.labels.tolist()):
        entry = {"image_id": image_id, "category_id": label + 1, "category": classes[label], "bbox": box, "score": score}
        yield json.dumps(entry, ensure_ascii=False)


def _load_json(path: Path) -> Any:
    try:
        return json.loads(read_limited(path, MOST_BYTES))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}); "
            "the file may have been cut short: write it again"
        ) from None
    except InputError:
        raise
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: not a JSON text ({one_line(error)})") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _row(entry: Any, where: str, classes: Sequence[str]) -> Row:
    """One checked entry."""
    if not isinstance(entry, dict):
        raise InputError(f"{where}: a detection is an object with image_id, category_id, bbox and score, not {_kind(entry)}")

    def field(name: str, fits: Callable[[Any], bool], meant: str) -> Any:
        if name not in entry:
            raise InputError(f"{where}: field {name!r} is missing")
        if not fits(entry[name]):
            raise InputError(f"{where}: field {name!r} must be {meant}, not {_kind(entry[name])}")
        return entry[name]

    image_id = field("image_id", lambda v: isinstance(v, str), 'the picture\'s name in the devkit as text, such as "000012"')
    number = field("category_id", lambda v: isinstance(v, int) and not isinstance(v, bool), "a whole number, from 1 in class order")
    if not 1 <= number <= len(classes):
        raise InputError(f"{where}: unknown class: category_id {number} is outside 1..{len(classes)}; {_LIST}")
    name = entry.get("category", classes[number - 1])
    if name not in classes:
        raise InputError(f"{where}: unknown class {name!r}: it is none of {listed(classes, 25)}; {_LIST}")
    if name != classes[number - 1]:
        raise InputError(
            f"{where}: category_id {number} is {classes[number - 1]!r} in the class list, but the entry calls it {name!r}; {_LIST}"
        )
    box = field("bbox", lambda v: isinstance(v, list) and len(v) == 4 and all(map(_is_number, v)), "four numbers: x, y, width, height")
    score = field("score", _is_number, "a number")
    try:
        x, y, width, height = map(float, box)
        return Row(where, image_id, number - 1, (x, y, x + width, y + height), float(score))
    except OverflowError:
        raise InputError(f"{where}: a number is too large") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    if isinstance(value, list | dict):
        return shortened(value, 40)
    text = json.dumps(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 40 else f"{text[:36]} ..."
