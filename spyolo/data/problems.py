"""What to do about single bad samples: tolerate and count them, or stop at the first."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from spyolo.data.annotation import Thing
from spyolo.errors import InputError


class DataWarning(UserWarning):
    """Something in a data set was tolerated: clipped, dropped or skipped."""


class Problems:
    """Bad samples met while a data set is read: `strict` raises at the first one."""

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}  # kind of problem -> the first one met

    def tolerate(self, kind: str, message: str) -> None:
        """Count a problem of some kind; the message names file and field.

        Raises:
            InputError: with `strict`.
        """
        if self.strict:
            raise InputError(message)
        self.counts[kind] += 1
        self.examples.setdefault(kind, message)

    def warn(self, details: Mapping[str, str] = MappingProxyType({})) -> None:
        """One warning for each kind of problem: how often, what `details` adds to that kind, and the first one."""
        for kind, count in self.counts.items():
            warnings.warn(f"{count} x {kind}{details.get(kind, '')}; first: {self.examples[kind]}", DataWarning, stacklevel=3)

    def usable_box(self, thing: Thing, width: int, height: int, where: str) -> tuple[float, float, float, float] | None:
        """The object's box clipped to its picture; None when nothing of it is left. `where` names file and field."""
        if thing.box is None:
            self.tolerate("box left out", f"{where} does not hold four numbers")
            return None
        box = np.array(thing.box)
        clipped = box.clip(0, [width, height] * 2)
        if (box[2:] <= box[:2]).any() or (clipped[2:] <= clipped[:2]).any():
            self.tolerate("box left out", f"{where} {_voc(box)} has no area inside its {width} x {height} picture")
            return None
        if (clipped != box).any():
            self.tolerate("box clipped", f"{where} {_voc(box)} leaves its {width} x {height} picture")
        x1, y1, x2, y2 = clipped.tolist()
        return x1, y1, x2, y2


def _voc(box: np.ndarray) -> str:
    """A box as VOC has it: 1-based, inclusive."""
    return f"({box[0] + 1:g}, {box[1] + 1:g}, {box[2]:g}, {box[3]:g})"
