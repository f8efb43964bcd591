"""Recordings of a square that moves to the right over a Gen1 sensor, with its box every 200 ms: written as the data set's own files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spyolo.data.events_boxes import write_boxes
from spyolo.data.events_dat import EVENT, write_dat

SPEED = 40e-6  # pixels a microsecond
DURATION = 600_000


def moving_square(number: int, time: int, side: int = 60) -> np.ndarray:
    """Its box [1, 4] in recording `number` at a time."""
    x, y = 20 + 15 * number + int(SPEED * time), 40 + 30 * number
    return np.array([[x, y, x + side, y + side]], np.float32)


def square_events(number: int, rng: np.random.Generator) -> np.ndarray:
    """On events along its leading edge, off events along the trailing one."""
    times = np.sort(rng.integers(DURATION + 1, size=6000))
    events = np.zeros(len(times), EVENT)
    for e, time in zip(events, times):
        x1, y1, x2, y2 = moving_square(number, time)[0].astype(int)
        on = rng.random() < 0.5
        e["t"], e["p"], e["y"], e["x"] = time, on, rng.integers(y1, y2), min(303, x2 - 1 if on else x1)
    return events


def make_recordings(root: Path, counts: dict[str, int] | None = None) -> Path:
    """ROOT/train, ROOT/val with some recordings each; labels alternate between the two classes of Gen1."""
    rng = np.random.default_rng(0)
    for split, count in (counts or {"train": 3, "val": 2}).items():
        folder = root / split
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write_dat(folder / f"{split}{number}_td.dat", square_events(number, rng))
            times = np.arange(200_000, DURATION + 1, 200_000)
            boxes = np.concatenate([moving_square(number, int(t)) for t in times])
            write_boxes(folder / f"{split}{number}_bbox.npy", times, boxes, np.full(len(times), number % 2))
    return root
