"""What a span does in each step beside its products (span.py has the equations): by native code on a CPU, else in torch's operations."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spyolo.neurons import native
from spyolo.neurons.fused import KERNELS, Compiling, flat
from spyolo.neurons.surrogate import Surrogate, multi_gaussian

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


class Flow(NamedTuple):
    """Gradients on their way back through the steps."""

    on_c: Tensor  # of c and l at each step, [T, B, n]
    on_l: Tensor
    on_s: Tensor  # of the state before the step, [B, n]
    on_u: Tensor
    on_v: Tensor  # of the step's membrane before reset, [B, n]
    through: Tensor  # what comes back through the gate, [B, 2n]


Step = Callable[[int], object]
Back = tuple[Callable[[slice], object], Step, Step]  # before a block of steps; in each, before and after the product with the gate


def forward_step(kept: Kept, logit: Tensor, threshold: float) -> Step:
    """Step t from its current and `logit` [B, n]: fills `kept` for it, and the membrane's place in `both` of step t + 1."""
    return native_forward(kept, logit, threshold) or torch_forward(kept, logit, threshold)


def back_steps(kept: Kept, flow: Flow, grads: tuple[Tensor | None, ...], recurrent: bool, how: How) -> Back:
    """`grads`: of the spikes and membranes of all steps, [T, B, n] (None: zero). Without `recurrent`, on_s is zero after each step."""
    return native_back(kept, flow, grads, recurrent, how) or torch_back(kept, flow, grads, recurrent, how)


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


def native_back(kept: Kept, flow: Flow, grads: tuple[Tensor | None, ...], recurrent: bool, how: How) -> Back | None:
    functions = native.span_steps(kept.both, kept.u)
    if functions is None:
        return None
    given = [None if g is None else g.contiguous() for g in grads]
    told = describe(kept, how.threshold, **flow._asdict(), from_s=given[0], from_u=given[1])
    told.detach_reset, told.recurrent = how.detach_reset, recurrent
    held: list[Tensor | None] = [*given, None]  # what lives as long as its address is told

    def prepare(part: slice) -> None:
        if how.surrogate is not multi_gaussian and math.isfinite(how.threshold):
            psi = how.surrogate(membranes(kept, part) - how.threshold).to(kept.tau.dtype).expand_as(kept.tau[part]).contiguous()
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
        given = (nothing if g is None else g[part].unbind() for g in grads)
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
