"""How sparse a network really ran: firing rates of layers and steps, silent and saturated channels, density of the operands.

A layer's own firing rate is not what energy depends on: a pooled spike is the OR of four, so a map that fires at 10 % may leave the pool at
30 %. `operand_density` is measured where the spikes arrive, at the inputs of the synapses.
"""

from __future__ import annotations

from typing import Any

from spyolo.evaluation.tallies import Counts, LayerCounts


def share(part: float, whole: float) -> float:
    """part / whole, 0 where there is nothing."""
    return part / whole if whole else 0.0


def firing_rate(counts: Counts, timesteps: int | None = None) -> float | None:
    """Spikes per neuron and step, over all layers, pictures and the first `timesteps` steps; None where nothing spikes."""
    total = counts.total("unit", timesteps)
    return total.spikes / total.neurons if total.neurons else None


def channel_extremes(layer: LayerCounts) -> tuple[int, int, int]:
    """(silent, saturated, all) channels of a unit, over the whole split: never fired at all; every neuron fired at every step."""
    if layer.channel_spikes is None:
        return 0, 0, 0
    spikes = layer.channel_spikes.sum(0)
    chances = layer.total().neurons // len(spikes)
    return int((spikes == 0).sum()), int((spikes == chances).sum()), len(spikes)


def layer_sparsity(layer: LayerCounts) -> dict[str, Any]:
    """What a report shows of one layer: rates by step (JSON-safe)."""
    if layer.part in ("synapse", "gate"):
        return {
            "operand_density": [share(t.nonzero, t.values) for t in layer.steps],
            "binary_operand": [share(t.binary_values, t.values) for t in layer.steps],
        }
    if layer.channel_spikes is None:
        return {}
    silent, saturated, channels = channel_extremes(layer)
    return {
        "firing_rate": [share(t.spikes, t.neurons) for t in layer.steps],
        "silent_channels": silent,
        "saturated_channels": saturated,
        "channels": channels,
    }


def sparsity_summary(counts: Counts) -> dict[str, Any]:
    """The whole network in a few numbers (JSON-safe)."""
    extremes = [channel_extremes(layer) for layer in counts.layers]
    operands = counts.total("synapse")
    return {
        "firing_rate": firing_rate(counts),
        "operand_density": share(operands.nonzero, operands.values),
        "silent_channels": sum(e[0] for e in extremes),
        "saturated_channels": sum(e[1] for e in extremes),
        "channels": sum(e[2] for e in extremes),
    }
