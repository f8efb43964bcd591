"""Decoded pictures kept in one large map of memory, shared by all loader processes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from spyolo.data.voc import VOCSet
from spyolo.errors import InputError


class PictureCache:
    """Pictures at fixed sizes, filled as they are first asked for.

    Args:
        voc: the set cached.
        sizes: (width, height) at which each picture is kept.
        folder: keep them in a file there, which later runs find again; None: in memory (Linux), for as long as this object lives.
            Loader processes share either, however they are started.

    The file's name is a fingerprint of the pictures' paths, sizes and times: a changed picture makes another file. Old ones may be deleted.

    Raises:
        InputError: no room for them.
    """

    def __init__(self, voc: VOCSet, sizes: list[tuple[int, int]], folder: Path | None = None) -> None:
        self.sizes = sizes
        self._starts = np.cumsum([0, *(3 * width * height for width, height in sizes)])
        self.bytes = int(self._starts[-1]) + len(sizes)  # the pictures, then one flag for each: 1 when it is there
        try:
            if folder is None:
                self.file = self._in_memory()
            else:
                self.file = folder / f"pictures-{_fingerprint(voc, sizes)}.u8"
                folder.mkdir(parents=True, exist_ok=True)
                with open(self.file, "ab") as file:
                    if os.fstat(file.fileno()).st_size < self.bytes:
                        _reserve(file.fileno(), self.bytes)
            self._map = np.memmap(self.file, np.uint8, "r+")
        except OSError as error:
            room = f"{self.bytes / 1e9:.1f} GB of decoded pictures in {folder or 'memory'}"
            raise InputError(f"no room for {room} ({error}); do without the cache") from None

    def get(self, i: int) -> np.ndarray | None:
        """Picture i, RGB uint8 [H, W, 3] (not to be written to), or None when it was not put in yet."""
        if not self._map[self._starts[-1] + i]:
            return None
        width, height = self.sizes[i]
        return self._map[self._starts[i] : self._starts[i + 1]].reshape(height, width, 3)

    def put(self, i: int, image: np.ndarray) -> None:
        """Keep picture i, [H, W, 3] at the size announced. Two processes may put the same picture: they write the same bytes."""
        self._map[self._starts[i] : self._starts[i + 1]] = image.reshape(-1)
        self._map[self._starts[-1] + i] = 1  # last: whoever sees the flag sees the picture

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_map", "_memory")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._map = np.memmap(self.file, np.uint8, "r+")

    def _in_memory(self) -> Path:
        """A nameless file in memory, which other processes of this user can open while this object lives."""
        if not hasattr(os, "memfd_create"):
            raise OSError("only on Linux; a cache on disk works everywhere")
        if self.bytes > 0.8 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
            raise OSError("more than four fifths of this machine's memory")
        self._memory = os.fdopen(os.memfd_create("pictures"), "r+b")
        os.truncate(self._memory.fileno(), self.bytes)
        return Path(f"/proc/{os.getpid()}/fd/{self._memory.fileno()}")


def _reserve(handle: int, size: int) -> None:
    """Take the room now: a full disk would kill the process later, on writing to the map."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.truncate(handle, size)


def _fingerprint(voc: VOCSet, sizes: list[tuple[int, int]]) -> str:
    told = hashlib.blake2b(digest_size=10)
    for i, size in enumerate(sizes):
        path = voc.image_path(i)
        try:
            stat = path.stat()
            told.update(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {size}\n".encode())
        except OSError:
            told.update(f"{path.resolve()} missing {size}\n".encode())
    return told.hexdigest()
