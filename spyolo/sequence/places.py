"""Where data lie: an argument, or the environment variable SPYOLO_DATA, which names the folder that holds them all."""

from __future__ import annotations

import os
from pathlib import Path

from spyolo.errors import InputError
from spyolo.files import is_there

VARIABLE = "SPYOLO_DATA"


def place_of(given: str, name: str) -> Path | None:
    """The folder given, else <SPYOLO_DATA>/<name>; None where neither is told. Nothing need lie there yet."""
    under = os.environ.get(VARIABLE)
    return Path(given) if given else Path(under) / name if under else None


def data_root(given: str, name: str, needs: str) -> Path:
    """The folder (or file) of one data set: the one given, else <SPYOLO_DATA>/<name>.

    Args:
        name: the set's own folder under SPYOLO_DATA.
        needs: what must lie there, for the message.

    Raises:
        InputError: nothing given and no variable, or nothing there.
    """
    path = place_of(given, name)
    if path is None:
        raise InputError(f"--data is missing: {needs}; or set {VARIABLE} to the folder that holds {name}/")
    if not is_there(path, Path.exists):
        raise InputError(f"{path}: no such file or folder; needed: {needs}")
    return path
