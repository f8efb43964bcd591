"""Writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from spyolo.errors import InputError


def write_whole(path: str | Path, content: bytes | str) -> Path:
    """Write beside the file, then put it in place: a crash or a full disk leaves what was there before. Makes the folder.

    Raises:
        InputError: the folder or the file cannot be written.
    """
    path = Path(path)
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(temporary, 0o644)  # mkstemp's files are for the owner alone
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); what was there before is untouched") from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
    return path
