"""The detectors as a reader of the paper would write them down: one operation of torch after the other, nothing kept back, nothing joined.

This is the oracle of the benches and what their speed-ups are measured against. It borrows the weights of a `SpikingYOLO` and calls none
of its code: NCHW, unfolded norms, the encoder run anew at every step, autograd through each operation.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainSpike(torch.autograd.Function):
    """H(v) forward; the arctan or multi-Gaussian surrogate backward, as the detector has it."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, surrogate: Any) -> Tensor:
        ctx.save_for_backward(v)
        ctx.surrogate = surrogate
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (v,) = ctx.saved_tensors
        return grad * ctx.surrogate(v), None


class Plain:
    """detector -> something with `step(images, state) -> (logits of each scale, state)`; the state is name -> (u, o)."""

    def __init__(self, detector: Any) -> None:
        self.d = detector
        self.names = {module: name for name, module in detector.named_modules()}

    def norm(self, norm: Any, x: Tensor) -> Tensor:
        if isinstance(norm, nn.Identity):
            return x
        if norm.training:
            norm.num_batches_tracked += 1
        momentum = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training, momentum, norm.eps)

    def conv(self, conv: Any, x: Tensor) -> Tensor:
        return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    def cell(self, cell: Any, x: Tensor, before: dict[str, Tensor], after: dict[str, Tensor]) -> Tensor:
        current = self.norm(cell.synapse.norm, self.conv(cell.synapse.conv, x))
        if hasattr(cell.synapse, "upsample"):
            current = F.interpolate(current, scale_factor=2, mode="nearest")
        unit, name = cell.unit, self.names[cell]
        if not hasattr(unit, "gate"):
            return F.leaky_relu(current, 0.1)
        u = before[name] if name in before else torch.zeros_like(current)
        tau = torch.sigmoid(self.norm(unit.gate.norm, self.conv(unit.gate.conv, current + u)))
        u = u + tau * (current - u)
        s: Tensor = PlainSpike.apply(u - unit.threshold, unit.surrogate)
        after[name] = u * (1 - s)
        return s

    def block(self, block: Any, x: Tensor, *states: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        whole = self.cell(block.conv1, x, *states)
        first = self.cell(block.conv2, whole[:, whole.shape[1] // 2 :], *states)
        inner = first
        for cell in block.inner:
            inner = self.cell(cell, inner, *states)
        feature = self.cell(block.conv4, torch.cat([inner, first], 1), *states)
        return F.max_pool2d(torch.cat([whole, feature], 1), 2), feature

    def step(self, images: Tensor, state: dict[str, Tensor] | None = None) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """One time step on pictures, float in [0, 1] or uint8."""
        d, before, after = self.d, state or {}, {}
        b, n = d.backbone, d.neck
        x = images / 255 if images.dtype == torch.uint8 else images
        x = self.cell(b.conv2, self.cell(b.conv1, x, before, after), before, after)
        x, _ = self.block(b.block1, x, before, after)
        x, _ = self.block(b.block2, x, before, after)
        x, feature = self.block(b.block3, x, before, after)
        top = self.cell(n.reduce, self.cell(b.conv3, x, before, after), before, after)
        up = self.cell(n.up, top, before, after)
        ends = self.cell(n.fine, torch.cat([up, feature], 1), before, after), self.cell(n.coarse, top, before, after)
        logits = []
        for i, (head, s) in enumerate(zip(d.heads, ends)):
            o = self.conv(head.conv, s).float() if s.dtype == torch.bfloat16 else self.conv(head.conv, s)
            if head.readout == "leaky":
                if f"o{i}" in before:
                    o = before[f"o{i}"] + torch.sigmoid(head.leak).view(-1, 1, 1) * (o - before[f"o{i}"])
                after[f"o{i}"] = o
            logits.append(o)
        return tuple(logits), after

    def run(self, images: Tensor, timesteps: int) -> tuple[Tensor, ...]:
        """Logits after `timesteps` steps on still pictures."""
        state = None
        for _ in range(timesteps):
            logits, state = self.step(images, state)
        return logits


class PlainFPTT:
    """FPTT's three lines a parameter, with Adam: no lists, no fusion."""

    def __init__(self, parameters: list[Tensor], lr: float = 1e-3, alpha: float = 0.1, clip: float = 10.0) -> None:
        self.p, self.alpha, self.clip = parameters, alpha, clip
        self.average = [p.detach().clone() for p in parameters]
        self.lam = [torch.zeros_like(p) for p in parameters]
        self.optimizer = torch.optim.Adam(parameters, lr, foreach=False)

    @torch.no_grad()
    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.p, self.clip, foreach=False)
        for p, a, m in zip(self.p, self.average, self.lam):
            if p.grad is not None:  # the leak of the readout sees no gradient at the first step
                p.grad = p.grad + self.alpha * (p - a) - m
        self.optimizer.step()
        for p, a, m in zip(self.p, self.average, self.lam):
            m -= self.alpha * (p - a)
            a.copy_((a + p) / 2 - m / (2 * self.alpha))
