"""Published weights by name: a manifest beside the files says what each is, and a checksum sees that it is still that.

Detectors lie in `folder()`, sequence networks in `spyolo.sequence.published.shelf()`; every place that takes a weights file takes a name of
its kind too, and checks a file that a manifest beside it lists.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from spyolo.errors import InputError
from spyolo.files import held, is_there, one_line, read_limited, shortened, write_whole

FOLDER_VARIABLE = "SPYOLO_WEIGHTS"
MANIFEST = "manifest.json"
MOST_BYTES = 64 << 20


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


@dataclass(frozen=True)
class Entry:
    """One published file, as the manifest describes it."""

    name: str
    file: str  # beside the manifest
    sha256: str
    config: dict[str, Any]  # detector or neurons, sizes, timesteps, parameters ...
    classes: tuple[str, ...]  # of a detector
    training: dict[str, Any]  # data, rule, pieces of training ...
    protocol: dict[str, Any]  # what the metrics depend on
    metrics: dict[str, Any]
    firing_rate: float | None = None
    energy: dict[str, Any] = field(default_factory=dict)


def read_manifest(where: str | Path | None = None) -> dict[str, Entry]:
    """Name -> entry, of the manifest in a folder (default: `folder()`); empty where there is none.

    Raises:
        InputError: not readable, not a manifest, a field missing or malformed, a name twice; says which.
    """
    path = Path(where or folder()) / MANIFEST
    if not is_there(path):
        return {}
    try:
        rows = json.loads(read_limited(path, MOST_BYTES))["models"]
        entries = [entry_from(row, f"{path}: model {i + 1}") for i, row in enumerate(rows)]
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path}: not a manifest of weights ({type(error).__name__}: {one_line(error)})") from error
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        raise InputError(f"{path}: the name {next(n for n in names if names.count(n) > 1)!r} is there twice")
    return {entry.name: entry for entry in entries}


def entry_from(row: Any, where: str) -> Entry:
    """A row of the manifest. Raises InputError naming the field."""
    kinds: Mapping[str, type | tuple[type, ...]] = {
        "name": str, "file": str, "sha256": str, "config": dict, "classes": list, "training": dict, "protocol": dict, "metrics": dict,
        "firing_rate": (int, float, type(None)), "energy": dict,
    }  # fmt: skip
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected fields and their values, got {type(row).__name__}")
    for name, kind in kinds.items():
        if not isinstance(row.get(name), kind):
            raise InputError(f"{where}: field {name!r} is missing or malformed")
    if re.search(r"[/\\\0\n]", row["file"]) or row["file"] in ("", ".", "..") or len(row["file"]) > 200:
        raise InputError(f"{where}: file must be a name in the manifest's folder, got {shortened(row['file'])}")
    if not all(isinstance(name, str) for name in row["classes"]):
        raise InputError(f"{where}: classes must be names")
    known = {f.name for f in fields(Entry)}
    return Entry(**{k: v for k, v in row.items() if k in known} | {"classes": tuple(row["classes"])})


def write_manifest(entries: Mapping[str, Entry], where: str | Path) -> Path:
    """The manifest of a folder, whole or not at all."""
    rows = [asdict(entries[name]) for name in sorted(entries)]
    return write_whole(Path(where) / MANIFEST, json.dumps({"format": 1, "models": rows}, indent=1, ensure_ascii=False) + "\n")


def unplaced(path: Path) -> Path:
    """Where a file to be published waits until the manifest lists it. It stays there only where publishing was cut off in between."""
    return path.with_name(f"{path.name}.new")


def resolve(name: str | Path, where: Path | None = None) -> Path:
    """A weights file from its path, or from a name in the manifest; checked against its checksum where a manifest lists it.

    Args:
        where: folder of the names (default: `folder()`).

    Raises:
        InputError: neither a file nor a known name, a file that cannot be read, or one that is not what was published.
    """
    path, where = Path(name), where or folder()
    if is_there(path):
        listed = {entry.file: entry for entry in read_manifest(path.parent).values()} if is_there(path.parent / MANIFEST) else {}
        if path.name in listed:
            check(path, listed[path.name])
        return path
    if path.name != str(name) or path.suffix:  # a path, not a name
        raise InputError(f"{path}: no such weights file")
    entries = read_manifest(where)
    if str(name) not in entries:
        near = difflib.get_close_matches(str(name), entries, 1, 0.5)
        known = f"published are {', '.join(sorted(entries))}" if entries else f"{where} holds no published weights"
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"{name}: no such weights file, and no published weights of that name; {hint}{known}")
    entry = entries[str(name)]
    path = where / entry.file
    if not is_there(path):
        raise InputError(f"{name}: its file {path} is missing; {how_to_mend(path, entry) or 'get it again from where spyolo came from'}")
    check(path, entry)
    return path


def check(path: Path, entry: Entry) -> None:
    """Raises InputError where the file is not the one that was published, or cannot be read."""
    found = sha256_of(path)
    if found != entry.sha256:
        raise InputError(
            f"{path}: its checksum is not that of {entry.name} in {MANIFEST} (sha256 {found[:12]}..., published {entry.sha256[:12]}...): "
            f"{how_to_mend(path, entry) or 'the file was changed or is not whole; get it again'}"
        )


def how_to_mend(path: Path, entry: Entry) -> str:
    """What to do where the published file lies beside the place it belongs in; empty where it does not."""
    new = unplaced(path)
    return f"publishing it was cut off: rename {new} to {path.name}" if is_there(new) and sha256_of(new) == entry.sha256 else ""


def place(candidate: Path, entry: Entry, where: Path, rival: Entry | None) -> Path:
    """File and manifest into a folder (made where it is not there), both or neither; returns the file's path there.

    Both are on disk before the old file is let go: a full disk costs nothing, and a kill leaves a renaming to do, which `resolve` names.

    Args:
        rival: what is published under the name so far as far as the caller knows, who judged by it.

    Raises:
        InputError: a folder that cannot be written to, or in which another process publishes or has published under this name meanwhile,
            or a manifest that is none.
    """
    with held(where, "--to"):
        entries, path = read_manifest(where), where / entry.file
        if entries.get(entry.name) != rival:
            raise InputError(f"{entry.name} was published by another process meanwhile; nothing was replaced: start again")
        new = write_whole(unplaced(path), candidate.read_bytes())
        try:
            write_manifest(entries | {entry.name: entry}, where)
        except (OSError, InputError):
            new.unlink(missing_ok=True)
            raise
        os.replace(new, path)
    return path
