"""What a network did, in plain numbers: a tally for each layer and time step, filled by the meter, read by energy and sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import zip_longest

from torch import Tensor

PARTS = ("synapse", "gate", "unit", "readout")


@dataclass(frozen=True)
class Tally:
    """Totals of one layer at one step, over all pictures."""

    rows: int = 0  # pictures that reached it
    # A synapse (convolution or linear layer), inside a unit or outside:
    dense_macs: int = 0  # the usual count: every product, positions in the padding included
    connections: int = 0  # the same without the padding: pairs of an operand value and an output
    macs: int = 0  # dense_macs of the calls whose operand was not binary
    macs_nonzero: int = 0  # connections from non-zero values in those calls
    acs: int = 0  # connections from ones in the calls whose operand was binary (0 and 1 only)
    values: int = 0  # size of the operand
    nonzero: int = 0  # of these not zero
    binary_values: int = 0  # of these in calls whose operand was binary
    # A unit:
    neurons: int = 0  # membrane updates; each is also compared with its threshold and reset
    spikes: int = 0
    gate_updates: int = 0  # time constants worked out from data: one sigmoid each
    adaptation_updates: int = 0
    activations: int = 0  # outputs of a plain activation
    # A readout over time:
    readout_updates: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Tally)})


@dataclass(frozen=True)
class LayerCounts:
    """One layer's tallies."""

    name: str  # of the module, such as backbone.conv1.synapse.conv
    part: str  # synapse | gate (a synapse inside a unit) | unit | readout
    weights: int  # parameters of a synapse, bias included; 0 for the others
    steps: tuple[Tally, ...]
    channel_spikes: Tensor | None = None  # [steps, C] int64, of a unit that spikes

    def total(self, timesteps: int | None = None) -> Tally:
        """Sum over the first `timesteps` steps; None: all."""
        return sum(self.steps[:timesteps], Tally())


@dataclass(frozen=True)
class Counts:
    """What ran, over a whole split."""

    pictures: int
    layers: tuple[LayerCounts, ...]  # in the order in which they first ran
    uncounted: tuple[str, ...] = ()  # modules that own parameters and are of a kind that is not counted

    @property
    def timesteps(self) -> int:
        return max((len(layer.steps) for layer in self.layers), default=0)

    def total(self, part: str | None = None, timesteps: int | None = None) -> Tally:
        """Sum over the layers of a part (None: all) and the first `timesteps` steps (None: all)."""
        return sum((layer.total(timesteps) for layer in self.layers if part in (None, layer.part)), Tally())

    def per_frame(self, frames: int) -> Counts:
        """The same operations shared among `frames`: for streams, where the state is carried on and a frame is no sequence of its own."""
        return replace(self, pictures=frames)

    def per_step(self) -> Counts:
        """The same operations shared among all steps, as one: of sequences so long that no single step of them is of interest."""
        rows = max((layer.total().rows for layer in self.layers), default=0)
        layers = (
            replace(layer, steps=(layer.total(),), channel_spikes=None if (s := layer.channel_spikes) is None else s.sum(0, keepdim=True))
            for layer in self.layers
        )
        return replace(self, pictures=rows, layers=tuple(layers))


def combined(parts: Sequence[Counts]) -> Counts:
    """The counts of one model that ran on several shares of a split, as if it had run on all of it."""
    layers: dict[str, LayerCounts] = {}
    for layer in (layer for part in parts for layer in part.layers):
        layers[layer.name] = _added(layers[layer.name], layer) if layer.name in layers else layer
    return Counts(sum(part.pictures for part in parts), tuple(layers.values()), parts[0].uncounted)


def _added(a: LayerCounts, b: LayerCounts) -> LayerCounts:
    steps = tuple(x + y for x, y in zip_longest(a.steps, b.steps, fillvalue=Tally()))
    spikes = a.channel_spikes
    if spikes is not None and b.channel_spikes is not None:
        spikes = spikes + b.channel_spikes
    return replace(a, steps=steps, channel_spikes=spikes)
