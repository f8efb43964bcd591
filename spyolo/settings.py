"""Configs as frozen dataclasses of sections: checked, printable, read from YAML or from a command line. What a run's config is made of.

Field names are unique over the sections, so `--lr 0.01` needs no section.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml

from spyolo.errors import InputError
from spyolo.files import one_line, read_limited, shortened

MOST_BYTES = 1 << 17  # of a config file
MOST_SEED = 2**32 - 1  # times EpochOrder's factor it still fits a generator
Field = tuple[str, "dataclasses.Field[Any]", Any]  # its section, the dataclass field, its type
S = TypeVar("S", bound="Settings")


def option(
    default: Any, text: str, *, choices: tuple[str, ...] = (), low: float | None = None, high: float | None = None,
    only: tuple[str, tuple[str, ...]] | None = None,
) -> Any:  # fmt: skip
    """A field with its help line and its limits (inclusive).

    `only`: another field, and its values with which this one is read at all.
    """
    return field(default=default, metadata={"help": text, "choices": choices, "low": low, "high": high, "only": only})


class Settings:
    """Base of a config: a frozen dataclass whose fields are sections, each a frozen dataclass of `option`s."""

    @classmethod
    def fields(cls) -> dict[str, Field]:
        """name -> (section, field, type) over all sections."""
        return _fields(cls)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        """`config.lr` for `config.learning.lr`: names are unique."""
        if name.startswith("__"):  # copying and unpickling ask before there are sections
            raise AttributeError(name)
        section = self.fields().get(name)
        if section is None:
            raise AttributeError(name)
        return getattr(getattr(self, section[0]), name)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    def to_yaml(self) -> str:
        return yaml.safe_dump(plain(self.to_dict()), sort_keys=False)

    def updated(self, values: Mapping[str, Any], where: str = "command line") -> Self:
        """A copy with fields changed; values may be strings.

        Raises:
            InputError: an unknown field or a value that does not fit, naming `where` and the field.
        """
        known = self.fields()
        sections: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; fields are {', '.join(sorted(known))}"
                raise InputError(f"{where}: unknown field {shortened(name)}{hint}")
            section, f, kind = known[name]
            sections.setdefault(section, {})[name] = checked(value, f, kind, where)
        new = {s: dataclasses.replace(getattr(self, s), **v) for s, v in sections.items()}
        return dataclasses.replace(self, **new).consistent(where)  # type: ignore[type-var]

    def consistent(self, where: str) -> Self:
        """Checks that need more than one field."""
        return self

    def unread(self, name: str) -> str:
        """Why nothing is made of a field here, empty where it is read."""
        only = self.fields()[name][1].metadata["only"]
        if only is None or getattr(self, only[0]) in only[1]:
            return ""
        return f"it goes with {only[0]} {' or '.join(only[1])}, not with {getattr(self, only[0])}"


@functools.cache
def _fields(config: type[Settings]) -> dict[str, Field]:
    found: dict[str, Field] = {}
    for section in dataclasses.fields(config):  # type: ignore[arg-type]
        cls = typing.get_type_hints(config)[section.name]
        hints = typing.get_type_hints(cls)
        for f in dataclasses.fields(cls):
            assert f.name not in found, f.name
            found[f.name] = (section.name, f, hints[f.name])
    return found


def plain(tree: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(tree, dict):
        return {k: plain(v) for k, v in tree.items()}
    return [plain(v) for v in tree] if isinstance(tree, tuple | list) else tree


def checked(value: Any, f: dataclasses.Field[Any], kind: Any, where: str) -> Any:
    """`value` as the field's type, inside its limits."""
    try:
        value = converted(value, kind)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: {f.name} must be {type_name(kind)}, got {shortened(value)}") from error
    choices, low, high = f.metadata["choices"], f.metadata["low"], f.metadata["high"]
    if choices and value is not None and value not in choices:
        raise InputError(f"{where}: {f.name} must be one of {', '.join(choices)}; got {shortened(value)}")
    for number in value if isinstance(value, tuple) else (value,):
        if number is not None and ((low is not None and number < low) or (high is not None and number > high)):
            raise InputError(f"{where}: {f.name} must be {limits(low, high)}, got {shortened(number)}")
    return value


def limits(low: float | None, high: float | None) -> str:
    least, most = (f"{n:g}" if isinstance(n, float) else str(n) for n in (low, high))
    return f"at least {least}" if high is None else f"at most {most}" if low is None else f"between {least} and {most}"


def type_name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if isinstance(kind, types.UnionType):
        return type_name(typing.get_args(kind)[0]) + " or none"
    return "a list" if typing.get_origin(kind) is tuple else names[kind]


def converted(value: Any, kind: Any) -> Any:
    if isinstance(kind, types.UnionType):
        empty = value is None or (isinstance(value, str) and value.lower() in ("none", "null", ""))
        return None if empty else converted(value, typing.get_args(kind)[0])
    if typing.get_origin(kind) is tuple:
        items = [v.strip() for v in value.split(",")] if isinstance(value, str) else value
        if isinstance(items, Mapping | bytes):
            raise TypeError("a list is wanted")
        return tuple(converted(v, typing.get_args(kind)[0]) for v in items)
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        word = str(value).lower() if isinstance(value, bool | int | str) else ""
        return words[word] if word in words else int("x")
    if kind is str and not isinstance(value, str):
        raise TypeError("text is wanted")
    if isinstance(value, bool) or not isinstance(value, int | float | str) or (isinstance(value, float) and kind is int and value % 1):
        raise TypeError("a number is wanted")
    result = kind(value)
    if kind is float and not math.isfinite(result):
        raise ValueError("a finite number is wanted")
    return result


def load_settings(path: str | Path, base: S, presets: Path) -> S:
    """A config from a YAML file: sections of fields, or fields alone. What it does not name stays as in `base`.

    Args:
        presets: folder of the presets, named where there is no such file.

    Raises:
        InputError: no such file, no YAML, an unknown field or a bad value; names the file and the field.
    """
    path = Path(path)
    try:
        tree = yaml.safe_load(read_limited(path, MOST_BYTES).decode()) or {}
    except FileNotFoundError:
        raise InputError(f"{path}: no such config file; presets are {', '.join(names_in(presets))}") from None
    except InputError:
        raise
    except Exception as error:  # besides its own errors, the library lets through what int(), date() and deep nesting raise
        raise InputError(f"{path}: not readable as YAML: {one_line(error)}") from error
    return base.updated(flattened(tree, base, str(path)), str(path))


def flattened(tree: Any, base: Settings, where: str) -> dict[str, Any]:
    """Sections of fields -> fields."""
    if not isinstance(tree, dict):
        raise InputError(f"{where}: expected fields and their values, got {type(tree).__name__}")
    flat: dict[str, Any] = {}
    sections = {f.name for f in dataclasses.fields(base)}  # type: ignore[arg-type]
    for name, value in tree.items():
        if name not in sections:
            flat[str(name)] = value
        elif isinstance(value, dict):
            flat.update({str(k): v for k, v in value.items()})
        elif value is not None:  # a section whose fields are all commented out is None
            raise InputError(f"{where}: {name} is a section: it holds fields and their values, not {shortened(value)}")
    return flat


def names_in(presets: Path) -> list[str]:
    return sorted(p.stem for p in presets.glob("*.yaml"))
