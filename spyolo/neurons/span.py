"""Many steps of a dense LTC layer as one operation: the same numbers as step by step, at a fraction of the time where layers are small.

Step by step, a layer of a hundred neurons spends its time in Python, in autograd's graph and in calls of compiled functions. Here the
steps are a plain loop over buffers: the input synapse is one product over all steps before it, the weights' gradients are one product
each after it, and backward needs two products a step and seven passes over the neurons. Kept for it: five numbers a neuron and step.

    c_t = W x_t + b + R s_{t-1}      l_t = G [c_t ; u_{t-1}] + g      v_t = u_{t-1} + sigma(l_t) (c_t - u_{t-1})
    s_t = H(v_t - threshold)         u_t = (1 - s_t) v_t

For `ltc_step` with a constant threshold and the gate `ConcatLinearGate`; `spans` says of a cell whether it is such a one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spyolo.neurons.cells import Cell, LTCUnit
from spyolo.neurons.gates import ConcatLinearGate
from spyolo.neurons.ltc import LTCState
from spyolo.neurons.surrogate import Surrogate


class How(NamedTuple):
    """What a span is told beside its tensors."""

    threshold: float
    detach_reset: bool
    surrogate: Surrogate
    narrow: torch.dtype  # of the products; membranes keep theirs


class Kept(NamedTuple):
    """What forward leaves for backward."""

    both: Tensor  # [c_t ; u_{t-1}] as the gate sees it, [T, B, 2n]
    u: Tensor  # u_0 ... u_T, [T + 1, B, n]
    spikes: Tensor  # s_0 ... s_T, [T + 1, B, n]
    tau: Tensor  # [T, B, n]


def run(current: Tensor, u: Tensor, s: Tensor, recurrent: Tensor | None, gate: Tensor, bias: Tensor, threshold: float) -> Kept:
    """The steps. `current` [T, B, n] is what comes through the input synapse; weights in its dtype; u, s [B, n] the state before."""
    steps, batch, n = current.shape
    both = current.new_empty(steps, batch, 2 * n)
    membranes, tau = u.new_empty(steps + 1, batch, n), u.new_empty(steps, batch, n)
    spikes = current.new_empty(steps + 1, batch, n)
    membranes[0], spikes[0] = u, s
    if recurrent is None:
        both[:, :, :n] = current
    logit, v, difference = current.new_empty(batch, n), torch.empty_like(u), torch.empty_like(u)
    back_in, gate_in = None if recurrent is None else recurrent.T, gate.T
    for x, seen, c, slot, before, after, s, fired, share in zip(  # views made beforehand: indexing would cost as much as the products
        current.unbind(), both.unbind(), both[..., :n].unbind(), both[..., n:].unbind(), membranes[:-1].unbind(), membranes[1:].unbind(),
        spikes[:-1].unbind(), spikes[1:].unbind(), tau.unbind(),
    ):  # fmt: skip
        if back_in is not None:
            torch.addmm(x, s, back_in, out=c)
        slot.copy_(before)
        torch.addmm(bias, seen, gate_in, out=logit)
        torch.sigmoid(logit, out=share)
        torch.sub(c, before, out=difference)
        torch.addcmul(before, share, difference, out=v)
        torch.gt(v, threshold, out=fired)
        torch.addcmul(v, v, fired, value=-1, out=after)
    return Kept(both, membranes, spikes, tau)


def back(
    kept: Kept, grad_s: Tensor | None, grad_u: Tensor | None, recurrent: Tensor | None, gate: Tensor, how: How
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of c and l at each step [T, B, n], and of the state before, u and s [B, n], from those of all s_t and u_t (None: zero)."""
    steps, batch, n = kept.tau.shape
    on_c, on_l = (kept.both.new_empty(steps, batch, n) for _ in range(2))
    on_u, on_v = torch.zeros_like(kept.tau[0]), torch.empty_like(kept.tau[0])
    on_s, through = on_c.new_zeros(batch, n), on_c.new_empty(batch, 2 * n)
    through_c, through_u = through[:, :n], through[:, n:]
    nothing = (None,) * steps
    given = (nothing if g is None else g.unbind() for g in (grad_s, grad_u))
    for to_c, to_l, share, spike, reset, logit, stay, from_s, from_u in reversed(
        list(zip(on_c.unbind(), on_l.unbind(), kept.tau.unbind(), *(slope.unbind() for slope in Slopes.of(kept, how)), *given))
    ):
        if from_s is not None:
            on_s += from_s
        if from_u is not None:
            on_u += from_u
        torch.mul(on_s, spike, out=on_v)
        on_v.addcmul_(on_u, reset)
        torch.mul(on_v, logit, out=to_l)
        torch.mm(to_l, gate, out=through)
        torch.addcmul(through_c, on_v, share, out=to_c)
        torch.addcmul(through_u, on_v, stay, out=on_u)
        if recurrent is None:
            on_s.zero_()
        else:
            torch.mm(to_c, recurrent, out=on_s)
    return on_c, on_l, on_u, on_s


class Slopes(NamedTuple):
    """Derivatives inside each step, for all steps at once, [T, B, n]."""

    spike: Tensor  # ds/dv
    reset: Tensor  # du_t/dv
    logit: Tensor  # dv/dl
    stay: Tensor  # dv/du_{t-1}

    @classmethod
    def of(cls, kept: Kept, how: How) -> Slopes:
        n = kept.tau.shape[-1]
        difference = kept.both[..., :n] - kept.u[:-1]
        v = torch.addcmul(kept.u[:-1], kept.tau, difference)
        spike = how.surrogate(v - how.threshold)
        reset = 1 - kept.spikes[1:].to(v.dtype)
        if not how.detach_reset:
            reset.addcmul_(v, spike, value=-1)
        stay = 1 - kept.tau
        return cls(spike, reset, difference.mul_(kept.tau).mul_(stay), stay)


class LTCSpan(torch.autograd.Function):
    """(x [T, B, m], u, s [B, n], W, b, R, G, g) -> (s [T, B, n], u [T, B, n])."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, u: Tensor, s: Tensor, weight: Tensor, bias: Tensor | None, recurrent: Tensor | None, gate: Tensor,
        gate_bias: Tensor, how: How,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        x, weight, gate, gate_bias = (w.to(how.narrow) for w in (x, weight, gate, gate_bias))
        bias, recurrent = (None if w is None else w.to(how.narrow) for w in (bias, recurrent))
        kept = run(nn.functional.linear(x, weight, bias), u, s, recurrent, gate, gate_bias, how.threshold)
        ctx.save_for_backward(x, weight, recurrent, gate, *kept)
        ctx.how, ctx.biased = how, bias is not None
        ctx.set_materialize_grads(False)
        return kept.spikes[1:], kept.u[1:]

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_s: Tensor | None, grad_u: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, recurrent, gate, *rest = ctx.saved_tensors
        kept = Kept(*rest)
        on_c, on_l, on_u, on_s = back(kept, grad_s, grad_u, recurrent, gate, ctx.how)
        all_c, all_l, wide = on_c.flatten(0, 1), on_l.flatten(0, 1), kept.u.dtype
        on_x = on_c @ weight if ctx.needs_input_grad[0] else None
        on_recurrent = None if recurrent is None else (all_c.T @ kept.spikes[:-1].flatten(0, 1)).to(wide)
        return (
            on_x, on_u if ctx.needs_input_grad[1] else None, on_s if ctx.needs_input_grad[2] else None,
            (all_c.T @ x.flatten(0, 1)).to(wide), all_c.sum(0, dtype=wide) if ctx.biased else None, on_recurrent,
            (all_l.T @ kept.both.flatten(0, 1)).to(wide), all_l.sum(0, dtype=wide), None,
        )  # fmt: skip


def spans(cell: nn.Module) -> bool:
    """Whether `span` may take the place of the cell's steps: dense LTC neurons of a constant threshold, watched by nobody."""
    if type(cell) is not Cell or not isinstance(cell.unit, LTCUnit):
        return False
    unit, recurrent = cell.unit, cell.recurrent
    return (
        unit.fused and unit.adaptation_gate is None and type(unit.gate) is ConcatLinearGate and type(cell.synapse) is nn.Linear
        and (recurrent is None or (type(recurrent) is nn.Linear and recurrent.bias is None))
        and not any(m._forward_hooks or m._forward_pre_hooks for m in cell.modules())  # the energy meter counts calls
    )  # fmt: skip


def span(cell: Cell, x: Tensor, state: LTCState | None, amp: str = "none") -> tuple[Tensor, Tensor, LTCState]:
    """All steps of x [T, B, m] from `state` (None: at rest): spikes and membranes after each step [T, B, n], and the state after the last.

    Args:
        cell: one of which `spans` is true.
        amp: `bf16`: products in bf16, as `Stack` takes them by autocast.
    """
    unit, linear, weight = cell.unit, cell.unit.gate.linear, cell.synapse.weight
    narrow = torch.bfloat16 if amp == "bf16" else weight.dtype
    if state is None:
        state = unit.initial_state(x.new_empty(x.shape[1], len(weight), dtype=narrow))
    s, u = LTCSpan.apply(
        x, state.u, state.s, weight, cell.synapse.bias, None if cell.recurrent is None else cell.recurrent.weight,
        linear.weight, linear.bias, How(unit.threshold, unit.detach_reset, unit.surrogate, narrow),
    )  # fmt: skip
    return s, u, LTCState(u[-1].clone(), s[-1].clone())  # clones: the state shall not hold the whole span
