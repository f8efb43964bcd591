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

    A channel is the unit: a silent one is pulled up although its neighbours fire, a saturated one down. The pull up goes through the
    membrane, as if a unit more of it were a spike more: through the spike it would push a neuron at rest further down, since there
    the multi-Gaussian surrogate is negative.

    Args:
        state: state after a step, with its graph.
        low, high: the band of rates that costs nothing.
        weights: weight per layer name; 1 where absent.

    Raises:
        ValueError: no layer spikes, or `weights` names a layer that there is not.
    """
    layers = {name: cell for name, cell in state.cells.items() if cell is not None}
    unknown = set(weights or {}) - set(layers)
    if not layers or unknown:
        raise ValueError(f"no spiking layer {', '.join(sorted(unknown))}; known: {', '.join(layers) or 'none'}")
    terms = []
    for name, cell in layers.items():
        rate = cell.s.float().mean((0, 2, 3))
        membrane = cell.u.float().mean((0, 2, 3))
        pulled = rate.detach() + (membrane - membrane.detach())
        penalty = (low - pulled).clamp(min=0) ** 2 + (rate - high).clamp(min=0) ** 2
        terms.append((weights or {}).get(name, 1.0) * penalty.mean())
    return torch.stack(terms).sum()
