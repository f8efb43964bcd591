"""Normalisation of synaptic currents over the steps of a sequence: one norm shared by all, plain or renormalised online."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class BatchRenorm2d(nn.BatchNorm2d):
    """Batch renormalisation (Ioffe, 2017): in training, batch statistics corrected toward the running ones.

    y = ((x - m_B) / s_B r + d) weight + bias with r = clip(s_B / s, 1/r_max, r_max), d = clip((m_B - m) / s, -d_max, d_max), both
    without gradient: what training sees is then what inference will see. Online learning on small batches is where it helps.
    """

    def __init__(self, num_features: int, r_max: float = 3.0, d_max: float = 5.0) -> None:
        super().__init__(num_features)
        self.r_max, self.d_max = r_max, d_max

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        # No momentum: statistics are gathered anew, as plain means. A correction toward what is still being gathered would change what the
        # layers behind are shown, and so their statistics.
        if not self.training or self.running_mean is None or self.running_var is None or self.momentum is None:
            return super().forward(input)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        wide = input.detach().to(torch.promote_types(input.dtype, torch.float32))
        var, mean = torch.var_mean(wide, dim=(0, 2, 3), correction=0)
        std = (var + self.eps).sqrt()
        running_std = (self.running_var + self.eps).sqrt()
        r = (std / running_std).clamp(1 / self.r_max, self.r_max)
        d = ((mean - self.running_mean) / running_std).clamp(-self.d_max, self.d_max)
        # r and d act on the normalised value, so they fold into the affine part of one ordinary batch norm.
        return nn.functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight * r, self.bias + self.weight * d, True, self.momentum, self.eps
        )


NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm2d, "renorm": BatchRenorm2d}


def build_norm(kind: str, channels: int) -> nn.Module:
    """A norm over [B, C, H, W] by name: `batch` (one, shared over the steps) or `renorm`."""
    if kind not in NORMS:
        raise ValueError(f"norm must be one of {sorted(NORMS)}, got {kind!r}")
    return NORMS[kind](channels)


def norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Every batch norm inside `module`."""
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, training-mode norms still use batch statistics but leave their running ones alone (a second forward must not count twice)."""
    found = norms(module)
    before = [(m.momentum, None if m.num_batches_tracked is None else m.num_batches_tracked.clone()) for m in found]
    try:
        for m in found:
            m.momentum = 0.0
        yield
    finally:
        for m, (momentum, count) in zip(found, before):
            m.momentum = momentum
            if count is not None and m.num_batches_tracked is not None:
                m.num_batches_tracked.copy_(count)


@contextmanager
def fresh_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, `module` is in training mode and its norms gather their running statistics anew, as plain means over what they are shown."""
    found, was_training = norms(module), module.training
    momenta = [m.momentum for m in found]
    for m in found:
        m.reset_running_stats()
        m.momentum = None  # cumulative mean
    module.train()
    try:
        yield
    finally:
        for m, momentum in zip(found, momenta):
            m.momentum = momentum
        module.train(was_training)
