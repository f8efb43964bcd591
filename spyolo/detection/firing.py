"""Firing rates of a detector's layers, and a regulariser that keeps them in a band: energy is spent by spikes."""

from __future__ import annotations

import torch
from torch import Tensor

from spyolo.detection.detector import DetectorState


def firing_rates(state: DetectorState) -> dict[str, Tensor]:
    """Share of each layer's neurons that fired in the step that left this state: name -> scalar (on the device, with its graph)."""
    return {name: cell.s.float().mean() for name, cell in state.cells.items() if cell is not None}


def rate_penalty(state: DetectorState, low: float, high: float, weights: dict[str, float] | None = None) -> Tensor:
    """Sum over layers of weight * (max(0, low - r)^2 + max(0, r - high)^2), r = a channel's firing rate, averaged over channels.

    A channel is the unit: a silent one is pulled up although its neighbours fire, a saturated one down.

    Args:
        state: state after a step, with its graph.
        low, high: the band of rates that costs nothing.
        weights: weight per layer name; 1 where absent.
    """
    total = torch.zeros((), device=next(c.s.device for c in state.cells.values() if c is not None))
    for name, cell in state.cells.items():
        if cell is not None:
            rate = cell.s.float().mean((0, 2, 3))
            penalty = (low - rate).clamp(min=0) ** 2 + (rate - high).clamp(min=0) ** 2
            total = total + (weights or {}).get(name, 1.0) * penalty.mean()
    return total
