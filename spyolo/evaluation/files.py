"""Writing results as JSON and CSV that every reader accepts."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spyolo.files import write_whole


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
