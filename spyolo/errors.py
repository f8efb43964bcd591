"""The one exception for bad input: its message is written for the person who gave the input."""

from __future__ import annotations


class InputError(ValueError):
    """What is wrong, where (file, line, field) and what to do about it. The command lines print it and exit 2, without a traceback."""
