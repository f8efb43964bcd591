"""Where published weights lie, and checksums that see that they are still what was published."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from spyolo.errors import InputError

FOLDER_VARIABLE = "SPYOLO_WEIGHTS"


def folder() -> Path:
    """Where published weights are: $SPYOLO_WEIGHTS, or weights/ of the repository, or of the installed package."""
    if os.environ.get(FOLDER_VARIABLE):
        return Path(os.environ[FOLDER_VARIABLE])
    package = Path(__file__).resolve().parent
    return (package.parent if (package.parent / "pyproject.toml").is_file() else package) / "weights"


def sha256_of(path: str | Path) -> str:
    """A file's checksum, in hexadecimal digits. Raises InputError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
