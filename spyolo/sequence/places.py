"""Where data lie: an argument, or the environment variable SPYOLO_DATA, which names the folder that holds them all."""

from __future__ import annotations

import os
from pathlib import Path

from spyolo.errors import InputError
from spyolo.files import is_there

VARIABLE = "SPYOLO_DATA"


def data_root(given: str, name: str, needs: str) -> Path:
    """The folder (or file) of one data set: the one given, else <SPYOLO_DATA>/<name>.

    Args:
        name: the set's own folder under SPYOLO_DATA.
        needs: what must lie there, for the message.

    Raises:
        InputError: nothing given and no variable, or nothing there.
    """
    if not given and not os.environ.get(VARIABLE):
        raise InputError(f"--data is missing: {needs}; or set {VARIABLE} to the folder that holds {name}/")
    path = Path(given) if given else Path(os.environ[VARIABLE]) / name
    if not is_there(path, Path.exists):
        raise InputError(f"{path}: no such file or folder; needed: {needs}")
    return path
