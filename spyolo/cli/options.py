"""Command-line options made from the config's fields: one `--field` each, with its help line and limits."""

from __future__ import annotations

import argparse
from typing import Any

from spyolo.config import FIELDS, Config, limits


def add_config_options(parser: argparse.ArgumentParser, leave_out: tuple[str, ...] = ()) -> None:
    """One option per config field, grouped by section; values stay text, the config checks them."""
    groups: dict[str, Any] = {}
    defaults = Config()
    for name, (section, field, _) in FIELDS.items():
        if name in leave_out:
            continue
        group = groups.setdefault(section, parser.add_argument_group(f"{section} (any field of the config)"))
        meta = field.metadata
        bounds = f" {{{', '.join(meta['choices'])}}}" if meta["choices"] else ""
        if meta["low"] is not None and meta["high"] is not None:
            bounds = f" ({limits(meta['low'], meta['high'])})"
        shown = getattr(defaults, name)
        default = "" if shown in (None, "") else f" [{shown}]"
        text = f"{meta['help']}{bounds}{default}".replace("%", "%%")
        group.add_argument(f"--{name.replace('_', '-')}", f"--{name}", dest=name, metavar="V", help=text, default=argparse.SUPPRESS)


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """The config fields that were given."""
    return {k: v for k, v in vars(args).items() if k in FIELDS}
