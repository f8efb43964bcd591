"""COCO's instances JSON.

VOC's `difficult` has two fields here: `iscrowd` 1, which COCO's own scoring and most trainers leave out just as VOC's do `difficult`, and
`difficult` 1, so that it comes back as what it was. Boxes are [x, y, width, height] from the picture's corner; categories count from 1.
"""

from __future__ import annotations

import json
import math
from pathlib import Path, PurePosixPath
from typing import Any

from spyolo.data.annotation import Thing
from spyolo.data.convert import Collection, Entry, Pictures, bring_picture, picture_place, plain, same_ids_refused
from spyolo.data.problems import Problems
from spyolo.errors import InputError
from spyolo.files import make_folder, one_line, read_limited, shortened, write_whole

MOST_BYTES = 4 << 30


def write_coco(collection: Collection, out: str | Path, name: str, pictures: Pictures = "copy") -> Path:
    """Write <out>/annotations/instances_<name>.json, and the pictures into <out>/<name>. Returns the JSON's path.

    Raises:
        InputError: the file is there already, another part there has other categories, or `out` cannot be written to.
    """
    path = make_folder(out) / "annotations" / f"instances_{name}.json"
    if path.exists():
        raise InputError(f"{path} exists; give another --out or --name")
    category = {label: number for number, label in enumerate(collection.classes, 1)}
    for other in sorted(path.parent.glob("instances_*.json")):
        if _categories(other) != category:
            raise InputError(f"{other} has other categories, or in another order; give the same --classes for every part of a set")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    places = [picture_place(entry, Path(out) / name, pictures) for entry in collection.entries]  # all, before any is brought
    for number, (entry, place) in enumerate(zip(collection.entries, places), 1):
        bring_picture(entry, place, pictures)
        images.append({"id": number, "file_name": place.name, "width": entry.width, "height": entry.height})
        for thing in entry.things:
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": category[thing.name], **_box_fields(thing)})
    tree = {"images": images, "annotations": annotations, "categories": [{"id": k, "name": label} for label, k in category.items()]}
    return write_whole(path, json.dumps(tree))


def _categories(path: Path) -> dict[str, Any]:
    """Names and ids of an instances JSON."""
    try:
        return {row["name"]: row["id"] for row in json.loads(read_limited(path, MOST_BYTES))["categories"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is no part of a COCO set ({one_line(error)}); give another --out") from None


def _box_fields(thing: Thing) -> dict[str, Any]:
    assert thing.box is not None
    x1, y1, x2, y2 = thing.box
    box = [plain(value) for value in (x1, y1, x2 - x1, y2 - y1)]
    return {"bbox": box, "area": plain(box[2] * box[3]), "iscrowd": int(thing.difficult), "difficult": int(thing.difficult)}


def read_coco(path: str | Path, picture_folder: str | Path | None = None, strict: bool = False) -> Collection:
    """An instances JSON. Pictures are looked for in `picture_folder`, by default the folder beside `annotations` that its name tells.

    Classes come in the order of their ids. Ids of pictures are their file names without folder and ending.

    Raises:
        InputError: no JSON, fields missing or of the wrong kind, two pictures of one name, a file name that leaves its folder; with
            `strict`, also any unusable box.
    """
    path = Path(path)
    tree = _load(path)
    folder = Path(picture_folder) if picture_folder else path.parent.parent / path.stem.removeprefix("instances_")
    names = {_field(row, "id", path, "categories"): str(_field(row, "name", path, "categories")) for row in tree["categories"]}
    if len({*names.values()}) < len(tree["categories"]) or not all(isinstance(number, int) for number in names):
        raise InputError(f"{path}: field categories needs a whole number and a name of its own for each")
    entries: dict[Any, Entry] = {}
    for row in tree["images"]:
        number = _field(row, "id", path, "images")
        if number in entries:
            raise InputError(f"{path}: images: id {number} is there twice")
        entries[number] = _entry(row, path, folder)
    same_ids_refused(list(entries.values()), path)
    problems = Problems(strict)
    for row in tree["annotations"]:
        _add_thing(row, entries, names, problems, path)
    problems.warn()
    return Collection(tuple(names[number] for number in sorted(names)), list(entries.values()))


def _entry(row: Any, path: Path, folder: Path) -> Entry:
    where = f"{path}: images, id {row['id']}"
    file_name = PurePosixPath(str(_field(row, "file_name", path, "images")).replace("\\", "/"))
    if file_name.is_absolute() or ".." in file_name.parts:
        raise InputError(f"{where}: file_name {str(file_name)!r} leaves the picture folder")
    sides = [_field(row, side, path, "images") for side in ("width", "height")]
    if not all(isinstance(side, (int, float)) and 1 <= side < math.inf for side in sides):
        raise InputError(f"{where}: width and height must be positive numbers, not {sides}")
    return Entry(file_name.stem, int(sides[0]), int(sides[1]), [], folder / file_name)


def _add_thing(row: Any, entries: dict[Any, Entry], names: dict[Any, str], problems: Problems, path: Path) -> None:
    where = f"{path}: annotations, id {row.get('id') if isinstance(row, dict) else row}"
    image_id, category = (_field(row, key, path, "annotations") for key in ("image_id", "category_id"))
    for key, value, known in (("image_id", image_id, entries), ("category_id", category, names)):
        if value not in known:
            raise InputError(f"{where}: {key} {value!r} is none of the file's")
    entry, corners = entries[image_id], _field(row, "bbox", path, "annotations")
    box = _corners(corners)
    difficult = bool(row.get("difficult", row.get("iscrowd", 0)))
    usable = problems.usable_box(Thing(names[category], box, difficult), entry.width, entry.height, f"{where}: field bbox")
    if usable:
        x1, y1, x2, y2 = map(plain, usable)
        entry.things.append(Thing(names[category], (x1, y1, x2, y2), difficult))


def _corners(bbox: Any) -> tuple[float, float, float, float] | None:
    """x1 y1 x2 y2 of a `bbox`; None: not four finite numbers."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(isinstance(value, (int, float)) for value in bbox):
        return None
    try:
        x, y, width, height = map(float, bbox)
    except OverflowError:  # JSON's whole numbers have no limit
        return None
    box = (x, y, x + width, y + height)
    return box if all(map(math.isfinite, box)) else None


def _load(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(read_limited(path, MOST_BYTES))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no complete JSON ({one_line(error)})") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(tree, dict) or not isinstance(tree.get(key), list):
            raise InputError(f"{path}: field {key} is missing or no list; is it a COCO instances file?")
    return tree


def _field(row: Any, key: str, path: Path, table: str) -> Any:
    if not isinstance(row, dict) or key not in row or (key in ("id", "image_id", "category_id") and not isinstance(row[key], (int, str))):
        raise InputError(f"{path}: {table}: field {key} is missing or of no use in {shortened(row)}")
    return row[key]
