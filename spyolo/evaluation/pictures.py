"""Pictures to look at, where one that cannot be read does not cost the page it stands on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from spyolo.boxes import Objects
from spyolo.data.letterbox import FILL
from spyolo.data.problems import DataWarning
from spyolo.errors import InputError


class Pictures(Protocol):
    """What is needed of a data set; spyolo.data.VOCSet has it. `size` and `strict` are asked for where a picture cannot be read."""

    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def strict(self) -> bool: ...
    def __len__(self) -> int: ...
    def image(self, i: int) -> np.ndarray: ...
    def objects(self, i: int) -> Objects: ...
    def size(self, i: int) -> tuple[int, int]: ...


def picture_or_grey(pictures: Pictures, i: int) -> np.ndarray:
    """Picture i, RGB uint8 [H, W, 3]; where it cannot be read, grey of its size and a warning: what the detector was shown in its place.

    Raises:
        InputError: it cannot be read, and the set is strict.
    """
    try:
        return pictures.image(i)
    except InputError as error:
        if pictures.strict:
            raise
        warnings.warn(f"{error}; grey stands in", DataWarning, stacklevel=2)
        width, height = pictures.size(i)
        return np.full((height, width, 3), FILL, np.uint8)
