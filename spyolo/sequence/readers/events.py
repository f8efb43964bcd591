"""Events of a dynamic vision sensor, and frames made of them on the fly."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from spyolo.errors import InputError

FRAMES_BY = ("time", "count")


class Events(NamedTuple):
    """Events in the order in which they came; arrays of one length N."""

    t: np.ndarray  # int64, microseconds, never going back
    x: np.ndarray  # int64, column
    y: np.ndarray  # int64, row
    p: np.ndarray  # int64, polarity 0 or 1

    def between(self, start: int, end: int) -> Events:
        """Those with start <= t < end."""
        a, b = np.searchsorted(self.t, [start, end])
        return Events(*(v[a:b] for v in self))


def checked(events: Events, width: int, height: int, where: str | Path) -> Events:
    """The events themselves, if they can be those of a sensor of that size.

    Raises:
        InputError: a pixel beside the sensor, a polarity that is neither 0 nor 1, or a timestamp that goes back; names the first such
            event.
    """
    t, x, y, p = events
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    if outside.any():
        i = int(outside.argmax())
        raise InputError(f"{where}: event {i} is at x {x[i]}, y {y[i]}, beside a sensor of {width} x {height}; is this another data set?")
    polar = (p == 0) | (p == 1)
    if not polar.all():
        i = int(polar.argmin())
        raise InputError(f"{where}: event {i} has the polarity {p[i]}; 0 and 1 are wanted")
    back = np.diff(t) < 0
    if back.any():
        i = int(back.argmax()) + 1
        raise InputError(f"{where}: time goes back at event {i}, from {t[i - 1]} to {t[i]} microseconds; the file is damaged")
    return events


def frame_numbers(events: Events, frames: int, by: str) -> np.ndarray:
    """The frame each of N events falls into: int64 [N] in 0..frames-1.

    Args:
        by: `time` cuts the span of the events into equal times, `count` into equal numbers of events (the last frame takes the rest, as
            in the DVS-Gesture models).

    Raises:
        ValueError: any other `by`.
    """
    count = len(events.t)
    if by == "count":
        return np.minimum(np.arange(count) // max(1, count // frames), frames - 1)
    if by != "time":
        raise ValueError(f"frames are cut by {' or '.join(FRAMES_BY)}; got {by!r}")
    if not count:
        return np.zeros(0, np.int64)
    span = int(events.t[-1] - events.t[0]) + 1
    return (events.t - events.t[0]) * frames // span


def to_frames(events: Events, frames: int, height: int, width: int, by: str = "time", shrink: int = 1) -> np.ndarray:
    """Numbers of events a pixel and polarity.

    Args:
        frames: how many, T.
        by: `time` or `count`, see `frame_numbers`.
        shrink: sums squares of so many pixels a side into one.

    Returns:
        uint16 [T, 2, height / shrink, width / shrink]; of one recording only, so memory is bounded by the longest.
    """
    h, w = -(-height // shrink), -(-width // shrink)
    place = ((frame_numbers(events, frames, by) * 2 + events.p) * h + events.y // shrink) * w + events.x // shrink
    counts = np.bincount(place, minlength=frames * 2 * h * w)
    return np.minimum(counts, 65535).astype(np.uint16).reshape(frames, 2, h, w)
