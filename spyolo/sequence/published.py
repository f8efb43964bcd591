"""Published weights of sequence networks by name: weights/sequence/, where SHA256SUMS (for `sha256sum -c`) tells what each file was."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spyolo.errors import InputError
from spyolo.files import is_there, read_limited, write_whole
from spyolo.published import folder, sha256_of

SUMS = "SHA256SUMS"
MOST_BYTES = 1 << 20


def shelf() -> Path:
    """The folder of published weights of sequence networks."""
    return folder() / "sequence"


def read_sums(where: Path) -> dict[str, str]:
    """File name -> checksum, of a folder's SHA256SUMS; empty where there is none.

    Raises:
        InputError: a line that is none; names it.
    """
    path = where / SUMS
    if not is_there(path):
        return {}
    sums = {}
    for number, line in enumerate(read_limited(path, MOST_BYTES).decode(errors="replace").splitlines(), 1):
        match = re.fullmatch(r"([0-9a-f]{64})  ([^/\\]+)", line)
        if not match:
            raise InputError(f"{path}, line {number}: expected a checksum of 64 digits, two spaces and a file name")
        sums[match[2]] = match[1]
    return sums


def resolve(name: str | Path) -> Path:
    """A weights file from its path, or from its name; checked against its checksum where SHA256SUMS beside it lists it.

    Raises:
        InputError: neither a file nor a published name, or a file that is not what was published.
    """
    path, named = Path(name), Path(name).name == str(name) and not Path(name).suffix
    if named and not is_there(path):
        path = shelf() / f"{name}.safetensors"
    if not is_there(path):
        if not named:
            raise InputError(f"{path}: no such weights file")
        there = ", ".join(sorted(file.removesuffix(".safetensors") for file in read_sums(shelf()))) or "none"
        raise InputError(f"{name}: no such weights file, and no published weights of a sequence network of that name; published: {there}")
    published = read_sums(path.parent).get(path.name)
    if published and sha256_of(path) != published:
        raise InputError(f"{path}: its checksum is not the one in {SUMS}: the file was changed or is not whole; get it again")
    return path


def publish(name: str, tensors: Mapping[str, Any], metadata: Mapping[str, Any], where: Path) -> Path:
    """Put weights into a folder under a name, and their checksum into its SHA256SUMS.

    Raises:
        InputError: a name that is none, or a folder that cannot be written.
    """
    from spyolo.tensors import save_tensors

    if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name):
        raise InputError(f"a name is of letters, digits, _ and -; got {name!r}")
    path = where / f"{name}.safetensors"
    save_tensors(path, tensors, metadata)
    sums = read_sums(where) | {path.name: sha256_of(path)}
    write_whole(where / SUMS, "".join(f"{sums[file]}  {file}\n" for file in sorted(sums)))
    return path
