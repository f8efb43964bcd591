"""Boxes between a raster as stored and the picture as shown, which its EXIF orientation turns.

VOC annotations are of the stored raster; YOLO's tools, and we when we predict, see the picture as shown.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

Box = tuple[float, float, float, float]
ORIENTATION = 0x0112  # the EXIF tag
BACK = {6: 8, 8: 6}  # the turns that are not their own inverse


def orientation_of(path: str | Path) -> int:
    """A picture's EXIF orientation, 1 to 8; 1 (as stored) where it has none, or cannot be read."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            found = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # a broken file makes Pillow raise nearly anything; who reads the picture will say so
        return 1
    return found if found in range(1, 9) else 1


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) after, or before, the turn."""
    return (size[1], size[0]) if orientation >= 5 else size


def turned_box(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """A box (continuous x1 y1 x2 y2) of a stored raster of `size` (width, height), in the picture as shown."""
    x1, y1, x2, y2 = box
    w, h = size
    if orientation in (2, 3, 7, 8):
        x1, x2 = w - x2, w - x1
    if orientation in (3, 4, 6, 7):
        y1, y2 = h - y2, h - y1
    return (y1, x1, y2, x2) if orientation >= 5 else (x1, y1, x2, y2)


def stored_box(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """Inverse of `turned_box`; `size` is that of the picture as shown."""
    return turned_box(box, size, BACK.get(orientation, orientation))
