"""Where a devkit keeps things: splits written `2007:train+2012:trainval`, folders, image sets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from spyolo.errors import InputError
from spyolo.files import one_line, read_limited, shortened

MOST_BYTES, MOST_LETTERS = 64 << 20, 200
# An image set's line is an id, in class-wise files followed by 1 (present), -1 (absent) or 0 (only difficult ones).
_SET_LINE = re.compile(r"(?P<id>.*?)(?:\s+(?:-1|0|1))?")


class Split(NamedTuple):
    """One image set of one devkit folder; an empty year means that the root itself is that folder."""

    year: str
    name: str

    def __str__(self) -> str:
        return f"{self.year}:{self.name}" if self.year else self.name


def parse_splits(text: str) -> list[Split]:
    """`2007:train+2012:trainval` -> [Split("2007", "train"), Split("2012", "trainval")].

    `train` alone means that the root is the set's own folder.
    """
    splits = []
    for part in text.split("+"):
        year, _, name = part.strip().rpartition(":")
        if not name or any(leaves_folder(word) for word in (year, name)) or ":" in year:
            raise InputError(
                f"split {part.strip()!r} in {text!r} is not understood; write year:set, joined by +, such as 2007:train+2012:trainval"
            )
        splits.append(Split(year, name))
    if len(set(splits)) < len(splits):
        raise InputError(f"{text!r} names a split twice")
    return splits


def find_folder(root: Path, year: str) -> Path:
    """The folder holding Annotations, ImageSets, JPEGImages of one year.

    `root` may hold VOCdevkit, be VOCdevkit, or be the parent of VOC<year> (or of a folder with the year's own name).

    Raises:
        InputError: no such folder; says where it was looked for.
    """
    names = [f"VOC{year}", year] if year else ["."]
    candidates = [root / middle / name for middle in ("VOCdevkit", ".") for name in names] + ([root] if root.name in names else [])
    for folder in candidates:
        if (folder / "ImageSets" / "Main").is_dir():
            return folder
    looked = ", ".join(str(folder / "ImageSets" / "Main") for folder in candidates)
    raise InputError(
        f"no VOC devkit in {root}: looked for {looked}. Give the folder that holds VOCdevkit, "
        "or draw the sample set with `python tools/make_sample.py --out FOLDER` and give that folder"
    )


def read_image_set(folder: Path, name: str) -> list[str]:
    """Image ids of ImageSets/Main/<name>.txt, in the file's order, each once.

    Raises:
        InputError: the file is missing, empty, or an id could leave its folder.
    """
    path = folder / "ImageSets" / "Main" / f"{name}.txt"
    try:
        lines = read_limited(path, MOST_BYTES).decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt"))[:12]) or "none"
        raise InputError(f"{path} does not exist; image sets there: {there}") from None
    except InputError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text: {one_line(error)}") from None
    ids: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        match = _SET_LINE.fullmatch(line.strip())
        image_id = match["id"] if match else ""
        if not image_id:
            continue
        if leaves_folder(image_id) or len(image_id) > MOST_LETTERS:
            raise InputError(
                f"{path}, line {number}: {shortened(image_id)} is not an image id; ids hold no path separators, no '..' and at most "
                f"{MOST_LETTERS} letters"
            )
        ids[image_id] = None
    if not ids:
        raise InputError(f"{path} names no picture")
    return list(ids)


def leaves_folder(word: str) -> bool:
    """Whether a word that becomes part of a path could lead out of its folder."""
    return "/" in word or "\\" in word or "\0" in word or word in (".", "..")
