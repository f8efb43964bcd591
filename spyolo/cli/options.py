"""Command-line options made from the config's fields: one `--field` each, with its help line and limits."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from spyolo.config import Config
from spyolo.errors import InputError
from spyolo.settings import MOST_SEED, Settings, limits

DETECTOR = Config()
NMS_IOU = "overlap above which the worse box of a class is dropped [as the weights say]"
VOTE_IOU = "overlap from which boxes of a class vote on where the better one is; 0: they do not [as the weights say]"


class Parser(argparse.ArgumentParser):
    """Answers a bad command line with one line and the nearest option there is, instead of a page of usage; options are written whole."""

    def __init__(self, **how: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **how)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        """As argparse, but an option whose value is empty (`--resume "$RUN"` where RUN is not set) is refused: taken for not given, it
        would have another run started than the one meant. Where empty is the default, or a field of the config, it means something."""
        given = super().parse_args(args, namespace)
        for action in self._actions:
            if getattr(given, action.dest, None) == "" and action.default not in ("", argparse.SUPPRESS):
                raise InputError(f"{self.prog}: {'/'.join(action.option_strings) or action.dest} is empty; give a value or leave it out")
        return given

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments:").split() if message.startswith("unrecognized") else []
        near = [n for word in unknown for n in difflib.get_close_matches(word.partition("=")[0], self._option_string_actions, 1)]
        raise InputError(f"{self.prog}: {message}" + (f"; did you mean {', '.join(near)}?" if near else "; --help lists the options"))


def check_seed(seed: int) -> None:
    """Of tools without a config. Raises InputError for a number that a generator does not take."""
    if not 0 <= seed <= MOST_SEED:
        raise InputError(f"--seed must be {limits(0, MOST_SEED)}, got {seed}")


def check_shares(args: argparse.Namespace, names: Iterable[str]) -> None:
    """Raises InputError where one of these options, as attributes of `args`, is given but no number from 0 to 1."""
    for name in names:
        value = getattr(args, name)
        if value is not None and not 0 <= value <= 1:
            raise InputError(f"--{name.replace('_', '-')} must be between 0 and 1, got {value:g}")


def refuse_unread(args: argparse.Namespace, names: Iterable[str], default_of: Callable[[str], Any], why: str) -> None:
    """Refuse options that this way of working does not read: ignored in silence, the user takes them for obeyed.

    Args:
        args: the parsed command line.
        names: of the options, as attributes of `args` (`max_detections`).
        default_of: the default of an option by its name: `parser().get_default`. One given with its default value is let pass.
        why: ends the message "--a, --b: ..."; says what to do.

    Raises:
        InputError: names all of them that were given.
    """
    given = ", ".join(f"--{name.replace('_', '-')}" for name in names if getattr(args, name) != default_of(name))
    if given:
        raise InputError(f"{given}: {why}")


def add_config_options(parser: argparse.ArgumentParser, leave_out: tuple[str, ...] = (), defaults: Settings = DETECTOR) -> None:
    """One option per config field, grouped by section; values stay text, the config checks them."""
    groups: dict[str, Any] = {}
    for name, (section, field, _) in defaults.fields().items():
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
        spellings = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
        group.add_argument(*spellings, dest=name, metavar="V", help=text, default=argparse.SUPPRESS)


def given_options(args: argparse.Namespace, config: type[Settings] = Config) -> dict[str, Any]:
    """The config fields that were given."""
    return {k: v for k, v in vars(args).items() if k in config.fields()}


def tell_of_unread(given: Iterable[str], configs: Sequence[Settings]) -> None:
    """Note on stderr which of the fields that were given none of these runs reads: `--alpha` means nothing to BPTT."""
    for name in given:
        reasons = [config.unread(name) for config in configs]
        if all(reasons):
            print(f"--{name.replace('_', '-')} is not read: {reasons[0]}", file=sys.stderr)


def told_of_steps(asked: object, what: str = "a plain network", option: str = "--timesteps") -> str:
    """A note where a number of steps is asked for that is not taken."""
    return f"{option} {asked} is not read: {what} takes one step"
