"""The one reader of pictures: checked before it decodes, and always RGB."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from spyolo.errors import InputError
from spyolo.runner import MAX_PIXELS, MIN_SIDE, to_rgb  # it stands alone, so what both need is there

ORIENTATION = 0x0112  # the EXIF tag


def read_image(path: str | Path | io.BytesIO, exif: bool = True, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a picture of any kind that Pillow knows; an animation's first frame.

    Args:
        path: file, or its bytes in memory.
        exif: turn the picture as its EXIF orientation says. False gives the raster as stored.
        max_pixels: larger pictures are refused before they are decoded.

    Returns:
        RGB, uint8 [H, W, 3]. Transparency is laid on white; 16-bit greys are scaled to 8 bits.

    Raises:
        InputError: missing, empty, no picture, cut off, or too large; names the file.
    """
    name = "the picture" if isinstance(path, io.BytesIO) else str(path)
    try:
        # Pillow warns of large sizes and odd metadata; size is checked here.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise InputError(f"{name}: {width} x {height} is more than {max_pixels:,} pixels; make it smaller first")
            if min(width, height) < MIN_SIDE:
                raise InputError(f"{name}: {width} x {height} is too small to be a picture")
            picture.load()
            return np.asarray(to_rgb(ImageOps.exif_transpose(picture) if exif else picture))
    except Image.DecompressionBombError:
        raise InputError(f"{name} has more than {max_pixels:,} pixels; make it smaller first") from None
    except FileNotFoundError:
        raise InputError(f"{name} does not exist") from None
    except InputError:
        raise
    except Exception as error:  # a broken file makes Pillow raise nearly anything
        raise InputError(f"{name} cannot be read as a picture ({_reason(path, error)})") from None


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) of the raster as stored; as `image_head`."""
    return image_head(path)[0]


def orientation_of(path: str | Path) -> int:
    """A picture's EXIF orientation; 1 where it cannot be read: who reads the picture will say so."""
    try:
        return image_head(path)[1]
    except InputError:
        return 1


def image_head(path: str | Path) -> tuple[tuple[int, int], int]:
    """(width, height) of the raster as stored, and its EXIF orientation, 1 (as stored, also where there is none) to 8; from the file's head
    alone.

    Raises:
        InputError: missing, empty, or no picture.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            return picture.size, _orientation(picture)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except Exception as error:
        raise InputError(f"{path} cannot be read as a picture ({_reason(path, error)})") from None


def _orientation(picture: Image.Image) -> int:
    try:
        found = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # a spoilt note about a picture does not spoil the picture
        return 1
    return found if found in range(1, 9) else 1


def _reason(path: str | Path | io.BytesIO, error: Exception) -> str:
    if isinstance(path, (str, Path)) and Path(path).is_file() and Path(path).stat().st_size == 0:
        return "the file is empty"
    if type(error).__name__ == "UnidentifiedImageError":
        return "no known picture format"
    return str(error) or type(error).__name__
