"""The LTC step in one pass forward and one backward: what makes training fast where memory traffic is the limit.

`ltc_step` written in tensor operations reads and writes each neuron some forty times, forward and back, and keeps a dozen tensors for
the backward pass. Here the forward keeps its three inputs only (current, gate logit, membrane) and the backward recomputes the rest.
torch.compile turns each of the functions below into one loop (C++ on the CPU, Triton on CUDA); where it cannot, they run as they are.
A membrane at rest is None instead of zeros: nothing of it is read, kept or given a gradient.
The same numbers as `ltc_step` with a constant threshold, which stays the oracle; second derivatives, torch.func and export take that one.
"""

from __future__ import annotations

import functools
import logging
import types
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spyolo.neurons.ltc import LTCState
from spyolo.neurons.surrogate import Surrogate

logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # else a warning on every machine without CUDA

Kernel = Callable[..., Any]


def _membrane(current: Tensor, logit: Tensor, u: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """tau, x - u and u' in fp32 (or wider)."""
    wide = torch.promote_types(current.dtype, torch.float32)
    tau = torch.sigmoid(logit.to(wide))
    if u is None:
        return tau, current.to(wide), tau * current.to(wide)
    difference = current.to(wide) - u
    return tau, difference, u + tau * difference


def forward_kernel(current: Tensor, logit: Tensor, u: Tensor | None, threshold: float) -> tuple[Tensor, Tensor]:
    """Spikes (dtype of current) and the membrane after reset."""
    v = _membrane(current, logit, u)[2]
    fired = v > threshold
    # A comparison cast to bf16 is compiled to scalar code: the whole kernel would take three times as long as with this choice of numbers.
    return torch.where(fired, 1.0, 0.0).to(current.dtype), torch.where(fired, 0.0, v)


def backward_kernel(
    current: Tensor, logit: Tensor, u: Tensor | None, grad_s: Tensor, grad_u: Tensor | None, threshold: float, detach_reset: bool,
    surrogate: Surrogate, for_u: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of current, logit and (with `for_u`) u, from those of the spikes and (None: zero) of the membrane after reset."""
    tau, difference, v = _membrane(current, logit, u)
    fired = torch.where(v > threshold, 1.0, 0.0)
    psi = surrogate(v - threshold)
    grad_v = grad_s.to(v.dtype) * psi
    if grad_u is not None:
        grad_v = grad_v + grad_u * (1 - fired if detach_reset else 1 - fired - v * psi)
    grad_current = grad_v * tau
    grad_logit = grad_current * difference * (1 - tau)
    gradients = grad_current.to(current.dtype), grad_logit.to(logit.dtype)
    return (*gradients, grad_v - grad_current) if for_u else gradients


def sum_kernel(current: Tensor, u: Tensor) -> Tensor:
    """x + u, added in fp32, in the dtype of current."""
    return (current + u).to(current.dtype)


KERNELS: list[Kernel] = [forward_kernel, backward_kernel, sum_kernel]  # `fused_adaptive` and `span_steps` add theirs
FORWARD, BACKWARD, SUM = range(3)


class Variants:
    """A kernel compiled for any length, once for each combination of dtypes and options it is called with.

    Each combination gets a copy of the function: torch.compile counts the combinations of one function and after eight runs it uncompiled.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.compiled: dict[tuple[Any, ...], Kernel] = {}

    def __call__(self, *args: Any) -> Any:
        key = tuple(a.dtype if isinstance(a, Tensor) else None if isinstance(a, float) else a for a in args)
        if key not in self.compiled:
            code = self.kernel.__code__.replace()
            copy = types.FunctionType(code, self.kernel.__globals__, self.kernel.__name__, self.kernel.__defaults__)
            self.compiled[key] = torch.compile(copy, dynamic=True)
        return self.compiled[key](*args)


@functools.cache
def kernels(compiled: bool) -> tuple[Kernel, ...]:
    """The functions, compiled, or as they are."""
    return tuple(Variants(kernel) for kernel in KERNELS) if compiled else tuple(KERNELS)


class Compiling:
    """Whether kernels are compiled: tried at first use, given up for good (with the reason, once) where there is no compiler."""

    enabled = True

    @classmethod
    def run(cls, which: int, *args: Any) -> Any:
        if cls.enabled:
            try:
                return kernels(True)[which](*args)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # torch.compile raises many types: no C++ compiler, no Triton, an unsupported platform
                cls.enabled = False
                reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])[:200]
                message = f"torch.compile is not to be had here ({reason}); training runs slower without it"
                warnings.warn(message, stacklevel=2)
        return kernels(False)[which](*args)


def flat(x: Tensor, like: Tensor) -> Tensor:
    """`x` as one line of memory, in the order of `like`, which is dense: then one kernel serves every shape. Detached, for of a view
    torch.compile looks at the shape of what it is a view of, and would compile anew for each kind of that."""
    if x.stride() != like.stride():
        x = torch.empty_strided(like.shape, like.stride(), dtype=x.dtype, device=x.device).copy_(x)
    return x.as_strided((x.numel(),), (1,)).detach()


def is_dense(x: Tensor) -> bool:
    """Whether the memory of `x` has neither gaps nor overlaps, in whatever order of dimensions."""
    expected = 1
    for stride, size in sorted((st, sz) for st, sz in zip(x.stride(), x.shape) if sz != 1):
        if stride != expected:
            return False
        expected *= size
    return True


class FusedLTC(torch.autograd.Function):
    """(current, logit, u or None) -> (spikes, u after reset); all dense and of one shape."""

    @staticmethod
    def forward(
        ctx: Any, current: Tensor, logit: Tensor, u: Tensor | None, threshold: float, detach_reset: bool, surrogate: Surrogate
    ) -> tuple[Tensor, Tensor]:
        lines = flat(current, current), flat(logit, current), None if u is None else flat(u, current)
        s, u_after = Compiling.run(FORWARD, *lines, threshold)
        ctx.save_for_backward(*lines, current)
        ctx.settings = threshold, detach_reset, surrogate
        ctx.set_materialize_grads(False)
        return s.as_strided(current.shape, current.stride()), u_after.as_strided(current.shape, current.stride())

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_s: Tensor | None, grad_u: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        *lines, like = ctx.saved_tensors
        grad_s = torch.zeros_like(lines[0]) if grad_s is None else flat(grad_s, like)
        for_u = ctx.needs_input_grad[2]  # online learning cuts the graph at the membrane
        out = Compiling.run(BACKWARD, *lines, grad_s, None if grad_u is None else flat(grad_u, like), *ctx.settings, for_u)
        gradients = [g.as_strided(like.shape, like.stride()) for g in out]
        return *gradients, *(None,) * (6 - len(gradients))


def check_shapes(current: Tensor, state: LTCState | None) -> None:
    """Here, not in a kernel: what fails there counts as a compiler that is not to be had."""
    if state is not None and state.u.shape != current.shape:
        raise ValueError(f"the state is of shape {list(state.u.shape)}, the current of {list(current.shape)}: start from rest")


def fused_ltc_step(
    current: Tensor, logit: Tensor, state: LTCState | None, *, threshold: float, detach_reset: bool, surrogate: Surrogate
) -> LTCState:
    """`ltc_step` with a constant threshold, from the gate's logit instead of tau, in one pass.

    Args:
        current: synaptic input [B, ...].
        logit: the gate's output, broadcastable to `current`.
        state: state after the step before; None: all membranes are at zero.

    Raises:
        ValueError: a state of another shape than the current.
    """
    check_shapes(current, state)
    if not is_dense(current):
        current = current.contiguous()
    u = None if state is None else state.u
    s, u = FusedLTC.apply(current, logit.expand_as(current), u, threshold, detach_reset, surrogate)
    return LTCState(u, s)


class FusedSum(torch.autograd.Function):
    """current + u in the dtype of current; both dense and of one shape."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, u: Tensor) -> Tensor:
        ctx.wide = u.dtype
        out: Tensor = Compiling.run(SUM, flat(current, current), flat(u, current))
        return out.as_strided(current.shape, current.stride())

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        return grad, grad.to(ctx.wide) if ctx.needs_input_grad[1] else None


def fused_sum(current: Tensor, u: Tensor) -> Tensor:
    """`(current + u).to(current.dtype)` of two tensors of one shape, without the fp32 sum in memory on the way."""
    if current.dtype == u.dtype or not is_dense(current) or torch.compiler.is_compiling():
        return (current + u).to(current.dtype)
    out: Tensor = FusedSum.apply(current, u)
    return out
