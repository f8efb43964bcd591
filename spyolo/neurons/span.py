"""Many steps of a dense LTC layer as one operation: the same numbers as step by step, at a fraction of the time where layers are small.

Step by step, a layer of a hundred neurons spends its time in Python, in autograd's graph and in calls of compiled functions. Here the
steps are a plain loop over buffers: the input synapse is one product over all steps before it, the weights' gradients are one product
each after it, and backward needs two products a step and seven passes over the neurons. Five numbers a neuron and step are kept for it;
it makes two more of all steps and five of `BLOCK` steps.

    c_t = W x_t + b + R s_{t-1}      l_t = G [c_t ; u_{t-1}] + g      v_t = u_{t-1} + sigma(l_t) (c_t - u_{t-1})
    s_t = H(v_t - threshold)         u_t = (1 - s_t) v_t

For `ltc_step` with a constant threshold and the gate `ConcatLinearGate`; `can_span` says of a cell whether it is such a one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spyolo.neurons import native
from spyolo.neurons.cells import Cell, LTCUnit
from spyolo.neurons.fused import KERNELS, Compiling, check_shapes, flat
from spyolo.neurons.gates import ConcatLinearGate
from spyolo.neurons.ltc import LTCState
from spyolo.neurons.surrogate import Surrogate, multi_gaussian, rectangle

BLOCK = 32  # steps whose slopes are in memory at a time


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
    both[0, :, n:] = u
    if recurrent is None:
        both[:, :, :n] = current
    kept, logit = Kept(both, membranes, spikes, tau), current.new_empty(batch, n)
    step = native_forward(kept, logit, threshold) or torch_forward(kept, logit, threshold)
    back_in, gate_in = None if recurrent is None else recurrent.T, gate.T
    slices = zip(current.unbind(), both.unbind(), both[..., :n].unbind(), spikes.unbind())  # made beforehand: as costly as the products
    for t, (x, seen, c, fired) in enumerate(slices):
        if back_in is not None:
            torch.addmm(x, fired, back_in, out=c)
        torch.addmm(bias, seen, gate_in, out=logit)
        step(t)
    return kept


Step = Callable[[int], object]  # what is left of a step t beside its products


def native_forward(kept: Kept, logit: Tensor, threshold: float) -> Step | None:
    """In one visit to memory; None: not to be had here."""
    functions = native.span_steps(kept.both, kept.u)
    if functions is None:
        return None
    told = describe(kept, logit=logit, threshold=threshold)
    return functools.partial(functions[0], told)


def torch_forward(kept: Kept, logit: Tensor, threshold: float) -> Step:
    n = logit.shape[-1]
    v, difference = torch.empty_like(kept.tau[0]), torch.empty_like(kept.tau[0])
    slices = list(zip(
        kept.both[..., :n].unbind(), kept.u[:-1].unbind(), kept.u[1:].unbind(), kept.spikes[1:].unbind(), kept.tau.unbind(),
        (*kept.both[1:, :, n:].unbind(), None),
    ))  # fmt: skip

    def step(t: int) -> None:
        c, before, after, fired, share, slot = slices[t]
        share.copy_(logit).sigmoid_()  # widened first: sigmoid in bf16 is 1 for an open gate, and 1 - tau the slope of it
        torch.sub(c, before, out=difference)
        torch.addcmul(before, share, difference, out=v)
        torch.gt(v, threshold, out=fired)
        torch.addcmul(v, v, fired, value=-1, out=after)
        if slot is not None:
            slot.copy_(after)

    return step


def describe(kept: Kept, threshold: float, **tensors: Tensor | None) -> native.Span:
    """A span in the words of native code: the addresses of these tensors, which must live as long as it is used."""
    told = native.Span(threshold=threshold, threads=torch.get_num_threads())
    told.steps, told.batch, told.n = kept.tau.shape
    for name, tensor in (kept._asdict() | tensors).items():
        assert tensor is None or tensor.is_contiguous(), name
        setattr(told, name, None if tensor is None else tensor.data_ptr())
    return told


class Flow(NamedTuple):
    """Gradients on their way back through the steps."""

    on_c: Tensor  # of c and l at each step, [T, B, n]
    on_l: Tensor
    on_s: Tensor  # of the state before the step, [B, n]
    on_u: Tensor
    on_v: Tensor  # of the step's membrane before reset, [B, n]
    through: Tensor  # what comes back through the gate, [B, 2n]


def back(kept: Kept, grads: tuple[Tensor | None, ...], recurrent: Tensor | None, gate: Tensor, how: How) -> Flow:
    """Gradients of c and l at each step and of the state before the first, from those of what `LTCSpan` returns (None: zero)."""
    steps, batch, n = kept.tau.shape
    on_c, on_l = (kept.both.new_empty(steps, batch, n) for _ in range(2))
    on_u, on_v = torch.zeros_like(kept.tau[0]), torch.empty_like(kept.tau[0])
    flow = Flow(on_c, on_l, on_c.new_zeros(batch, n), on_u, on_v, on_c.new_empty(batch, 2 * n))
    for on_last, grad in zip((flow.on_s, flow.on_u), grads[2:]):
        if grad is not None:
            on_last.copy_(grad)
    prepare, before, after = native_back(kept, flow, grads, recurrent is not None, how) or torch_back(
        kept, flow, grads, recurrent is not None, how
    )
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


Back = tuple[Callable[[slice], object], Step, Step]  # before a block of steps; in each, before and after the product with the gate


def native_back(kept: Kept, flow: Flow, grads: tuple[Tensor | None, ...], recurrent: bool, how: How) -> Back | None:
    functions = native.span_steps(kept.both, kept.u)
    if functions is None:
        return None
    given = [None if g is None else g.contiguous() for g in grads[:2]]
    told = describe(kept, how.threshold, **flow._asdict(), from_s=given[0], from_u=given[1])
    told.detach_reset, told.recurrent = how.detach_reset, recurrent
    held: list[Tensor | None] = [*given, None]  # what lives as long as its address is told

    def prepare(part: slice) -> None:
        if how.surrogate is not multi_gaussian and math.isfinite(how.threshold):
            psi = how.surrogate(membranes(kept, part) - how.threshold).contiguous()
            held[2], told.psi, told.first = psi, psi.data_ptr(), part.start

    return prepare, functools.partial(functions[1], told), functools.partial(functions[2], told)


def membranes(kept: Kept, part: slice) -> Tensor:
    """Before the reset, of some steps."""
    tau, u = kept.tau[part], kept.u[:-1][part]
    return u + tau * (kept.both[part, :, : tau.shape[-1]] - u)


def torch_back(kept: Kept, flow: Flow, grads: tuple[Tensor | None, ...], recurrent: bool, how: How) -> Back:
    n = kept.tau.shape[-1]
    through_c, through_u = flow.through[:, :n], flow.through[:, n:]
    rows: dict[int, tuple[Any, ...]] = {}

    def prepare(part: slice) -> None:
        nothing = (None,) * (part.stop - part.start)
        given = (nothing if g is None else g[part].unbind() for g in grads[:2])
        slopes = (slope.unbind() for slope in Slopes.of(kept, part, how))
        parts = zip(flow.on_c[part].unbind(), flow.on_l[part].unbind(), kept.tau[part].unbind(), *slopes, *given)
        rows.clear()
        rows.update(zip(range(part.start, part.stop), parts))

    def before(t: int) -> None:
        _, to_l, _, spike, reset, logit, _, from_s, from_u = rows[t]
        if from_s is not None:
            flow.on_s.add_(from_s)
        if from_u is not None:
            flow.on_u.add_(from_u)
        torch.mul(flow.on_s, spike, out=flow.on_v)
        flow.on_v.addcmul_(flow.on_u, reset)
        torch.mul(flow.on_v, logit, out=to_l)
        if not recurrent:
            flow.on_s.zero_()

    def after(t: int) -> None:
        to_c, _, share, *_, stay, _, _ = rows[t]
        torch.addcmul(through_c, flow.on_v, share, out=to_c)
        torch.addcmul(through_u, flow.on_v, stay, out=flow.on_u)

    return prepare, before, after


class Slopes(NamedTuple):
    """Derivatives inside each step, for several steps at once, [steps, B, n]."""

    spike: Tensor  # ds/dv
    reset: Tensor  # du_t/dv
    logit: Tensor  # dv/dl
    stay: Tensor  # dv/du_{t-1}

    @classmethod
    def of(cls, kept: Kept, part: slice, how: How) -> Slopes:
        tau, u = kept.tau[part], kept.u[:-1][part]
        difference = kept.both[part, :, : tau.shape[-1]] - u
        lines = (flat(x, x) for x in (difference, tau, u, kept.spikes[1:][part]))
        found = Compiling.run(SLOPES, *lines, how.threshold, how.detach_reset, how.surrogate)
        return cls(*(slope.view_as(tau) for slope in found))


def slopes_kernel(
    difference: Tensor, tau: Tensor, u: Tensor, fired: Tensor, threshold: float, detach_reset: bool, surrogate: Surrogate
) -> tuple[Tensor, ...]:
    """The fields of `Slopes`, all of one line, in one pass: written in tensor operations, the surrogate alone takes a dozen."""
    v = u + tau * difference
    spike, stay = surrogate(v - threshold), 1 - tau
    reset = 1 - fired.to(v.dtype)
    return spike, reset if detach_reset else reset - v * spike, difference * tau * stay, stay


SLOPES = len(KERNELS)
KERNELS.append(slopes_kernel)


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
