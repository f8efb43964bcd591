"""Boxes between a raster as stored and the picture as shown, which its EXIF orientation turns.

VOC annotations are of the stored raster; YOLO's tools, and we when we predict, see the picture as shown.
"""

from __future__ import annotations

Box = tuple[float, float, float, float]
BACK = {6: 8, 8: 6}  # the turns that are not their own inverse


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
