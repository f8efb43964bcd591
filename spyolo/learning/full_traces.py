"""Traces of every neuron's state by every weight: real-time recurrent learning of one layer, which is what OSTL "with H" is.

    eps_t = J_t eps_{t-1} + C_t (x) pre_t    J [D n, D n] = dq'/dq + (dq'/dy + C H) dy/dq,  H the recurrent weights
    e_t   = (dy/dq) eps_t                    equal to BPTT for one recurrent layer; O(n^3) memory, O(n^4) work a step

`FullTraces` is for units whose neurons see each other through H alone; `JacobianTraces` for any cell, by torch.func.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spyolo.learning.layer import TracedLayer, add_grad, units_of
from spyolo.learning.local import Derivatives
from spyolo.neurons.cells import Cell
from spyolo.neurons.state import leaves


class FullTraces(TracedLayer):
    """One matrix product a step: J @ eps, batched, from one buffer into another.

    All groups share one input pre [B, K]. While fewer than K steps have been shown, eps is kept in coordinates of the inputs shown
    (eps = sum_t A_t (x) pre_t, exactly): a step then costs t/K of the full product, which is most of the work in short sequences.
    Layout [B, D n, K, A n]: the product is then one of matrices, [D n, D n] by [D n, t A n].
    """

    _eps: Tensor
    _spare: Tensor
    _basis: Tensor
    _filtered: Tensor | None = None

    def reset(self) -> None:
        super().reset()
        self._seen = 0

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        before = self.derivatives
        y, state, d, pres = self.run(x, state)
        pre = torch.cat(pres, -1)
        self.derivatives = d
        jacobian, through_y = self._jacobian(before, d)
        self._advance(jacobian, d, pre)
        if self.local.bias is not None:
            self._advance_bias(before, jacobian, through_y)
        if self.decay > 0:
            self._filter()
        self._seen += 1
        return y, state

    def _jacobian(self, before: Derivatives | None, d: Derivatives) -> tuple[Tensor, Tensor]:
        """J [B, D n, D n] and dq'/dy [B, D n, n], the recurrent synapse included."""
        depth, _, batch, n = d.state.shape
        through_y = torch.zeros(batch, depth, n, n, dtype=d.state.dtype, device=d.state.device)
        if self.cell.recurrent is not None:
            lines = list(self.groups()[1].lines)
            weight = self.cell.recurrent.weight.view(len(lines), n, n)
            for a, w in zip(lines, weight):
                through_y += d.lines[:, a].transpose(0, 1)[..., None] * w
        if d.before is not None:
            through_y.diagonal(dim1=-2, dim2=-1).add_(d.before.transpose(0, 1))
        jacobian = torch.zeros(batch, depth, n, depth, n, dtype=d.state.dtype, device=d.state.device)
        if before is not None:
            jacobian += through_y[:, :, :, None] * before.shown.transpose(0, 1)[:, None, None]
        jacobian.diagonal(dim1=2, dim2=4).add_(d.state.permute(2, 0, 1, 3))
        return jacobian.view(batch, depth * n, depth * n), through_y.view(batch, depth * n, n)

    def _advance(self, jacobian: Tensor, d: Derivatives, pre: Tensor) -> None:
        depth, n_lines, batch, n = d.lines.shape
        columns = pre.shape[-1]
        if self._seen == 0:
            shape = (batch, depth * n, columns, n_lines * n)
            if not hasattr(self, "_eps") or self._eps.shape != shape:  # kept from batch to batch
                self._eps, self._spare = (torch.empty(shape, dtype=d.lines.dtype, device=pre.device) for _ in range(2))
                self._filtered = d.lines.new_empty((batch, n, columns, n_lines * n)) if self.decay > 0 else None
                self._basis = torch.empty((batch, columns, columns), dtype=d.lines.dtype, device=pre.device)
        used = min(self._seen, columns)
        if self._seen == columns:
            self._leave_basis()
        if used:
            torch.bmm(jacobian, self._eps[:, :, :used].flatten(2), out=self._spare[:, :, :used].flatten(2))
            self._eps, self._spare = self._spare, self._eps
        slopes = d.lines.permute(2, 0, 1, 3)  # [B, D, A, n]
        if self._seen < columns:
            self._basis[:, used] = pre
            self._eps[:, :, used] = 0
            self._own(used, used + 1).add_(slopes[:, :, None])
            if self._filtered is not None:
                self._filtered[:, :, used] = 0
        else:
            self._own(0, columns).addcmul_(slopes[:, :, None], pre[:, None, :, None, None])

    def _own(self, first: int, last: int) -> Tensor:
        """The entries of eps that a current moves at once, a view [B, D, columns, A, n]."""
        n = self._eps.shape[-1] // self.local.lines
        return self._eps[:, :, first:last].unflatten(1, (-1, n)).unflatten(-1, (-1, n)).diagonal(dim1=2, dim2=5)

    def _leave_basis(self) -> None:
        """From coordinates of the inputs shown to the weights' own columns: there are now as many."""
        for b, change in enumerate(self._basis.transpose(1, 2)):  # [K, t] of one sample
            torch.bmm(change.expand(self._eps.shape[1], -1, -1), self._eps[b], out=self._spare[b])
            if self._filtered is not None:
                self._filtered[b] = torch.bmm(change.expand(self._filtered.shape[1], -1, -1), self._filtered[b])
        self._eps, self._spare = self._spare, self._eps

    def _advance_bias(self, before: Derivatives | None, jacobian: Tensor, through_y: Tensor) -> None:
        """eps of the unit's own bias [B, D n, n], which acts on y beside q."""
        if before is None:
            self._bias_eps = torch.zeros_like(through_y)
            self._bias_filtered = torch.zeros_like(through_y)[:, : through_y.shape[-1]] if self.decay > 0 else None
            return
        assert before.bias is not None
        self._bias_eps = torch.bmm(jacobian, self._bias_eps) + through_y * before.bias[:, None]

    def _shown(self) -> Tensor:
        assert self.derivatives is not None
        return self.local.membrane(self.derivatives) if self.membrane else self.derivatives.shown

    def _filter(self) -> None:
        shown = self._shown().transpose(0, 1)  # [B, D, n]
        _, depth, n = shown.shape
        used = min(self._seen + 1, self._eps.shape[2])
        assert self._filtered is not None
        filtered, eps = self._filtered[:, :, :used], self._eps[:, :, :used].unflatten(1, (depth, n))
        filtered.mul_(self.decay)
        for k in range(depth):
            filtered.addcmul_(eps[:, k], shown[:, k, :, None, None], value=1 - self.decay)
        if self.local.bias is not None:
            assert self._bias_filtered is not None
            self._bias_filtered = self.decay * self._bias_filtered + (1 - self.decay) * self._bias_trace(shown)

    def _bias_trace(self, shown: Tensor) -> Tensor:
        """e of the unit's own bias [B, n, n]."""
        assert self.derivatives is not None and self.derivatives.bias is not None
        e = (shown[..., None] * self._bias_eps.view(*shown.shape, -1)).sum(1)
        if not self.membrane:
            e.diagonal(dim1=-2, dim2=-1).add_(self.derivatives.bias)
        return e

    def learn(self, signal: Tensor) -> None:
        shown = self._shown().transpose(0, 1)  # [B, D, n]
        batch, _, n = shown.shape
        columns = self._eps.shape[2]
        used = min(self._seen, columns)
        traces = self._eps if self._filtered is None else self._filtered
        weights = signal if self._filtered is not None else (signal[:, None] * shown).reshape(batch, -1)
        moved = torch.bmm(weights[:, None], traces[:, :, :used].flatten(2)).view(batch, used, -1)  # [B, used, A n]
        in_basis = self._seen <= columns  # still in coordinates of the inputs shown
        grad = torch.einsum("bta,btk->ak", moved, self._basis[:, :used]) if in_basis else moved.sum(0).T
        first, grad = 0, grad.view(self.local.lines, n, -1)
        for group in self.groups():
            width = (group.weight.shape[-1]) + (group.bias is not None)
            own = grad[list(group.lines), :, first : first + width]
            first += width
            if group.bias is not None:
                add_grad(group.bias, own[..., -1])
                own = own[..., :-1]
            add_grad(group.weight, own)
        if self.local.bias is not None:
            trace = self._bias_trace(shown) if self._bias_filtered is None else self._bias_filtered
            add_grad(self.local.bias, torch.einsum("bj,bji->i", signal, trace))

    def nbytes(self, batch: int, itemsize: int) -> int:
        n = units_of(self.cell)
        columns = sum(g.weight.shape[-1] + (g.bias is not None) for g in self.groups())
        depth = self.local.depth
        return batch * columns * n * self.local.lines * n * (2 * depth + (self.decay > 0)) * itemsize


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
        fused, self.cell.unit.fused = getattr(self.cell.unit, "fused", None), False

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
        (jacobian, by_weight), new = torch.func.vmap(both, in_dims=(0, None, 0))(flat, weights, x)
        self.cell.unit.fused = fused
        immediate = torch.cat([by_weight[name].flatten(2) for name in self.names], -1)
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
