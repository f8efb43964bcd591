"""The adaptive LTC step in one pass forward and one back: as `fused`, for neurons whose threshold rises with their spikes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spyolo.neurons.fused import KERNELS, Compiling, check_shapes, flat, is_dense
from spyolo.neurons.ltc import LTCState
from spyolo.neurons.surrogate import Surrogate


def adaptive_forward_kernel(
    current: Tensor, logit: Tensor, logit_adp: Tensor, u: Tensor, s: Tensor, b: Tensor, threshold: float, beta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes (dtype of current), membrane after reset and adaptation."""
    wide = torch.promote_types(current.dtype, torch.float32)
    keep = torch.sigmoid(logit_adp.to(wide))
    b = keep * b + (1 - keep) * s
    v = u + torch.sigmoid(logit.to(wide)) * (current.to(wide) - u)
    fired = v - (threshold + beta * b) > 0
    return torch.where(fired, 1.0, 0.0).to(current.dtype), torch.where(fired, 0.0, v), b  # where: see `fused.forward_kernel`


def adaptive_backward_kernel(
    current: Tensor, logit: Tensor, logit_adp: Tensor, u: Tensor, s: Tensor, b: Tensor, grad_s: Tensor, grad_u: Tensor | None,
    grad_b: Tensor | None, threshold: float, beta: float, detach_reset: bool, surrogate: Surrogate, for_state: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of the three currents and (`for_state`) of u, s and b, from those of the spikes and (None: zero) the state after."""
    wide = torch.promote_types(current.dtype, torch.float32)
    keep, tau = torch.sigmoid(logit_adp.to(wide)), torch.sigmoid(logit.to(wide))
    difference = current.to(wide) - u
    v = u + tau * difference
    above = v - (threshold + beta * (keep * b + (1 - keep) * s))
    fired = (above > 0).to(wide)
    grad_s = grad_s.to(wide)
    if grad_u is not None and not detach_reset:
        grad_s = grad_s - grad_u * v
    grad_above = grad_s * surrogate(above)
    grad_v = grad_above if grad_u is None else grad_above + grad_u * (1 - fired)
    grad_after = -beta * grad_above if grad_b is None else grad_b - beta * grad_above
    grad_current = grad_v * tau
    found = (
        grad_current.to(current.dtype),
        (grad_current * difference * (1 - tau)).to(logit.dtype),
        (grad_after * (b - s) * keep * (1 - keep)).to(logit_adp.dtype),
    )
    return (*found, grad_v - grad_current, (grad_after * (1 - keep)).to(s.dtype), grad_after * keep) if for_state else found


FORWARD, BACKWARD = len(KERNELS), len(KERNELS) + 1
KERNELS.extend([adaptive_forward_kernel, adaptive_backward_kernel])


class FusedAdaptiveLTC(torch.autograd.Function):
    """(current, logit, adaptation logit, u, s, b) -> (spikes, u after reset, b); all dense and of one shape."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        tensors, (threshold, beta, detach_reset, surrogate) = args[:6], args[6:]
        like = tensors[0]
        lines = [flat(t, like) for t in tensors]
        out = Compiling.run(FORWARD, *lines, threshold, beta)
        ctx.save_for_backward(*lines, like)
        ctx.settings = threshold, beta, detach_reset, surrogate
        ctx.set_materialize_grads(False)
        s, u, b = (t.as_strided(like.shape, like.stride()) for t in out)
        return s, u, b

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        *lines, like = ctx.saved_tensors
        grad_s, grad_u, grad_b = (None if g is None else flat(g, like) for g in grads)
        grad_s = torch.zeros_like(lines[0]) if grad_s is None else grad_s
        for_state = any(ctx.needs_input_grad[3:6])  # online learning cuts the graph at the state
        out = Compiling.run(BACKWARD, *lines, grad_s, grad_u, grad_b, *ctx.settings, for_state)
        found = [g.as_strided(like.shape, like.stride()) for g in out]
        return *found, *(None,) * (10 - len(found))


def fused_adaptive_step(
    current: Tensor, logit: Tensor, logit_adp: Tensor, state: LTCState, *, threshold: float, beta: float, detach_reset: bool,
    surrogate: Surrogate,
) -> LTCState:  # fmt: skip
    """`ltc_step` with adaptation, from the two gates' logits, in one pass.

    Args:
        current: synaptic input [B, ...].
        logit, logit_adp: what the gates of membrane and adaptation say, broadcastable to `current`.
        state: state after the step before, with an adaptation.

    Raises:
        ValueError: a state without adaptation, or of another shape than the current.
    """
    check_shapes(current, state)
    if not is_dense(current):
        current = current.contiguous()
    if state.b is None:
        raise ValueError("an adaptive step needs a state with adaptation b; start from a state that has one")
    tensors = current, logit.expand_as(current), logit_adp.expand_as(current), state.u, state.s, state.b
    if not torch.is_grad_enabled():  # nothing will come back: spare autograd's bookkeeping
        out = Compiling.run(FORWARD, *(flat(t, current) for t in tensors), threshold, beta)
        s, u, b = (t.as_strided(current.shape, current.stride()) for t in out)
    else:
        s, u, b = FusedAdaptiveLTC.apply(*tensors, threshold, beta, detach_reset, surrogate)
    return LTCState(u, s, b)
