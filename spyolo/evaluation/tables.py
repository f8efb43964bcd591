"""Truth and detections of a whole split as flat columns: what every score here works on.

A dictionary of a few boxes for each picture is handy to build and slow to judge. A table holds the same rows as a handful of numpy
arrays, in the order in which they were given: that order decides between equal scores, as in the devkit. Coordinates are those of
spyolo.boxes, in float64.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from spyolo.boxes import Detections, Objects
from spyolo.errors import InputError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Row(NamedTuple):
    """One detection as a file has it, and where."""

    where: str  # file and line or entry, for messages
    image_id: str
    label: int
    box: tuple[float, float, float, float]  # x1 y1 x2 y2, see spyolo.boxes
    score: float


def listed(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c and 7 more`: the names an error message shows."""
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def boxes_overlap(a: Floats, b: Floats) -> Floats:
    """Intersection over union of box pairs, [P, 4] and [P, 4] -> [P]. Boxes without area overlap nothing.

    On spyolo.boxes coordinates this is the devkit's overlap with its "+1 pixel"; on whole pixels it is exact, so that `>= 0.5` means it.
    """
    size = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0.0)
    common = size[:, 0] * size[:, 1]
    union = box_areas(a) + box_areas(b) - common
    return np.divide(common, union, out=np.zeros_like(common), where=common > 0)


def box_areas(boxes: Floats) -> Floats:
    """[N, 4] -> [N], square pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


@dataclass(frozen=True)
class TruthTable:
    """Every object of the pictures that are judged."""

    ids: tuple[str, ...]  # all pictures, also those with no object, in the split's order
    image: Ints  # [M] index into `ids`
    boxes: Floats  # [M, 4]
    labels: Ints  # [M] index into the class list
    difficult: Bools  # [M]

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def of(truth: Mapping[str, Objects]) -> TruthTable:
        """Flatten `{image id: Objects}`."""
        counts = [len(objects) for objects in truth.values()]
        return TruthTable(
            ids=tuple(truth),
            image=np.repeat(np.arange(len(counts), dtype=np.int64), counts),
            boxes=_stack([objects.boxes for objects in truth.values()], np.float64).reshape(-1, 4),
            labels=_stack([objects.labels for objects in truth.values()], np.int64),
            difficult=_stack([objects.difficult for objects in truth.values()], np.bool_),
        )

    def only(self, rows: Bools) -> TruthTable:
        """Rows chosen by a mask; the pictures stay."""
        return replace(self, image=self.image[rows], boxes=self.boxes[rows], labels=self.labels[rows], difficult=self.difficult[rows])

    def by_image(self) -> dict[str, Objects]:
        """`{image id: Objects}` for every picture, back again."""
        boxes, labels, difficult = torch.from_numpy(self.boxes).float(), torch.from_numpy(self.labels), torch.from_numpy(self.difficult)
        return {
            name: Objects(boxes[rows], labels[rows], difficult[rows])
            for name, rows in zip(self.ids, _rows_by_image(self.image, len(self.ids)))
        }


@dataclass(frozen=True)
class DetectionTable:
    """Every detection on the pictures that are judged, in the order of the file or of the detector."""

    ids: tuple[str, ...]  # all pictures, as in the truth
    image: Ints  # [N] index into `ids`
    boxes: Floats  # [N, 4]
    labels: Ints  # [N] index into the class list
    scores: Floats  # [N]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: NDArray) -> DetectionTable:
        """Rows chosen by a mask or an index array; the pictures stay."""
        return replace(self, image=self.image[rows], boxes=self.boxes[rows], labels=self.labels[rows], scores=self.scores[rows])

    @staticmethod
    def of(detections: Mapping[str, Detections], ids: Sequence[str], classes: Sequence[str]) -> DetectionTable:
        """Flatten `{image id: Detections}`. Raises InputError for a picture outside `ids` and for rows that cannot be judged."""
        place = {name: index for index, name in enumerate(ids)}
        strangers = [name for name in detections if name not in place]
        if strangers:
            raise InputError(
                f"detections on pictures that are not in the truth: {listed(strangers)}; judge them on the split they were made on"
            )
        table = DetectionTable(
            ids=tuple(ids),
            image=np.repeat(np.array([place[name] for name in detections], np.int64), [len(found) for found in detections.values()]),
            boxes=_stack([found.boxes for found in detections.values()], np.float64).reshape(-1, 4),
            labels=_stack([found.labels for found in detections.values()], np.int64),
            scores=_stack([found.scores for found in detections.values()], np.float64),
        )
        problem = table.first_problem(len(classes))
        if problem is not None:
            row, what = problem
            raise InputError(f"detections of picture {table.ids[table.image[row]]}: {what}")
        return table

    def by_image(self) -> dict[str, Detections]:
        """`{image id: Detections}` for every picture, each best first; float64, so that close scores keep their order."""
        ranked = self[self.ranking]
        boxes, scores, labels = torch.from_numpy(ranked.boxes), torch.from_numpy(ranked.scores), torch.from_numpy(ranked.labels)
        return {
            name: Detections(boxes[rows], scores[rows], labels[rows])
            for name, rows in zip(self.ids, _rows_by_image(ranked.image, len(self.ids)))
        }

    @cached_property
    def ranking(self) -> Ints:
        """[N] rows from the best score to the worst; equal scores keep the order they were given in."""
        return np.argsort(-self.scores, kind="stable")

    def first_problem(self, classes: int) -> tuple[int, str] | None:
        """The first row that cannot be judged and what is wrong with it, or None. A box without area can be: it is a false positive."""
        width, height = self.boxes[:, 2] - self.boxes[:, 0], self.boxes[:, 3] - self.boxes[:, 1]
        checks = (
            (~np.isfinite(self.scores), "the score is not a number (NaN or infinite)"),
            (~np.isfinite(self.boxes).all(axis=1), "the box has a coordinate that is not a number (NaN or infinite)"),
            ((width < 0) | (height < 0), "the box is upside down (negative width or height)"),
            ((self.labels < 0) | (self.labels >= classes), f"the class index is outside 0..{classes - 1}"),
        )
        bad = [(int(wrong.argmax()), what) for wrong, what in checks if wrong.any()]
        return min(bad) if bad else None

    def duplicates(self) -> list[tuple[int, int]]:
        """Pairs (earlier row, later row) of rows equal in picture, class, score and box, by the later row."""
        if len(self) < 2:
            return []
        columns = np.column_stack([self.image, self.labels, self.scores, self.boxes])
        order = np.lexsort(columns.T[::-1])  # stable: equal rows stay in their order
        same = (columns[order[1:]] == columns[order[:-1]]).all(axis=1)
        return sorted(zip(order[:-1][same].tolist(), order[1:][same].tolist()), key=lambda pair: pair[1])


def class_counts(labels: Ints, classes: Sequence[str]) -> dict[str, int]:
    """How many rows each class has."""
    counts = Counter(labels.tolist())
    return {name: counts.get(index, 0) for index, name in enumerate(classes)}


def _stack(tensors: list[torch.Tensor], dtype: type) -> NDArray:
    if not tensors:
        return np.zeros(0, dtype)
    return torch.cat([tensor.detach().cpu() for tensor in tensors]).numpy().astype(dtype)


def _rows_by_image(image: Ints, images: int) -> list[Ints]:
    order = np.argsort(image, kind="stable")
    return np.split(order, np.searchsorted(image[order], np.arange(1, images)))
