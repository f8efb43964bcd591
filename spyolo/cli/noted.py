"""Warnings of the library as notes: a command tells them after its figures, and writes them down beside these."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def noted(notes: list[str]) -> Iterator[None]:
    """Inside, warnings are not shown; at the end `notes` has each once, in their order."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    notes += dict.fromkeys(str(warning.message) for warning in caught)
