"""Pictures to give the page: good, unusual and bad ones."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

NOISE = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)


def huge_png() -> bytes:
    """A PNG that says it is 30,000 x 30,000, in a hundred bytes."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def unusual(folder: Path, kind: str) -> Path:
    picture = Image.fromarray(NOISE)
    if kind == "gif":
        picture.save(folder / "a.gif", save_all=True, append_images=[picture])
        return folder / "a.gif"
    if kind == "grey16":
        Image.fromarray(NOISE[..., 0].astype(np.uint16) * 256).save(folder / "a.png")
        return folder / "a.png"
    if kind == "alpha":
        picture.convert("RGBA").save(folder / "a.png")
        return folder / "a.png"
    exif = Image.Exif()
    exif[274] = 6 if kind == "turned" else 1  # orientation: a quarter turn
    (picture.convert("CMYK") if kind == "cmyk" else picture).save(folder / "a.jpg", exif=exif)
    return folder / "a.jpg"
