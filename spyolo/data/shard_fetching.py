"""Where shards are: beside their index, or elsewhere and fetched when they are needed, a few kept."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from spyolo.errors import InputError
from spyolo.files import replace_file, user_cache_folder

KEPT = 64  # fetched shards on this machine; at 100 MB each, 6.4 GB


class ShardStore:
    """Finds a shard, fetching it if need be.

    Args:
        source: where to fetch from, with {} for split and name of a shard (`train/000000.tar`): `https://host/{}`,
            `pipe:aws s3 cp s3://bucket/{} -`. It goes to webdataset's `gopen`, which runs what follows `pipe:` in a shell: it comes from
            whoever starts the run, never from a file. Empty: all shards are beside their index.
        folder: where fetched shards are kept.
        kept: how many; the one used longest ago goes first. Processes of a machine share them.
    """

    def __init__(self, source: str = "", folder: str | Path | None = None, kept: int = KEPT) -> None:
        if source and "{}" not in source:
            raise InputError(f"{source!r} does not say where a shard's name goes: write {{}} there, as in https://host/{{}}")
        self.source, self.kept = source, kept
        self.folder = Path(folder or user_cache_folder() / "shards") / hashlib.sha256(source.encode()).hexdigest()[:12]

    def check(self, shards: Iterable[tuple[Path, int]]) -> None:
        """See that shards are there, where they are not fetched.

        Raises:
            InputError: one is missing or cut off.
        """
        if self.source:
            return
        for path, size in shards:
            self._whole(path, size)

    def path(self, home: Path, size: int, root: Path) -> Path:
        """A file that holds the shard which belongs at `home`, in its split's folder below `root`, and has `size` bytes.

        Raises:
            InputError: it is missing or cut off, or cannot be fetched.
        """
        if not self.source or home.is_file():
            return self._whole(home, size)
        name = Path(os.path.relpath(home, root)).as_posix()  # with the split: each has a 000000.tar
        path = self.folder / name.replace("/", "-")
        if path.is_file() and path.stat().st_size == size:
            os.utime(path)
        else:  # also what was cut off on its way the last time, or has been written anew since
            self._fetch(name, path)
            self._make_room()
        return self._whole(path, size)

    def _whole(self, path: Path, size: int) -> Path:
        try:
            found = path.stat().st_size
        except OSError:
            raise InputError(f"shard {path} is missing, although its index lists it; copy it there or write the set again") from None
        if found != size:
            raise InputError(f"shard {path} has {found:,} bytes, its index says {size:,}: it is cut off or another one; fetch it again")
        return path

    def _fetch(self, name: str, path: Path) -> None:
        try:
            from webdataset import gopen
        except ImportError as error:
            raise InputError("webdataset is not installed: pip install webdataset") from error
        url = self.source.replace("{}", name)

        def write(temporary: Path) -> None:
            with gopen(url) as stream, open(temporary, "wb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)

        try:
            replace_file(path, write)
        except Exception as error:  # whatever the command or the network answered
            raise InputError(f"shard {name} cannot be fetched from {url} ({error})") from None

    def _make_room(self) -> None:
        """Drop what was used longest ago. A process that has it open reads on; another one fetches it again."""
        found = []
        for path in self.folder.glob("*.tar"):
            try:
                found.append((path.stat().st_mtime, path))
            except OSError:  # another process was faster
                continue
        for _, path in sorted(found)[: -self.kept]:
            path.unlink(missing_ok=True)
