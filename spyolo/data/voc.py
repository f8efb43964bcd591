"""A PASCAL VOC devkit, read as published: image sets and annotations when the set is opened, pictures when they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spyolo.boxes import Objects
from spyolo.data.annotation import Annotation, Thing, read_annotation
from spyolo.data.classes import VOC_CLASSES
from spyolo.data.images import image_size, read_image
from spyolo.data.problems import Problems
from spyolo.data.splits import Split, find_folder, parse_splits, read_image_set
from spyolo.errors import InputError

UNKNOWN_CLASS = "object of unknown class left out"
_Box = tuple[float, float, float, float]
SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp", ".webp")


class VOCSet:
    """Some splits of a devkit, or of any data set in its format.

    Args:
        root: folder that holds VOCdevkit, VOCdevkit itself, or the parent of VOC2007 and the like.
        splits: `2007:train+2012:trainval`, or what `parse_splits` makes of it. `train` alone: root is the set's own folder.
        classes: names in label order.
        strict: raise InputError at the first problem, instead of clipping the box or leaving the object or picture out with a warning.

    Attributes:
        ids: image ids in the order of the image sets, without the pictures left out.
        unknown_classes: how many objects were left out for each class name that is not in `classes`.

    Only annotations and image sets need be on disk until a picture is asked for.

    Raises:
        InputError: no such devkit or image set, one id in two years; with `strict`, also any bad annotation.
    """

    def __init__(
        self, root: str | Path, splits: str | Sequence[Split], classes: Sequence[str] = VOC_CLASSES, strict: bool = False
    ) -> None:
        self.root = Path(root)
        self.splits = parse_splits(splits) if isinstance(splits, str) else list(splits)
        self.classes = tuple(classes)
        self.ids: list[str] = []
        self.left_out: list[str] = []  # ids of pictures that are not usable
        self.unknown_classes: Counter[str] = Counter()
        self._problems = Problems(strict)
        self._folders: list[Path] = []
        self._sizes: list[tuple[int, int]] = []
        self._read_all()
        unknown = ", ".join(f"{name} ({count})" for name, count in self.unknown_classes.most_common(10))
        self._problems.warn({UNKNOWN_CLASS: f": {unknown}"})

    @property
    def strict(self) -> bool:
        return self._problems.strict

    @property
    def warnings(self) -> Counter[str]:
        """How often each kind of problem was tolerated."""
        return self._problems.counts

    @property
    def problems(self) -> dict[str, dict[str, Any]]:
        """For each kind of problem tolerated, its `count` and the message of the `first`."""
        return {kind: {"count": count, "first": self._problems.examples[kind]} for kind, count in self.warnings.items()}

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"VOCSet({'+'.join(map(str, self.splits))} of {self.root}: {len(self)} pictures, {len(self._labels)} objects)"

    def objects(self, i: int) -> Objects:
        """Truth of picture i: boxes in its pixels (boxes.py), `difficult` flagged. A fresh copy."""
        part = slice(self._starts[i], self._starts[i + 1])
        boxes, labels, difficult = (torch.from_numpy(x[part].copy()) for x in (self._boxes, self._labels, self._difficult))
        return Objects(boxes, labels, difficult)

    def size(self, i: int) -> tuple[int, int]:
        """(width, height) of picture i as its annotation says."""
        return self._sizes[i]

    def image_path(self, i: int) -> Path:
        """Where picture i is, or (when there is none) should be."""
        return _image_path(self._folders[i], self.ids[i])

    def image(self, i: int) -> np.ndarray:
        """Picture i, RGB uint8 [H, W, 3].

        The raster as stored, like the devkit's own code: EXIF orientation counts only where the annotation's size says so.

        Raises:
            InputError: it cannot be read, or its size disagrees with the annotation.
        """
        path, (width, height) = self.image_path(i), self._sizes[i]
        image = read_image(path, exif=False)
        if image.shape[:2] != (height, width):
            turned = read_image(path)
            if turned.shape[:2] == (height, width):
                return turned
            raise InputError(
                f"{path} is {image.shape[1]} x {image.shape[0]} pixels, but field <size> of {self._annotation_path(i)} "
                f"says {width} x {height}; its boxes cannot be trusted"
            )
        return image

    def index(self, image_id: str) -> int:
        """Place of an image id. Raises KeyError."""
        if not hasattr(self, "_index"):
            self._index = {name: i for i, name in enumerate(self.ids)}
        return self._index[image_id]

    def span(self, i: int) -> tuple[int, int]:
        """Places of the pictures that are quick to read together with picture i, from the first to before the last: all of them."""
        return 0, len(self)

    def subset(self, indices: Iterable[int]) -> VOCSet:
        """The same set with only some pictures, in the order given."""
        chosen = list(indices)
        objects = [self.objects(i) for i in chosen]
        other = object.__new__(VOCSet)
        other.__dict__.update({key: value for key, value in self.__dict__.items() if key != "_index"})
        other.ids = [self.ids[i] for i in chosen]
        other._folders = [self._folders[i] for i in chosen]
        other._sizes = [self._sizes[i] for i in chosen]
        other._pack([o.boxes.numpy() for o in objects], [o.labels.numpy() for o in objects], [o.difficult.numpy() for o in objects])
        return other

    def relabelled(self, change: Callable[[np.ndarray], np.ndarray]) -> VOCSet:
        """The same set with other labels: `change` takes and returns all labels, [objects] int64."""
        other = object.__new__(VOCSet)
        other.__dict__.update(self.__dict__)
        other._labels = change(self._labels)
        return other

    def _annotation_path(self, i: int) -> Path:
        return self._folders[i] / "Annotations" / f"{self.ids[i]}.xml"

    def _read_all(self) -> None:
        boxes, labels, difficult = [], [], []
        homes: dict[str, Path] = {}
        for split in self.splits:
            folder = find_folder(self.root, split.year)
            for image_id in read_image_set(folder, split.name):
                if homes.setdefault(image_id, folder) != folder:
                    raise InputError(f"image id {image_id} is both in {homes[image_id]} and in {folder}; ids must be unique")
        for image_id, folder in homes.items():
            path = folder / "Annotations" / f"{image_id}.xml"
            try:
                annotation = self._sized(read_annotation(path), folder, image_id)
            except InputError as error:
                self._problems.tolerate("picture left out", str(error))
                self.left_out.append(image_id)
                continue
            kept = [found for number, thing in enumerate(annotation.things, 1) if (found := self._checked(thing, annotation, path, number))]
            self.ids.append(image_id)
            self._folders.append(folder)
            self._sizes.append((annotation.width, annotation.height))
            boxes.append(np.array([box for box, _, _ in kept], np.float32).reshape(-1, 4))
            labels.append(np.array([label for _, label, _ in kept], np.int64))
            difficult.append(np.array([flag for _, _, flag in kept], bool))
        if not self.ids:
            first = next(iter(self._problems.examples.values()))
            raise InputError(f"{self.root}: no picture of {'+'.join(map(str, self.splits))} is usable; first problem: {first}")
        self._pack(boxes, labels, difficult)

    def _pack(self, boxes: list[np.ndarray], labels: list[np.ndarray], difficult: list[np.ndarray]) -> None:
        """Few large arrays instead of many small ones: loader processes share them without copying."""
        self._starts = np.cumsum([0, *map(len, labels)])
        self._boxes = np.concatenate([np.zeros((0, 4), np.float32), *boxes])
        self._labels = np.concatenate([np.zeros(0, np.int64), *labels])
        self._difficult = np.concatenate([np.zeros(0, bool), *difficult])

    def _sized(self, annotation: Annotation, folder: Path, image_id: str) -> Annotation:
        """An annotation that does not say its picture's size takes it from the picture."""
        if annotation.width and annotation.height:
            return annotation
        where = f"{folder / 'Annotations' / image_id}.xml: field <size> is missing or zero"
        if self.strict:
            raise InputError(where)
        width, height = image_size(_image_path(folder, image_id))
        self._problems.tolerate("size taken from the picture", where)
        return Annotation(width, height, annotation.things)

    def _checked(self, thing: Thing, annotation: Annotation, path: Path, number: int) -> tuple[_Box, int, bool] | None:
        """(box, label, difficult), the box clipped to the picture, or None when the object is of no use."""
        where = f"{path}, object {number} ({thing.name})"
        if thing.name not in self.classes:
            message = f"{where}: field <name> is none of the {len(self.classes)} classes in use"
            self._problems.tolerate(UNKNOWN_CLASS, message)
            self.unknown_classes[thing.name] += 1
            return None
        box = self._problems.usable_box(thing, annotation.width, annotation.height, f"{where}: field <bndbox>")
        return box and (box, self.classes.index(thing.name), thing.difficult)


def _image_path(folder: Path, image_id: str) -> Path:
    candidates = [folder / "JPEGImages" / f"{image_id}{suffix}" for suffix in SUFFIXES]
    return next((path for path in candidates if path.is_file()), candidates[0])

