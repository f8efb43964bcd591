"""Data sets between formats: what all of them share, and VOC folders. COCO JSON is in coco_format.py, YOLO text in yolo_format.py."""

from __future__ import annotations

import filecmp
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spyolo.data.annotation import MOST_NAME, Annotation, Thing, annotation_xml
from spyolo.data.classes import VOC_CLASSES, scan_classes
from spyolo.data.splits import MOST_LETTERS, leaves_folder
from spyolo.data.voc import SUFFIXES, VOCSet
from spyolo.errors import InputError
from spyolo.files import make_folder, one_line, replace_file, shortened, write_whole

Pictures = Literal["copy", "link", "none"]
PICTURES = ("copy", "link", "none")


@dataclass(frozen=True)
class Entry:
    """One picture and its objects."""

    image_id: str
    width: int
    height: int
    things: list[Thing]  # each with a box
    picture: Path  # where it is, or would be


@dataclass(frozen=True)
class Collection:
    """A data set in no format; class names in label order."""

    classes: tuple[str, ...]
    entries: list[Entry]

    def counts(self) -> str:
        things = [thing for entry in self.entries for thing in entry.things]
        difficult = sum(thing.difficult for thing in things)
        return f"{len(self.entries)} pictures, {len(things)} objects ({difficult} difficult), {len(self.classes)} classes"


def read_voc(root: str | Path, splits: str, classes: Sequence[str] | None = None, strict: bool = False) -> Collection:
    """A VOC folder; without `classes`, VOC's own where they suffice, else all that its annotations name."""
    if classes is None:
        found = scan_classes(root, splits)
        classes = VOC_CLASSES if set(found) <= set(VOC_CLASSES) else found
    voc = VOCSet(root, splits, classes, strict)
    return Collection(voc.classes, [_entry(voc, i) for i in range(len(voc))])


def write_voc(collection: Collection, out: str | Path, name: str, year: str = "2007", pictures: Pictures = "copy") -> Path:
    """Write <out>/VOCdevkit/VOC<year> and its image set <name>; further sets may go into the same folder. Returns the image set's path.

    Raises:
        InputError: the image set is there already, an id cannot stand in one, another picture or annotation of a part written before has
            its id, or `out` cannot be written to. Nothing has been written then.
    """
    if leaves_folder(year):
        raise InputError(f"year {year!r} becomes part of a folder's name: no path separators")
    folder = make_folder(out) / "VOCdevkit" / f"VOC{year}"
    image_set = folder / "ImageSets" / "Main" / f"{name}.txt"
    if image_set.exists():
        raise InputError(f"{image_set} exists; give another --out or --name")
    for entry in collection.entries:
        if not _stands_in_a_set(entry.image_id):
            raise InputError(f"{entry.picture}: {shortened(entry.image_id)} cannot stand in an image set; rename the picture")
        bad = next((thing.name for thing in entry.things if not _stands_in_xml(thing.name)), None)
        if bad is not None:
            raise InputError(f"{entry.picture}: {shortened(bad)} cannot stand in an annotation as the name of a class; rename the class")
    other_endings_refused(collection, pictures)
    places = [picture_place(entry, folder / "JPEGImages", pictures) for entry in collection.entries]
    for entry in collection.entries:
        _other_annotation_refused(entry, folder)
    for entry, place in zip(collection.entries, places):
        bring_picture(entry, place, pictures)
        write_whole(_annotation_path(entry, folder), _annotation(entry, folder))
    return write_whole(image_set, "".join(f"{entry.image_id}\n" for entry in collection.entries))  # last: a broken run leaves no image set


def _stands_in_a_set(image_id: str) -> bool:
    """Whether `read_image_set` gives the id back."""
    one_line_of_it = image_id.splitlines() == [image_id] and image_id == image_id.strip() and len(image_id) <= MOST_LETTERS
    return one_line_of_it and image_id.isprintable() and not re.search(r"\s(-1|0|1)$|[/\\]", image_id)


def _stands_in_xml(name: str) -> bool:
    """Whether `read_annotation` gives the name back."""
    return bool(name) and name.isprintable() and one_line(name, MOST_NAME) == name


def _annotation_path(entry: Entry, folder: Path) -> Path:
    return folder / "Annotations" / f"{entry.image_id}.xml"


def _annotation(entry: Entry, folder: Path) -> bytes:
    return annotation_xml(Annotation(entry.width, entry.height, entry.things), _picture_name(entry), folder.name)


def _other_annotation_refused(entry: Entry, folder: Path) -> None:
    """Raises InputError when a part written before has this id for something else."""
    path = _annotation_path(entry, folder)
    try:
        same = not path.exists() or path.read_bytes() == _annotation(entry, folder)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from None
    if not same:
        raise InputError(f"{path} is there and says something else than {entry.picture} has; give another --out or --year, or rename one")


def _picture_name(entry: Entry) -> str:
    return f"{entry.image_id}{entry.picture.suffix or '.jpg'}"


def other_endings_refused(collection: Collection, pictures: Pictures) -> None:
    """Raises InputError where a picture would not be found again: VOC and YOLO folders do not say how their pictures end."""
    for entry in collection.entries if pictures != "none" else []:
        if Path(_picture_name(entry)).suffix not in SUFFIXES:
            raise InputError(f"{entry.picture}: endings that are found again are {', '.join(SUFFIXES)}; convert or rename the picture")


def picture_place(entry: Entry, folder: Path, pictures: Pictures) -> Path:
    """Where the picture goes in `folder`; it may be there already.

    Raises:
        InputError: there is no picture, another one has that name, or one of them cannot be read.
    """
    target = folder / _picture_name(entry)
    if pictures == "none":
        return target
    if not entry.picture.is_file():
        raise InputError(f"{entry.picture} does not exist; with --pictures none, annotations alone are converted")
    try:
        same = not target.exists() or filecmp.cmp(target, entry.picture, shallow=False)
    except OSError as error:
        raise InputError(f"{error.filename or target} cannot be read ({error.strerror or error})") from None
    if not same:
        raise InputError(f"{target} is another picture than {entry.picture}; give another --out")
    return target


def bring_picture(entry: Entry, target: Path, pictures: Pictures) -> None:
    """Copy or link the picture to the place that `picture_place` gave it, if it is not there. Raises InputError: it cannot be written."""
    if pictures == "none" or target.exists():
        return
    make_folder(target.parent)
    if pictures == "copy":
        replace_file(target, lambda temporary: shutil.copyfile(entry.picture, temporary))
        return
    try:
        target.symlink_to(entry.picture.resolve())
    except OSError as error:  # file systems without links
        raise InputError(f"{target} cannot be made a link ({error.strerror or error}); --pictures copy copies") from None


def plain(value: float) -> float | int:
    """A coordinate to a ten-thousandth of a pixel, whole where it is whole."""
    rounded = round(float(value), 4)
    return int(rounded) if rounded == int(rounded) else rounded


def same_ids_refused(entries: list[Entry], where: Path) -> None:
    """Raises InputError when two pictures would get one id; `where` is the file or folder read."""
    seen: dict[str, Path] = {}
    for entry in entries:
        if entry.image_id in seen:
            raise InputError(f"{where}: {seen[entry.image_id]} and {entry.picture} would both get the id {entry.image_id}; rename one")
        seen[entry.image_id] = entry.picture


def _entry(voc: VOCSet, i: int) -> Entry:
    objects, (width, height) = voc.objects(i), voc.size(i)
    things = [
        Thing(voc.classes[label], (plain(x1), plain(y1), plain(x2), plain(y2)), difficult)
        for (x1, y1, x2, y2), label, difficult in zip(objects.boxes.tolist(), objects.labels.tolist(), objects.difficult.tolist())
    ]
    return Entry(voc.ids[i], width, height, things, voc.image_path(i))
