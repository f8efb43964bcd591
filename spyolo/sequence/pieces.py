"""The log of pieces: weights remember the runs that made them. A warm start takes over the log of the file it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spyolo.sequence.config import INITS, SequenceConfig

Piece = dict[str, Any]
FROM_CONFIG = (
    *(name for name, (section, _, _) in SequenceConfig.fields().items() if section == "learning" and name != "epochs"),
    "timesteps", "limit", "weights_of", "seed", "judge",
)  # fmt: skip


def pieces_in(notes: Mapping[str, Any]) -> list[Piece]:
    """The log in a weights file's notes; one without, or with one that is not understood, counts as one piece of which nothing is known."""
    found = notes.get("pieces")
    whole = isinstance(found, list) and all(isinstance(piece, dict) and "from" in piece for piece in found)
    return found if whole and found else [{"from": "unknown"}]


def this_piece(config: SequenceConfig, *, epochs: float, updates: int, seconds: float, device: str) -> Piece:
    """What a run has done so far."""
    start = "scratch" if config.init in INITS else "the piece before"
    done = {"epochs": round(epochs, 2), "updates": updates, "minutes": round(seconds / 60, 1), "device": device}
    return {"from": start} | {name: getattr(config, name) for name in FROM_CONFIG} | done
