"""What numbers users and files may say, and the one line that refuses others. Imports nothing heavy: a wrong option is told at once."""

from __future__ import annotations

from spyolo.config import MOST_SIZE, MOST_TIMESTEPS
from spyolo.errors import InputError
from spyolo.files import shortened

# Of an input side, steps, and boxes or pictures: a multiple of, and the most.
SIZES, STEPS, COUNTS = (32, MOST_SIZE), (1, MOST_TIMESTEPS), (1, 1_000_000)


def whole(value: int, multiple_of: int, most: int) -> int:
    if not isinstance(value, int) or not 1 <= value <= most or value % multiple_of:
        wanted = f"a multiple of {multiple_of} up to {most}" if multiple_of > 1 else f"a whole number from 1 to {most}"
        raise ValueError(f"{wanted} is wanted, not {shortened(value)}")
    return value


def share(value: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"a number from 0 to 1 is wanted, not {shortened(value)}")
    return float(value)


def check_whole(name: str, value: int, multiple_of: int, most: int) -> None:
    """As `whole`, of an option or field of some name. Raises InputError."""
    try:
        whole(value, multiple_of, most)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None


def check_share(name: str, value: float) -> None:
    """As `share`, of an option or field of some name. Raises InputError."""
    try:
        share(value)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
