"""Eligibility traces that stay within each neuron: one a synapse and carried field, O(n^2) memory and work a step.

    eps_t = J_t eps_{t-1} + C_t pre_t        J = dq'/dq + dq'/dy dy/dq (own),  C = dq'/dc
    e_t   = (dy/dq) eps_t                    dE/dw = sum_t L_t e_t

Exact for feed-forward layers of such neurons (OSTL); without the recurrent synapse's part of J for recurrent ones (OSTL without H), and
without the reset's as well it is e-prop.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spyolo.learning.layer import TracedLayer, add_grad


class OwnTraces(TracedLayer):
    """See the module. Traces are laid out [n, B, D, A K], so that a gradient is one batched product."""

    def reset(self) -> None:
        super().reset()
        self._eps: list[Tensor] = []
        self._filtered: list[Tensor] = []
        self._bias_eps: Tensor | None = None
        self._bias_filtered: Tensor | None = None

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        before = self.derivatives
        y, state, d, pres = self.run(x, state)
        jacobian = d.state
        if d.before is not None and before is not None:
            jacobian = jacobian + d.before[:, None] * before.shown[None]
        self.derivatives = d
        self._advance(jacobian.permute(3, 2, 0, 1), pres)
        if self.local.bias is not None:
            self._advance_bias(before, jacobian)
        if self.decay > 0:
            self._filter()
        return y, state

    def _advance(self, jacobian: Tensor, pres: list[Tensor]) -> None:
        """jacobian [n, B, D, D]."""
        assert self.derivatives is not None
        n, batch, depth, _ = jacobian.shape
        groups = self.groups()
        if not self._eps:
            self._eps = [pre.new_zeros(n, batch, depth, len(g.lines) * pre.shape[-1]) for g, pre in zip(groups, pres)]
        for i, (group, pre) in enumerate(zip(groups, pres)):
            eps = self._eps[i]
            if depth == 1:
                eps.mul_(jacobian)
            else:
                eps.copy_(torch.bmm(jacobian.reshape(-1, depth, depth), eps.view(n * batch, depth, -1)).view_as(eps))
            slopes = self.derivatives.lines[:, list(group.lines)].permute(3, 2, 0, 1)  # [n, B, D, A]
            eps.view(*slopes.shape, -1).addcmul_(slopes[..., None], pre[None, :, None, None])

    def _advance_bias(self, before: Any, jacobian: Tensor) -> None:
        """SNU: the bias acts on y beside s, and through y on the next s. [D, B, n]"""
        d = self.derivatives
        assert d is not None and d.before is not None
        eps = torch.zeros_like(d.shown) if self._bias_eps is None else (jacobian * self._bias_eps[None]).sum(1)
        self._bias_eps = eps if before is None else eps + d.before * before.bias

    def _shown(self) -> Tensor:
        """d(what the signal is for)/dq', [D, B, n]."""
        assert self.derivatives is not None
        return self.local.membrane(self.derivatives) if self.membrane else self.derivatives.shown

    def _filter(self) -> None:
        shown = self._shown().permute(2, 1, 0)  # [n, B, D]
        if not self._filtered:
            self._filtered = [torch.zeros_like(eps[:, :, 0]) for eps in self._eps]
        for filtered, eps in zip(self._filtered, self._eps):
            filtered.mul_(self.decay)
            for k in range(eps.shape[2]):
                filtered.addcmul_(shown[:, :, k, None], eps[:, :, k], value=1 - self.decay)
        if self.local.bias is not None:
            now = (1 - self.decay) * self._bias_trace()
            self._bias_filtered = now if self._bias_filtered is None else self.decay * self._bias_filtered + now

    def _bias_trace(self) -> Tensor:
        assert self._bias_eps is not None and self.derivatives is not None
        e = (self._shown() * self._bias_eps).sum(0)
        return e if self.membrane or self.derivatives.bias is None else e + self.derivatives.bias

    def learn(self, signal: Tensor) -> None:
        n, batch = signal.shape[1], signal.shape[0]
        if self.decay > 0:
            weights, traces = signal.T.reshape(n, 1, batch), self._filtered
        else:
            weights, traces = (signal * self._shown()).permute(2, 1, 0).reshape(n, 1, -1), self._eps
        for group, trace in zip(self.groups(), traces):
            grad = torch.bmm(weights, trace.view(n, weights.shape[-1], -1)).view(n, len(group.lines), -1).transpose(0, 1)  # [A, n, K]
            if group.bias is not None:
                add_grad(group.bias, grad[..., -1])
                grad = grad[..., :-1]
            add_grad(group.weight, grad)
        if self.local.bias is not None:
            trace_b = self._bias_filtered if self.decay > 0 else self._bias_trace()
            assert trace_b is not None
            add_grad(self.local.bias, (signal * trace_b).sum(0))

    def nbytes(self, batch: int, itemsize: int) -> int:
        columns = sum(g.weight.numel() + (0 if g.bias is None else g.bias.numel()) for g in self.groups())
        return batch * columns * (self.own_fields + (self.decay > 0)) * itemsize

    @property
    def own_fields(self) -> int:
        """Carried fields with a trace of their own for each synapse."""
        return self.local.depth


class LIFTraces(OwnTraces):
    """LIF and adaptive LIF without the reset's gradient: every neuron filters a synapse's input alike, so that part is kept once.

        eps_v = alpha eps_v + pre [B, K]         eps_a = (rho - beta psi_{t-1}) eps_a + psi_{t-1} eps_v,{t-1} [n, B, K]
        e = psi (eps_v - beta eps_a)             LIF has no eps_a: O(n) memory, unless a leaky readout filters e.
    """

    def reset(self) -> None:
        super().reset()
        self._eps_v: list[Tensor] = []

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        before = self.derivatives
        y, state, d, pres = self.run(x, state)
        self.derivatives = d
        if self.local.depth == 2:
            self._advance_adaptation(None if before is None else before.shown[0].T, pres)
        scale = float(getattr(self.local.unit, "scale", 1.0))
        if not self._eps_v:
            self._eps_v = [torch.zeros_like(pre) for pre in pres]
        for eps, pre in zip(self._eps_v, pres):
            eps.mul_(self.local.unit.alpha).add_(pre, alpha=scale)
        if self.decay > 0:
            self._filter()
        return y, state

    def _advance_adaptation(self, psi: Tensor | None, pres: list[Tensor]) -> None:
        """psi [n, B] of the step before; `_eps_v` is still that of the step before."""
        if psi is None:
            assert self.derivatives is not None
            n = self.derivatives.shown.shape[-1]
            self._eps = [pre.new_zeros(n, *pre.shape) for pre in pres]
            return
        keep = (self.local.unit.rho - self.local.unit.beta * psi)[..., None]
        for eps, eps_v in zip(self._eps, self._eps_v):
            eps.mul_(keep).addcmul_(psi[..., None], eps_v[None])

    def _filter(self) -> None:
        on_v, on_a = self._on_fields()
        if not self._filtered:
            self._filtered = [eps.new_zeros(on_v.shape[1], *eps.shape) for eps in self._eps_v]
        for i, filtered in enumerate(self._filtered):
            filtered.mul_(self.decay).addcmul_(on_v.T[..., None], self._eps_v[i][None], value=1 - self.decay)
            if on_a is not None:
                filtered.addcmul_(on_a.T[..., None], self._eps[i], value=1 - self.decay)

    def _on_fields(self) -> tuple[Tensor, Tensor | None]:
        """What the signal sees of v and of a, [B, n]."""
        shown = self._shown()
        return shown[0], shown[1] if self.local.depth == 2 else None

    def learn(self, signal: Tensor) -> None:
        on_v, on_a = self._on_fields()
        for i, group in enumerate(self.groups()):
            if self.decay > 0:
                grad = torch.bmm(signal.T[:, None], self._filtered[i])[:, 0]
            else:
                grad = (signal * on_v).T @ self._eps_v[i]
                if on_a is not None:
                    grad = grad + torch.bmm((signal * on_a).T[:, None], self._eps[i])[:, 0]
            if group.bias is not None:
                add_grad(group.bias, grad[:, -1])
                grad = grad[:, :-1]
            add_grad(group.weight, grad)

    @property
    def own_fields(self) -> int:
        return self.local.depth - 1
