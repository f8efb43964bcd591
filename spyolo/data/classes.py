"""Class lists: VOC's, the sample set's, and anybody's own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from spyolo.data.annotation import read_annotation
from spyolo.data.sample_drawing import SAMPLE_CLASSES
from spyolo.data.splits import find_folder, parse_splits, read_image_set
from spyolo.errors import InputError
from spyolo.files import is_there, one_line, read_limited

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def parse_classes(text: str) -> tuple[str, ...]:
    """A class list as written on a command line: `voc`, `sample`, `cat,dog`, or a text file with one name a line.

    Raises:
        InputError: a name that occurs twice, an empty list, or a file that is not there.
    """
    if text in ("voc", "sample"):
        return VOC_CLASSES if text == "voc" else SAMPLE_CLASSES
    path = Path(text)
    if "," in text and path.suffix != ".txt":  # names; as a path, a long list would be too long to look for
        names = [name.strip() for name in text.split(",")]
    elif is_there(path):
        try:
            names = [line.strip() for line in read_limited(path, 1 << 20).decode("utf-8-sig").splitlines()]
        except InputError:
            raise
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"class list {path} cannot be read as text: {one_line(error)}") from None
    elif path.suffix == ".txt":
        raise InputError(f"class list {path} does not exist; write one class name a line, or name the classes as cat,dog")
    else:
        names = [text.strip()]
    names = [name for name in names if name]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice or not names:
        raise InputError(f"class list {text!r} " + (f"names {', '.join(twice)} more than once" if twice else "is empty"))
    return tuple(names)


def scan_classes(root: str | Path, splits: str) -> tuple[str, ...]:
    """Every class name that the annotations of some splits hold, in alphabetical order. Unreadable annotations are passed over."""
    found: set[str] = set()
    for split in parse_splits(splits):
        folder = find_folder(Path(root), split.year)
        for image_id in read_image_set(folder, split.name):
            try:
                found.update(thing.name for thing in read_annotation(folder / "Annotations" / f"{image_id}.xml").things)
            except InputError:
                continue
    return tuple(sorted(found - {""}))
