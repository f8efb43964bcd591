"""Writing files whole or not at all, and one process at a time in a folder."""

from __future__ import annotations

import errno
import os
import reprlib
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spyolo.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def replace_file(path: str | Path, write: Callable[[Path], Any], keep: Path | None = None) -> Path:
    """Let `write(temporary)` fill a file beside `path`, see that it is on disk, then put it in place. A crash or a full disk leaves what
    was there before. Makes the folder. `keep`: the name (in the same folder) under which what was there before stays.

    Raises:
        InputError: the folder or the file cannot be written.
    """
    path = Path(path)
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        write(Path(temporary))
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are for the owner alone
        if keep is not None and path.exists():
            _second_name(path, keep)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}); what was there before is untouched") from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
    return path


def _second_name(path: Path, keep: Path) -> None:
    """Give `path` another name too, in place of what had it; a copy would take the time and the room of a second file."""
    link = path.with_name(f".{keep.name}.part")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without links: for a moment only the other name is there
        os.replace(path, keep)
        return
    os.replace(link, keep)


def _sync_folder(folder: Path) -> None:
    """A rename is on disk when its folder is; where folders cannot be opened (Windows), the system must do."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:  # some network file systems have none for folders
        pass
    finally:
        os.close(handle)


@contextmanager
def held(folder: Path, option: str = "--out") -> Iterator[None]:
    """Inside, this process alone holds the folder (made where it is not there). The system lets go when the process ends, however it
    ends: nothing is left behind that somebody would have to remove. Without such locks (Windows, some network disks) nothing is held.

    Args:
        option: with which another folder is named, for the messages.

    Raises:
        InputError: another process holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = -1 if fcntl is None else os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror or error}); give another {option}") from error
    if fcntl is None:
        yield
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise InputError(f"{folder} is in use by another process; wait for it, or give another {option}") from None
        yield
    finally:
        os.close(handle)


def is_there(path: Path, kind: Callable[[Path], bool] = Path.is_file) -> bool:
    """Whether there is a file (or, by `kind`, a folder: Path.is_dir; either: Path.exists) of that name.

    Raises:
        InputError: the system does not say: a name that is too long, a folder that may not be looked into.
    """
    try:
        return kind(path)
    except OSError as error:
        raise InputError(f"{shortened(str(path))} cannot be looked for ({error.strerror or error})") from error


def make_folder(path: str | Path) -> Path:
    """Make a folder and those above it; one that is there stays as it is.

    Raises:
        InputError: it cannot be made, or a file has its name.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {shortened(str(path))} cannot be made ({error.strerror or error}); name another one") from None
    return path


def user_cache_folder() -> Path:
    """Where a user's caches belong (XDG): never in the repository."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spyolo"


def read_limited(path: str | Path, most: int) -> bytes:
    """A file's bytes, of which no sound file of its kind has more than `most`.

    Raises:
        InputError: larger, or no ordinary file (a device or a pipe may never end).
        OSError: as opening and reading raise it: the caller knows what to say.
    """
    path = Path(path)
    with open(path, "rb", opener=_without_waiting) as file:
        about = os.fstat(file.fileno())
        if stat.S_ISDIR(about.st_mode):
            raise InputError(f"{path} is a folder, a file is wanted")
        if not stat.S_ISREG(about.st_mode):
            raise InputError(f"{path} is no ordinary file")
        if about.st_size > most:
            raise InputError(f"{path} has more than {most:,} bytes, which no sound file of its kind has")
        return file.read()


def _without_waiting(path: str, flags: int) -> int:
    """Opening a pipe would wait for somebody to write into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def shortened(value: object, most: int = 80) -> str:
    """A value for a message, on one line. Nothing longer is written out first: a few lines of YAML can stand for gigabytes."""
    writer = reprlib.Repr()
    writer.maxlevel, writer.maxlist, writer.maxdict, writer.maxtuple, writer.maxset = 3, 4, 4, 4, 4
    writer.maxstring = writer.maxother = most
    try:
        text = " ".join(writer.repr(value).split())
    except ValueError:  # Python writes out no whole number of more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= 2 * most else f"{text[: 2 * most]}..."


def one_line(error: object, most: int = 200) -> str:
    """What a library says of an error, on one line of bounded length."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[:most]}..."


def write_whole(path: str | Path, content: bytes | str) -> Path:
    """Write bytes, or text as UTF-8, as `replace_file` does."""
    return replace_file(path, lambda temporary: temporary.write_bytes(content.encode() if isinstance(content, str) else content))
