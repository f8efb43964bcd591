"""Traces of every neuron's state by every weight: real-time recurrent learning of one layer, which is what OSTL "with H" is.

    eps_t = J_t eps_{t-1} + C_t (x) pre_t    J [D n, D n] = dq'/dq + (dq'/dy + C H) dy/dq,  H the recurrent weights
    e_t   = (dy/dq) eps_t                    equal to BPTT for one recurrent layer; O(n^3) memory, O(n^3.5) work a step (O(n^4) as written)

For units whose neurons see each other through H alone; `jacobian_traces` is for any cell.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from spyolo.learning.layer import TracedLayer, add_grad, units_of
from spyolo.learning.local import Derivatives


class FullTraces(TracedLayer):
    """Traces in two places, so that J is multiplied into few columns a step instead of into all K of the weights.

    What was there at the last fold lies in `_old` as it was then, and the product of all J since says what has become of it. What was
    added since, A_t (x) pre_t of each step t, lies beside that product in `_moving`, which a step multiplies by J. Every so often both
    are folded into `_old`. Exact: only the order of multiplications is another. `_old` holds the A_t of the steps folded, in
    coordinates of the inputs shown then (eps = sum_t A_t (x) pre_t), while there are fewer of them than the K columns of the weights.

    All groups share one input pre [B, K]. Layouts: `_old` [B, D n, K, A n]; `_moving` [B, D n, D n + R A n], R the steps there is room for.
    """

    _old: Tensor
    _moving: Tensor
    _spare: Tensor
    _basis: Tensor  # the inputs that `_old` is in coordinates of, [B, K, K]
    _recent_pre: Tensor  # [B, R, K]
    _old_filtered: Tensor | None = None  # [B, n, K, A n]: sum_d shown_d eps_d, filtered, as of the last fold
    _moving_filtered: Tensor  # [B, n, D n + R A n]: what is to be added to it, in terms of `_old`, and of the steps since

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        before = self.derivatives
        y, state, d, pres = self.run(x, state)
        pre = torch.cat(pres, -1)
        self.derivatives = d
        if before is None:
            self._begin(d, pre)
        jacobian, through_y = self._jacobian(before, d)
        if self._recent**2 >= 2 * self._used:  # a fold costs used / recent a step, the steps since recent / 2: least in sum there
            self._fold()
        self._advance(jacobian, d, pre)
        if self.local.bias is not None:
            self._advance_bias(before, jacobian, through_y)
        if self.decay > 0:
            self._filter()
        return y, state

    def _begin(self, d: Derivatives, pre: Tensor) -> None:
        depth, n_lines, batch, n = d.lines.shape
        columns, rows = pre.shape[-1], depth * n
        shape = (batch, rows, columns, n_lines * n)
        like = getattr(self, "_old", None)  # kept from batch to batch
        if like is None or (like.shape, like.dtype, like.device) != (shape, pre.dtype, pre.device):
            room = room_for(columns)
            width = rows + room * n_lines * n
            self._old = d.lines.new_empty(shape)
            self._moving, self._spare = (d.lines.new_empty(batch, rows, width) for _ in range(2))
            self._basis, self._recent_pre = (d.lines.new_empty(batch, k, columns) for k in (columns, room))
            if self.decay > 0:
                self._old_filtered = d.lines.new_empty(batch, n, columns, n_lines * n)
                self._moving_filtered = d.lines.new_empty(batch, n, width)
        self._used, self._in_basis = 0, True
        self._rest()

    def _rest(self) -> None:
        """Nothing has happened since the last fold: the product of no J is one."""
        self._recent, self._faded = 0, 1.0
        rows = self._moving.shape[1]
        self._moving[:, :, :rows] = torch.eye(rows, dtype=self._moving.dtype, device=self._moving.device)
        if self.decay > 0:
            self._moving_filtered[:, :, :rows] = 0

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
        depth, n_lines, _, n = d.lines.shape
        end = self._width()
        torch.bmm(jacobian, self._moving[:, :, :end], out=self._spare[:, :, :end])
        self._moving, self._spare = self._spare, self._moving
        self._recent_pre[:, self._recent] = pre
        self._recent += 1
        added = self._moving[:, :, end : self._width()]
        added.zero_()
        own = added.unflatten(1, (depth, n)).unflatten(-1, (n_lines, n)).diagonal(dim1=2, dim2=4)  # [B, D, A, n]
        own += d.lines.permute(2, 0, 1, 3)
        if self.decay > 0:
            self._moving_filtered[:, :, end : self._width()] = 0

    def _width(self) -> int:
        """Columns of `_moving` in use."""
        return self._moving.shape[1] + self._recent * self._old.shape[-1]

    def _fold(self) -> None:
        """Put `_old` and what came since together."""
        if self._recent == 0:
            return
        if self._in_basis and self._used + self._recent > self._old.shape[2]:
            self._leave_basis()
        rows, width, end, room = self._moving.shape[1], self._old.shape[-1], self._width(), self._recent_pre.shape[1]
        for first in range(0, self._used, room):  # by blocks: the memory of a second `_old` is saved
            block = slice(first, min(first + room, self._used))
            old = self._old[:, :, block].flatten(2)
            if self._old_filtered is not None:
                filtered = self._old_filtered[:, :, block].flatten(2)
                filtered.baddbmm_(self._moving_filtered[:, :, :rows], old, beta=self._faded)
            moved = self._spare[:, :, : old.shape[-1]]
            old.copy_(torch.bmm(self._moving[:, :, :rows], old, out=moved))
        self._append(self._old, self._moving[:, :, rows:end].unflatten(-1, (-1, width)))
        if self._old_filtered is not None:
            self._append(self._old_filtered, self._moving_filtered[:, :, rows:end].unflatten(-1, (-1, width)))
        if self._in_basis:
            self._basis[:, self._used : self._used + self._recent] = self._recent_pre[:, : self._recent]
            self._used += self._recent
        self._rest()

    def _append(self, old: Tensor, recent: Tensor) -> None:
        """The steps since [B, rows, recent, A n] as further columns, or added to the weights' own columns."""
        if self._in_basis:
            old[:, :, self._used : self._used + self._recent] = recent
            return
        for b, pre in enumerate(self._recent_pre[:, : self._recent].transpose(1, 2)):  # [K, recent] of one sample
            old[b].baddbmm_(pre.expand(len(old[b]), -1, -1), recent[b])

    def _leave_basis(self) -> None:
        """From coordinates of the inputs shown to the weights' own columns."""
        change = self._basis[:, : self._used].transpose(1, 2)  # [B, K, used]
        for traces in (t for t in (self._old, self._old_filtered) if t is not None):
            for row in traces.unbind(1):  # in place, so row by row: [B, K, A n] each
                row.copy_(torch.bmm(change, row[:, : self._used]))
        self._in_basis, self._used = False, self._old.shape[2]

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
        filtered, moving = self._moving_filtered[:, :, : self._width()], self._moving[:, :, : self._width()].unflatten(1, (depth, n))
        filtered.mul_(self.decay)
        for k in range(depth):
            filtered.addcmul_(moving[:, k], shown[:, k, :, None], value=1 - self.decay)
        self._faded *= self.decay
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
        grad = self._weights_grad(signal, shown).view(self.local.lines, signal.shape[-1], -1)
        first = 0
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

    def _weights_grad(self, signal: Tensor, shown: Tensor) -> Tensor:
        """sum over the batch of signal times trace, [A n, K]."""
        batch, rows, _, width = self._old.shape
        moving = self._moving if self._old_filtered is None else self._moving_filtered
        weights = (signal[:, None] * shown).reshape(batch, -1) if self._old_filtered is None else signal
        moved = torch.bmm(weights[:, None], moving[:, :, : self._width()])[:, 0]
        grad = torch.einsum("bta,btk->ak", moved[:, rows:].unflatten(-1, (-1, width)), self._recent_pre[:, : self._recent])
        if self._used == 0:
            return grad
        old = torch.bmm(moved[:, None, :rows], self._old[:, :, : self._used].flatten(2))
        if self._old_filtered is not None:
            old.baddbmm_(signal[:, None], self._old_filtered[:, :, : self._used].flatten(2), alpha=self._faded)
        old = old.view(batch, self._used, width)
        return grad + (torch.einsum("bta,btk->ak", old, self._basis[:, : self._used]) if self._in_basis else old.sum(0).T)

    def nbytes(self, batch: int, itemsize: int) -> int:
        n, depth, lines = units_of(self.cell), self.local.depth, self.local.lines
        columns = sum(g.weight.shape[-1] + (g.bias is not None) for g in self.groups())
        filtered = self.decay > 0
        old = columns * n * lines * n * (depth + filtered)
        moving = (depth * n + room_for(columns) * lines * n) * n * (2 * depth + filtered)
        return batch * (old + moving + (columns + room_for(columns)) * columns) * itemsize


def room_for(columns: int) -> int:
    """Steps between two folds, at most, for weights of so many columns: the first r with r² >= 2 columns."""
    return math.isqrt(2 * columns - 1) + 1
