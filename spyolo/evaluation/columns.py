"""Tables of text for terminals."""

from __future__ import annotations

from collections.abc import Sequence


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells, the head first, each column as wide as its widest cell and set to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """A dash where there is no figure."""
    return "-" if value is None else f"{value:.{digits}f}"
