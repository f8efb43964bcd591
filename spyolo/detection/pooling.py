"""Pooling of spikes for training: a pooled spike is an OR, and what backward needs is found again instead of kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class SpikePool(torch.autograd.Function):
    """2x2 maxima. max_pool2d keeps where each maximum was, eight bytes an output: more than the spikes themselves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return nn.functional.max_pool2d(x, 2)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        _, where = torch.ops.aten.max_pool2d_with_indices(x, [2, 2], [2, 2])
        return torch.ops.aten.max_pool2d_with_indices_backward(  # type: ignore[no-any-return]
            grad, x, [2, 2], [2, 2], [0, 0], [1, 1], False, where
        )


def spike_pool(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, H/2, W/2], as `max_pool2d(x, 2)`."""
    if not x.requires_grad or torch.compiler.is_compiling():
        return nn.functional.max_pool2d(x, 2)
    pooled: Tensor = SpikePool.apply(x)
    return pooled
