"""The sample set: a real devkit folder drawn by ourselves, so that everything can be tried with no download."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from spyolo.data.annotation import write_annotation
from spyolo.data.sample_drawing import SAMPLE_CLASSES, draw_picture
from spyolo.data.voc import VOCSet
from spyolo.errors import InputError
from spyolo.files import held, make_folder, write_whole

MADE_BY = "spyolo make_sample"
DRAWING = 3  # raise when the pictures change, so that older folders are drawn again
HELD_OUT = 5  # every fifth picture goes into `val`


def make_sample(out: str | Path, pictures: int = 400, seed: int = 0, progress: bool = False) -> Path:
    """Draw the set into <out>/VOCdevkit/VOC2007 and return `out`, for `VOCSet(out, "2007:train", SAMPLE_CLASSES)`.

    Picture k depends on (seed, k) alone. A folder that already holds this very set is left as it is; one that holds another sample set
    is drawn anew.

    Raises:
        InputError: fewer than 5 pictures asked for, another process that draws there, a VOC2007 folder that this function did not make, or
            one that cannot be made.
    """
    if pictures < HELD_OUT:
        raise InputError(f"{pictures} pictures are too few; ask for {HELD_OUT} or more, so that one is held out")
    folder = Path(out) / "VOCdevkit" / "VOC2007"
    stamp = folder / "sample.json"
    told = {"made_by": MADE_BY, "drawing": DRAWING, "pictures": pictures, "seed": seed}
    if _complete(folder, stamp, told):
        return Path(out)
    make_folder(folder.parent)
    with held(folder.parent):  # two processes would draw into, and delete, each other's
        if not _complete(folder, stamp, told):
            _draw(folder, stamp, told, progress)
    return Path(out)


def _draw(folder: Path, stamp: Path, told: dict[str, Any], progress: bool) -> None:
    """The whole set, in place of an older one of ours."""
    if folder.exists():
        if not _ours(stamp):
            raise InputError(f"{folder} exists and is no sample set; give another --out, so that nothing of yours is overwritten")
        shutil.rmtree(folder)
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        make_folder(folder / name)
    write_whole(stamp, json.dumps({**told, "files": None}).encode())  # marks an unfinished set as ours
    present = {
        f"{k + 1:06d}": _write_picture(folder, f"{k + 1:06d}", np.random.default_rng([told["seed"], k]))
        for k in tqdm(range(told["pictures"]), desc="drawing the sample set", unit="picture", mininterval=0.5, disable=not progress)
    }
    _write_image_sets(folder, present)
    files = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*.*")) if path != stamp}
    write_whole(stamp, json.dumps({**told, "files": files}, indent=0).encode())


def shuffle_labels(voc: VOCSet, seed: int = 0) -> VOCSet:
    """The same set with the labels dealt out anew among all its objects: what is learned from it cannot be the classes."""
    return voc.relabelled(np.random.default_rng(seed).permutation)


def _write_picture(folder: Path, image_id: str, rng: np.random.Generator) -> set[str]:
    """Picture and annotation; returns the classes seen on it."""
    image, annotation = draw_picture(rng)
    coded = io.BytesIO()
    Image.fromarray(image).save(coded, "JPEG", quality=92)
    write_whole(folder / "JPEGImages" / f"{image_id}.jpg", coded.getvalue())
    write_annotation(folder / "Annotations" / f"{image_id}.xml", annotation, f"{image_id}.jpg", "VOC2007")
    return {thing.name for thing in annotation.things}


def _write_image_sets(folder: Path, present: dict[str, set[str]]) -> None:
    """train, val, trainval and, as VOC has them, one file per class with 1 or -1 behind each id."""
    ids = list(present)
    sets = {"train": [x for k, x in enumerate(ids) if (k + 1) % HELD_OUT], "val": ids[HELD_OUT - 1 :: HELD_OUT], "trainval": ids}
    for name, members in sets.items():
        write_whole(folder / "ImageSets" / "Main" / f"{name}.txt", "".join(f"{x}\n" for x in members).encode())
        for label in SAMPLE_CLASSES:
            lines = (f"{x} {1 if label in present[x] else -1:2d}\n" for x in members)
            write_whole(folder / "ImageSets" / "Main" / f"{label}_{name}.txt", "".join(lines).encode())


def _complete(folder: Path, stamp: Path, told: dict[str, object]) -> bool:
    """Whether the folder holds exactly this set, judged by the stamp and the sizes of its files."""
    try:
        found = json.loads(stamp.read_bytes())
        files: dict[str, int] = found.pop("files")
        return found == told and all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return False


def _ours(stamp: Path) -> bool:
    """Whether `make_sample` wrote this file: what it made may be removed, other people's folders may not."""
    try:
        found = json.loads(stamp.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("made_by") == MADE_BY
