"""Firing rates of a detector's layers, and a regulariser that keeps them in a band: energy is spent by spikes."""

from __future__ import annotations

import torch
from torch import Tensor

from spyolo.detection.detector import DetectorState


def firing_rates(state: DetectorState) -> dict[str, Tensor]:
    """Share of each layer's neurons that fired in the step that left this state: name -> scalar (on the device, with its graph)."""
    return {name: cell.s.float().mean() for name, cell in state.cells.items() if cell is not None}


def rate_penalty(state: DetectorState, low: float, high: float) -> Tensor:
    """Sum over layers of max(0, low - r)^2 + max(0, r - high)^2, r = a channel's firing rate, averaged over channels.

    A channel is the unit: a silent one is pulled up although its neighbours fire, a saturated one down. The pull up goes through the
    membrane, as if a unit more of it were a spike more: through the spike it would push a neuron at rest further down, since there
    the multi-Gaussian surrogate is negative.

    Args:
        state: state after a step, with its graph.
        low, high: the band of rates that costs nothing.

    Raises:
        ValueError: no layer spikes.
    """
    layers = [cell for cell in state.cells.values() if cell is not None]
    if not layers:
        raise ValueError("no spiking layer")
    terms = []
    for cell in layers:
        rate = cell.s.float().mean((0, 2, 3))
        membrane = cell.u.float().mean((0, 2, 3))
        pulled = rate.detach() + (membrane - membrane.detach())
        penalty = (low - pulled).clamp(min=0) ** 2 + (rate - high).clamp(min=0) ** 2
        terms.append(penalty.mean())
    return torch.stack(terms).sum()
