"""Writing results: whole or not at all, and as JSON that every reader accepts."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spyolo.errors import InputError


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write beside the file, then put it in place: a crash or a full disk leaves what was there before.

    Raises:
        InputError: the folder or the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); what was there before is untouched") from error
    finally:
        if temporary.exists():
            temporary.unlink()


def json_safe(tree: Any) -> Any:
    """The same tree of plain Python values; NaN and infinity, which JSON has no word for, become None."""
    if isinstance(tree, Mapping):
        return {str(key): json_safe(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [json_safe(value) for value in tree]
    if isinstance(tree, np.ndarray | np.generic):
        return json_safe(tree.tolist())
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else None
    return tree


def write_json(path: str | Path, tree: Any) -> None:
    """`tree` as indented JSON."""
    write_whole(path, json.dumps(json_safe(tree), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line a row, the columns of the first row; None is an empty field."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(json_safe(list(rows)))
    write_whole(path, text.getvalue())
