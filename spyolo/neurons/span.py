"""Many steps of a dense LTC layer as one operation: the same numbers as step by step, at a fraction of the time where layers are small.

Step by step, a layer of a hundred neurons spends its time in Python, in autograd's graph and in calls of compiled functions. Here the
steps are a plain loop over buffers: the input synapse is one product over all steps before it, the weights' gradients are one product
each after it, and there are two products a step each way. What is left between them is one visit to the neurons forward and two back by
native code on a CPU, and some seven passes each way in torch's operations elsewhere. Five numbers a neuron and step are kept for backward;
it makes two more of all steps, and what it needs of the surrogate for `BLOCK` steps at a time.

    c_t = W x_t + b + R s_{t-1}      l_t = G [c_t ; u_{t-1}] + g      v_t = u_{t-1} + sigma(l_t) (c_t - u_{t-1})
    s_t = H(v_t - threshold)         u_t = (1 - s_t) v_t

For `ltc_step` with a constant threshold and the gate `ConcatLinearGate`; `can_span` says of a cell whether it is such a one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spyolo.neurons.cells import Cell, LTCUnit
from spyolo.neurons.fused import check_shapes
from spyolo.neurons.gates import ConcatLinearGate
from spyolo.neurons.ltc import LTCState
from spyolo.neurons.span_steps import BLOCK, Flow, How, Kept, back_steps, forward_step
from spyolo.neurons.surrogate import rectangle


def run(current: Tensor, u: Tensor, s: Tensor, recurrent: Tensor | None, gate: Tensor, bias: Tensor, threshold: float) -> Kept:
    """The steps. `current` [T, B, n] is what comes through the input synapse; weights in its dtype; u, s [B, n] the state before."""
    steps, batch, n = current.shape
    both = current.new_empty(steps, batch, 2 * n)
    membranes, tau = u.new_empty(steps + 1, batch, n), u.new_empty(steps, batch, n)
    spikes = current.new_empty(steps + 1, batch, n)
    membranes[0], spikes[0] = u, s
    both[0, :, n:] = u
    if recurrent is None:
        both[:, :, :n] = current
    kept, logit = Kept(both, membranes, spikes, tau), current.new_empty(batch, n)
    step = forward_step(kept, logit, threshold)
    back_in, gate_in = None if recurrent is None else recurrent.T, gate.T
    slices = zip(current.unbind(), both.unbind(), both[..., :n].unbind(), spikes.unbind())  # made beforehand: as costly as the products
    for t, (x, seen, c, fired) in enumerate(slices):
        if back_in is not None:
            torch.addmm(x, fired, back_in, out=c)
        torch.addmm(bias, seen, gate_in, out=logit)
        step(t)
    return kept


def back(kept: Kept, grads: tuple[Tensor | None, ...], recurrent: Tensor | None, gate: Tensor, how: How) -> Flow:
    """Gradients of c and l at each step and of the state before the first, from those of what `LTCSpan` returns (None: zero)."""
    steps, batch, n = kept.tau.shape
    on_c, on_l = (kept.both.new_empty(steps, batch, n) for _ in range(2))
    on_u, on_v = torch.zeros_like(kept.tau[0]), torch.empty_like(kept.tau[0])
    flow = Flow(on_c, on_l, on_c.new_zeros(batch, n), on_u, on_v, on_c.new_empty(batch, 2 * n))
    for on_last, grad in zip((flow.on_s, flow.on_u), grads[2:]):
        if grad is not None:
            on_last.copy_(grad)
    prepare, before, after = back_steps(kept, flow, grads[:2], recurrent is not None, how)
    rows_c, rows_l = on_c.unbind(), on_l.unbind()
    for first in reversed(range(0, steps, BLOCK)):
        last = min(first + BLOCK, steps)
        prepare(slice(first, last))
        for t in reversed(range(first, last)):
            before(t)
            torch.mm(rows_l[t], gate, out=flow.through)
            after(t)
            if recurrent is not None:
                torch.mm(rows_c[t], recurrent, out=flow.on_s)
    return flow


class LTCSpan(torch.autograd.Function):
    """(x [T, B, m], u, s [B, n], W, b, R, G, g) -> (s, u of all steps [T, B, n], s, u of the last [B, n])."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, u: Tensor, s: Tensor, weight: Tensor, bias: Tensor | None, recurrent: Tensor | None, gate: Tensor,
        gate_bias: Tensor, how: How,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        x, weight, gate, gate_bias = (w.to(how.narrow) for w in (x, weight, gate, gate_bias))
        bias, recurrent = (None if w is None else w.to(how.narrow) for w in (bias, recurrent))
        with torch.autocast(x.device.type, enabled=False):  # all is in its dtype already, and products into buffers are not cast
            kept = run(nn.functional.linear(x, weight, bias), u, s, recurrent, gate, gate_bias, how.threshold)
        ctx.save_for_backward(x, weight, recurrent, gate, *kept)
        ctx.how = how
        ctx.set_materialize_grads(False)
        return kept.spikes[1:], kept.u[1:], kept.spikes[-1].clone(), kept.u[-1].clone()  # clones: a state shall not hold the whole span

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, recurrent, gate, *rest = ctx.saved_tensors
        kept = Kept(*rest)
        on_c, on_l, on_s, on_u, *_ = back(kept, grads, recurrent, gate, ctx.how)
        all_c, all_l, wide, needed = on_c.flatten(0, 1), on_l.flatten(0, 1), kept.u.dtype, ctx.needs_input_grad
        gradients = (  # in the order of forward's arguments
            lambda: on_c @ weight, lambda: on_u, lambda: on_s, lambda: all_c.T @ x.flatten(0, 1), lambda: all_c.sum(0, dtype=wide),
            lambda: all_c.T @ kept.spikes[:-1].flatten(0, 1), lambda: all_l.T @ kept.both.flatten(0, 1), lambda: all_l.sum(0, dtype=wide),
        )  # fmt: skip
        return *(gradient() if need else None for gradient, need in zip(gradients, needed)), None


def gated_span(x: Tensor, o: Tensor, linear: nn.Linear, gate: nn.Linear) -> Tensor:
    """The output after the last step of a gated readout: an LTC layer that never fires and has no weights back to itself.

    Args:
        x: [T, B, features], in the dtype of the weights.
        o: the output before, [B, outputs].
    """
    how = How(math.inf, True, rectangle, linear.weight.dtype)
    last: Tensor = LTCSpan.apply(x, o, torch.zeros_like(o), linear.weight, linear.bias, None, gate.weight, gate.bias, how)[3]
    return last


def can_span(cell: nn.Module) -> bool:
    """Whether `span` may take the place of the cell's steps: dense LTC neurons of a constant threshold, all of known types."""
    if type(cell) is not Cell or type(cell.unit) is not LTCUnit or type(cell.unit.gate) is not ConcatLinearGate:
        return False
    unit, recurrent = cell.unit, cell.recurrent
    linear = type(cell.synapse) is nn.Linear and type(unit.gate.linear) is nn.Linear and unit.gate.linear.bias is not None
    back_in = recurrent is None or (type(recurrent) is nn.Linear and recurrent.bias is None)
    return unit.fused and unit.adaptation_gate is None and linear and back_in


def span(cell: Cell, x: Tensor, state: LTCState | None) -> tuple[Tensor, Tensor, LTCState]:
    """All steps of x [T, B, m] from `state` (None: at rest): spikes and membranes after each step [T, B, n], and the state after the last.

    Under autocast, products are taken in its dtype; spikes have that too, membranes stay as wide as the weights.

    Args:
        cell: one of which `can_span` is true.

    Raises:
        ValueError: an input of other dimensions or without steps, or a state of another shape.
    """
    unit, linear, weight, device = cell.unit, cell.unit.gate.linear, cell.synapse.weight, x.device.type
    if x.dim() != 3 or not len(x):
        raise ValueError(f"a span is of one step or more, [T, B, m]; got {list(x.shape)}")
    narrow = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) and weight.dtype == torch.float32 else weight.dtype
    current = x.new_empty(x.shape[1], len(weight), dtype=narrow)
    if state is None:
        state = unit.initial_state(current)
    check_shapes(current, state)
    s, u, last_s, last_u = LTCSpan.apply(
        x, state.u, state.s, weight, cell.synapse.bias, None if cell.recurrent is None else cell.recurrent.weight,
        linear.weight, linear.bias, How(unit.threshold, unit.detach_reset, unit.surrogate, narrow),
    )  # fmt: skip
    return s, u, LTCState(last_u, last_s)
