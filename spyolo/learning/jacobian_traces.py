"""Traces of any cell, its Jacobian taken by torch.func: what `full_traces` is held to, and for cells that it does not know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from spyolo.learning.layer import TracedLayer, add_grad, units_of
from spyolo.neurons.cells import Cell
from spyolo.neurons.state import leaves


class JacobianTraces(TracedLayer):
    """Any cell, by torch.func.jacrev of the whole of it: exact, and slow. eps [B, S, P], S all state entries and P all weights.

    The cell's step must be written in operations that torch.func can follow (an LTC unit is taken with fused=False).
    """

    def __init__(self, cell: Cell, local: Any, decay: float = 0.0, membrane: bool = False) -> None:
        super().__init__(cell, local, decay, membrane)
        self.names = [name for name, _ in cell.named_parameters()]

    def reset(self) -> None:
        super().reset()
        self._eps: Tensor | None = None
        self._filtered: Tensor | None = None

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        if state is None:
            state = self.cell.unit.initial_state(self.synapse(x))
        kept = [i for i, field in enumerate(state) if field is not None]
        kind, size = type(state), len(state)

        def rebuild(flat: Tensor) -> Any:  # [S] -> a state of one sample
            fields: list[Tensor | None] = [None] * size
            for i, field in zip(kept, flat.view(len(kept), 1, -1)):
                fields[i] = field
            return kind(*fields)

        def after(flat: Tensor, weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
            _, new = torch.func.functional_call(self.cell, weights, (x[None], rebuild(flat)))
            out = torch.cat([new[i].flatten() for i in kept])
            return out, out

        flat = torch.cat(list(leaves(state)), -1)  # [B, S]
        weights = {name: w.detach() for name, w in self.cell.named_parameters()}
        both = torch.func.jacrev(after, argnums=(0, 1), has_aux=True)
        with unfused(self.cell.unit):
            (jacobian, by_weight), new = torch.func.vmap(both, in_dims=(0, None, 0))(flat, weights, x)
        immediate = torch.cat([by_weight[name].reshape(len(flat), flat.shape[-1], -1) for name in self.names], -1)
        del by_weight  # else there would be four of that size in a moment, and `nbytes` says three
        self._eps = immediate if self._eps is None else torch.baddbmm(immediate, jacobian, self._eps)
        self._n = flat.shape[-1] // len(kept)
        self._at = kept.index(0 if self.membrane else self.local.transmits) * self._n
        if self.decay > 0:
            now = (1 - self.decay) * self._eps[:, self._at : self._at + self._n]
            self._filtered = now if self._filtered is None else self.decay * self._filtered + now
        self._x, self._incoming = x, state
        parts = new.unflatten(-1, (len(kept), -1)).unbind(1)
        fields: list[Tensor | None] = [None] * size
        for i, field in zip(kept, parts):
            fields[i] = field
        return fields[self.local.transmits], kind(*fields)  # type: ignore[return-value]

    def learn(self, signal: Tensor) -> None:
        assert self._eps is not None
        trace = self._eps[:, self._at : self._at + self._n] if self._filtered is None else self._filtered
        grad, first = torch.einsum("bj,bjp->p", signal, trace), 0
        for w in self.cell.parameters():
            add_grad(w, grad[first : first + w.numel()])
            first += w.numel()

    def below(self, signal: Tensor) -> Tensor:
        with torch.enable_grad():
            x = self._x.detach().requires_grad_()
            y, state = self.cell(x, self._incoming)
            return torch.autograd.grad(state[0] if self.membrane else y, x, signal)[0]

    def nbytes(self, batch: int, itemsize: int) -> int:
        weights = sum(w.numel() for w in self.cell.parameters())
        return (3 * self.local.depth + (self.decay > 0)) * batch * units_of(self.cell) * weights * itemsize


@contextmanager
def unfused(unit: Any) -> Iterator[None]:
    """Inside, an LTC unit's step is in operations that torch.func can follow."""
    if not hasattr(unit, "fused"):
        yield
        return
    before, unit.fused = unit.fused, False
    try:
        yield
    finally:
        unit.fused = before
