"""Named tensors and JSON metadata as safetensors files, written whole or not at all. Nothing is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spyolo.errors import InputError
from spyolo.files import is_there, one_line, replace_file


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], keep: Path | None = None) -> None:
    """Tensors and JSON metadata as one safetensors file, atomically. `keep`: the name under which the file before it stays."""
    ready = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    replace_file(path, lambda temporary: _save(ready, temporary, text), keep)


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:  # a full disk, in the library's words
        raise OSError(str(error)) from error


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        InputError: no such file, or not a whole safetensors file.
    """
    path = Path(path)
    if not is_there(path):
        raise InputError(f"{path}: no such weights file")
    try:
        with safe_open(path, framework="pt") as f:
            return {k: f.get_tensor(k) for k in f.keys()}, f.metadata() or {}  # noqa: SIM118 (safe_open is no dict)
    except Exception as error:  # a damaged header makes the library raise its own errors, torch's, and those of unknown types
        raise InputError(f"{path}: not a whole safetensors file ({one_line(error)}); only safetensors are read") from error


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def is_checkpoint(tensors: Mapping[str, Tensor]) -> bool:
    """Whether they are a training checkpoint's, which names the model's own `model.<tensor>` (spyolo/resuming.py)."""
    return any(name.startswith("model.") for name in tensors)
