"""Writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spyolo.errors import InputError


def replace_file(path: str | Path, write: Callable[[Path], Any]) -> Path:
    """Let `write(temporary)` fill a file beside `path`, see that it is on disk, then put it in place. A crash or a full disk leaves what
    was there before. Makes the folder.

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
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}); what was there before is untouched") from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
    return path


def write_whole(path: str | Path, content: bytes | str) -> Path:
    """Write bytes, or text as UTF-8, as `replace_file` does."""
    return replace_file(path, lambda temporary: temporary.write_bytes(content.encode() if isinstance(content, str) else content))
