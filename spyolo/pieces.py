"""The log of pieces: weights remember the runs that made them, so that training can go on from a file, in pieces, for years.

A piece is one run: what it started from, how long it trained, what it reached. A warm start copies the log of the file it starts from and
adds its own piece; `spyolo publish` puts the log into the manifest.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

from spyolo.checkpoint import load_tensors
from spyolo.config import FIELDS, Config

Piece = dict[str, Any]
FROM_CONFIG = (  # what it takes to do a piece again, beside its file and its pictures; epochs and amp are as they turned out
    *(name for name, (section, _, _) in FIELDS.items() if section in ("learning", "loss") and name not in ("epochs", "amp")),
    "detector", "freeze_norms", "size", "augment", "scale", "mosaic", "colour", "plain_epochs", "limit", "weights_of", "recalibrate",
    "seed",
)  # fmt: skip


def pieces_of(weights: str) -> list[Piece]:
    """The log in a weights file; a file without one, or with one that is not understood, counts as one unknown piece.

    Raises:
        InputError: no such file or published name.
    """
    metadata = load_tensors(weights)[1]
    try:
        return pieces_in(json.loads(metadata["notes"]), str(json.loads(metadata["spec"])["name"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        return [{"detector": "unknown", "from": "unknown"}]


def pieces_in(notes: Mapping[str, Any], detector: str) -> list[Piece]:
    """The same of a file that is read already, by its notes and its detector's name."""
    pieces = notes.get("pieces")
    whole = isinstance(pieces, list) and all(isinstance(p, dict) and {"detector", "from"} <= p.keys() for p in pieces)
    return pieces if whole and pieces else [{"detector": detector, "from": "unknown"}]


def this_piece(config: Config, before: list[Piece], *, epochs: float, seconds: float, device: str, amp: str, pictures: int) -> Piece:
    """What the present run has done so far."""
    start = "scratch" if not before else str(before[-1]["detector"])
    done = {"epochs": round(epochs, 2), "minutes": round(seconds / 60, 1), "device": device, "amp": amp, "pictures": pictures}
    return {"from": start} | {name: getattr(config, name) for name in FROM_CONFIG if not config.unread(name)} | done


def warn_of_repeats(config: Config, pieces: list[Piece]) -> None:
    """Warn where this run will show the same crops in the same order as some of `pieces` did.

    Order and augmentation are functions of seed, epoch and picture, and a network knows them again after one epoch (docs/recipe.md).
    """
    same = {name: getattr(config, name) for name in ("seed", "size", "augment")}
    again = [str(i) for i, piece in enumerate(pieces, 1) if same.items() <= piece.items()]
    if again:
        named = f"piece{'s' * (len(again) > 1)} {', '.join(again)} of {config.init}"
        why = f"{named} had seed {config.seed} too: the same crops in the same order; another --seed brings new ones"
        warnings.warn(why, stacklevel=3)


def origin(pieces: list[Piece]) -> str:
    """`scratch`, or `initialised from` another detector (the twin) whose weights came first, or `unknown`: a log that does not say."""
    if not pieces or any("detector" not in piece or piece.get("from", "unknown") == "unknown" for piece in pieces):
        return "unknown"
    detectors = {str(piece["detector"]) for piece in pieces}
    return "scratch" if len(detectors) == 1 else f"initialised from {pieces[0]['detector']}"
