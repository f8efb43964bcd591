"""FPTT-K: a sequence of T steps cut into K parts; gradients flow inside a part, an update ends it."""

from __future__ import annotations


def split_steps(timesteps: int, parts: int) -> list[int]:
    """Steps of each of `parts` parts, as equal as they can be, earlier ones longer: split_steps(7, 3) == [3, 2, 2].

    Raises:
        ValueError: more parts than steps, or fewer than one.
    """
    return [steps_of_part(timesteps, parts, i) for i in range(max(parts, 1))]


def steps_of_part(timesteps: int, parts: int, i: int) -> int:
    """Steps of part i (0..parts-1) of `split_steps`, without a list of them all.

    Raises:
        ValueError: more parts than steps, or fewer than one.
    """
    if not 1 <= parts <= timesteps:
        raise ValueError(f"parts must be between 1 and the number of steps, {timesteps}; got {parts}")
    return timesteps // parts + (i < timesteps % parts)
