"""Tables of Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(columns: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Its lines."""
    return ["| " + " | ".join(row) + " |" for row in (columns, ["---"] * len(columns), *body)]
