"""A sequence network: cells one above the other, and a readout. One call is one time step; the state goes in and comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from spyolo.neurons.cells import Cell, watched
from spyolo.neurons.precision import autocast
from spyolo.neurons.readout import Readout
from spyolo.neurons.span import can_span, span


class StackState(NamedTuple):
    """What a network remembers between two steps."""

    cells: tuple[Any, ...]  # one state a cell
    readout: Tensor | None


class Stack(nn.Module):
    """cells, bottom to top, and a readout. `network(x, state) -> (output, state)`; no state means neurons at rest.

    Args:
        cells: `Cell`s whose shapes fit; pooling or flattening belongs into the next cell's synapse.
        readout: a `Readout`, or any module `readout(r, state) -> (output, state)`.
        amp: `bf16`: matrix products of the cells in bf16 by autocast; membranes, readout and weights stay as wide as they are. `none`: not.
    """

    def __init__(self, cells: Sequence[Cell], readout: nn.Module, amp: str = "none") -> None:
        super().__init__()
        self.amp = amp
        self.cells: Any = nn.ModuleList(cells)
        self.readout: Any = readout

    def forward(self, x: Tensor, state: StackState | None = None) -> tuple[Tensor, StackState]:
        """x [B, ...] and the state before -> output [B, outputs] and the state after."""
        states, before = [], state.cells if state is not None else (None,) * len(self.cells)
        with autocast(x.device, self.amp):  # a context a step: between two steps a rule may change the weights
            for cell, s in zip(self.cells, before):
                x, s = cell(x, s)
                states.append(s)
        shown = states[-1][0] if getattr(self.readout, "reads", "output") == "membrane" else x
        if self.amp == "bf16":
            shown = shown.float()
        output, o = self.readout(shown, None if state is None else state.readout)
        return output, StackState(tuple(states), o)

    @property
    def can_span(self) -> bool:
        """Whether `span` may take the place of calls: known cells and readout, and no hook anywhere that would miss one."""
        hooked = any(watched(m) for m in self.modules())
        return not hooked and type(self.readout) is Readout and all(can_span(cell) for cell in self.cells)

    def span(self, x: Tensor, state: StackState | None = None, spikes: list[Tensor] | None = None) -> StackState:
        """The state after all steps of x [T, B, m]: the same as T calls, but for the order of sums. Only where `can_span` is true.
        The spikes of each layer over all steps [T, B, n] are added to the list `spikes`."""
        states, before = [], state.cells if state is not None else (None,) * len(self.cells)
        u = x
        with autocast(x.device, self.amp):
            for cell, s in zip(self.cells, before):
                x, u, s = span(cell, x, s)
                states.append(s)
                if spikes is not None:
                    spikes.append(x)
        shown = u if self.readout.reads == "membrane" else x.to(u.dtype)
        return StackState(tuple(states), self.readout.span(shown, None if state is None else state.readout))
