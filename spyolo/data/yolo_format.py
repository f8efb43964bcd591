"""YOLO text: one file a picture, one `class x y width height` a line, centre and sides as fractions of the picture.

It cannot carry `difficult` (those objects become ordinary ones, or are left out), the pictures' sizes (read from the pictures) nor
their order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from spyolo.data.annotation import Thing
from spyolo.data.classes import parse_classes
from spyolo.data.convert import Collection, Entry, Pictures, bring_picture, other_endings_refused, picture_place, plain, same_ids_refused
from spyolo.data.images import image_head, image_size, orientation_of
from spyolo.data.orientation import Box, stored_box, turned_box, turned_size
from spyolo.data.problems import Problems
from spyolo.data.voc import SUFFIXES
from spyolo.errors import InputError
from spyolo.files import make_folder, one_line, read_limited, shortened, write_whole

MOST_BYTES, MOST_NAMES = 16 << 20, 100_000
OTHER_PICTURES = {*(suffix.lower() for suffix in SUFFIXES), ".tif", ".tiff", ".gif", ".avif", ".heic", ".jp2"}  # none of VOC's endings


def write_yolo(collection: Collection, out: str | Path, name: str, pictures: Pictures = "copy", drop_difficult: bool = False) -> Path:
    """Write <out>/labels/<name>/ID.txt, the pictures into <out>/images/<name>, and <out>/data.yaml. Returns the latter's path.

    Raises:
        InputError: the label folder is there already, data.yaml names other classes, or `out` cannot be written to.
    """
    if name in ("path", "names", "nc"):
        raise InputError(f"a part named {name} cannot stand in data.yaml; give another --name")
    labels, index = make_folder(out) / "labels" / name, Path(out) / "data.yaml"
    if labels.exists():
        raise InputError(f"{labels} exists; give another --out or --name")
    listed = _read_yaml(index) if index.exists() else {}
    if listed and _names(listed, index) != collection.classes:
        raise InputError(f"{index} names other classes, or in another order; give the same --classes for every part of a set")
    # All places before the first label is written: half a part could not be written again.
    other_endings_refused(collection, pictures)
    places = [picture_place(entry, Path(out) / "images" / name, pictures) for entry in collection.entries]
    for entry, place in zip(collection.entries, places):
        bring_picture(entry, place, pictures)
        shown = _as_shown(entry)
        lines = [_line(thing, shown, collection.classes) for thing in shown.things if not (drop_difficult and thing.difficult)]
        write_whole(labels / f"{entry.image_id}.txt", "".join(lines))
    kept = {key: value for key, value in listed.items() if key != "path"}  # without one, readers take the folder that data.yaml lies in
    tree = {**kept, name: f"images/{name}", "names": dict(enumerate(collection.classes))}
    return write_whole(index, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))


def _as_shown(entry: Entry) -> Entry:
    """The entry with the size and boxes of its picture as shown; an annotation may be of the raster as stored (which is what is taken where
    both have its size, as VOCSet does), or of the picture as shown already."""
    orientation = orientation_of(entry.picture)
    if orientation == 1 or (entry.width, entry.height) != image_size(entry.picture):
        return entry
    return _turned(entry, orientation, turned_box)


def _turned(entry: Entry, orientation: int, turn: Callable[[Box, tuple[int, int], int], Box]) -> Entry:
    """Size and boxes in the other frame: `turn` is `turned_box` or `stored_box`."""
    size = entry.width, entry.height
    width, height = turned_size(size, orientation)
    boxes = [turn(thing.box, size, orientation) for thing in entry.things if thing.box]
    things = [replace(thing, box=(plain(a), plain(b), plain(c), plain(d))) for thing, (a, b, c, d) in zip(entry.things, boxes)]
    return replace(entry, width=width, height=height, things=things)


def _line(thing: Thing, entry: Entry, classes: Sequence[str]) -> str:
    assert thing.box is not None
    x1, y1, x2, y2 = thing.box
    numbers = ((x1 + x2) / 2 / entry.width, (y1 + y2) / 2 / entry.height, (x2 - x1) / entry.width, (y2 - y1) / entry.height)
    return f"{classes.index(thing.name)} " + " ".join(f"{number:.9g}" for number in numbers) + "\n"


def read_yolo(root: str | Path, name: str, classes: Sequence[str] | None = None, strict: bool = False) -> Collection:
    """A folder with images/<name> and labels/<name> (or <name>/images and <name>/labels); class names from data.yaml or classes.txt.

    A picture without a text file has no objects. Boxes are read, and written, as of the picture that its EXIF orientation shows, as the
    tools of this format have it; the entries are of the raster as stored.

    Raises:
        InputError: no such folders, no class names, two pictures of one id, a line that is not understood; with `strict`, also any
            unusable box or picture.
    """
    root = Path(root)
    folders = [(root / "images" / name, root / "labels" / name), (root / name / "images", root / name / "labels")]
    images, labels = next((pair for pair in folders if pair[0].is_dir()), (None, None))
    if images is None or labels is None:
        raise InputError(f"no YOLO pictures: looked for {folders[0][0]} and {folders[1][0]}")
    if not labels.is_dir():
        raise InputError(f"no YOLO labels: {images} is there, but not {labels}")
    known = tuple(classes) if classes is not None else _known_classes(root)
    problems, entries = Problems(strict), []
    for path in sorted(images.iterdir()):
        if path.suffix not in SUFFIXES:
            if path.suffix.lower() in OTHER_PICTURES:
                problems.tolerate("picture left out", f"{path}: endings taken are {', '.join(SUFFIXES)}")
            continue
        try:
            size, orientation = image_head(path)
        except InputError as error:
            problems.tolerate("picture left out", str(error))
            continue
        width, height = turned_size(size, orientation)
        things = _read_lines(labels / f"{path.stem}.txt", width, height, known, problems)
        entries.append(_turned(Entry(path.stem, width, height, things, path), orientation, stored_box))
    if not entries:
        raise InputError(f"{images} holds no picture that can be read")
    same_ids_refused(entries, images)
    problems.warn()
    return Collection(known, entries)


def _read_lines(path: Path, width: int, height: int, classes: Sequence[str], problems: Problems) -> list[Thing]:
    try:
        lines = read_limited(path, MOST_BYTES).decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except InputError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text: {one_line(error)}") from None
    things = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        where = f"{path}, line {number}"
        if len(words) != 5 or not words[0].isdecimal() or len(words[0]) > 9:
            raise InputError(f"{where}: {line.strip()[:80]!r} is not `class x y width height`")
        if int(words[0]) >= len(classes):
            raise InputError(f"{where}: class {words[0]} of {len(classes)} classes, which count from 0; check the class list")
        try:
            x, y, w, h = (float(word) for word in words[1:])
        except ValueError:
            raise InputError(f"{where}: {line.strip()[:80]!r} is not `class x y width height`") from None
        corners = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        name, box = classes[int(words[0])], tuple(map(plain, corners)) if all(map(math.isfinite, corners)) else None
        usable = problems.usable_box(Thing(name, box), width, height, f"{where}: box")  # type: ignore[arg-type]
        if usable:
            things.append(Thing(name, usable))
    return things


def _known_classes(root: Path) -> tuple[str, ...]:
    for path in (root / "data.yaml", root / "data.yml"):
        if path.is_file():
            return _names(_read_yaml(path), path)
    path = root / "classes.txt"
    if path.is_file():
        return parse_classes(str(path))
    raise InputError(f"no class names: looked for data.yaml and classes.txt in {root}; or give --classes")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(read_limited(path, 1 << 20).decode("utf-8-sig"))
    except InputError:
        raise
    except Exception as error:  # besides its own errors, the library lets through what int(), date() and deep nesting raise
        raise InputError(f"{path} cannot be read as YAML: {one_line(error)}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: fields are expected, such as names")
    return tree


def _names(tree: dict[str, Any], path: Path) -> tuple[str, ...]:
    names = tree.get("names")
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise InputError(f"{path}: field names must count from 0 without gaps")
        names = [name for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    if not isinstance(names, list) or not names:
        raise InputError(f"{path}: field names is missing; it lists the class names")
    if len(names) > MOST_NAMES or not all(isinstance(name, str | int | float | bool) for name in names):
        raise InputError(f"{path}: field names must hold class names, at most {MOST_NAMES:,}")
    twice = [name for name, count in Counter(map(str, names)).items() if count > 1]
    if twice:
        raise InputError(f"{path}: field names has {', '.join(map(shortened, twice[:5]))} more than once: objects could not be told apart")
    return tuple(map(str, names))
