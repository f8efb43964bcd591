"""The heads: a 1x1 convolution on the last spikes of each scale, and a readout of its logits over time."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spyolo.neurons import leaky_readout_step

READOUTS = ("last", "mean", "leaky")


class ReadoutState(NamedTuple):
    """What a readout remembers of one scale."""

    o: Tensor  # [B, K, H, W] fp32, logits as read out
    t: Tensor  # [] steps seen


class Head(nn.Module):
    """1x1 convolution to `anchors * (5 + classes)` logits, then the readout.

    Readouts: `last` shows this step's logits (the reference), `mean` their running mean, `leaky` a leaky integral with one learned
    update fraction a channel (it starts at 1/2). Channel layout a head: [anchor, (tx, ty, tw, th, objectness, classes...)].
    """

    def __init__(self, in_channels: int, anchors: int, num_classes: int, readout: str = "leaky", prior: float = 0.01) -> None:
        super().__init__()
        if readout not in READOUTS:
            raise ValueError(f"readout must be one of {', '.join(READOUTS)}; got {readout!r}")
        channels = anchors * (5 + num_classes)
        self.conv = nn.Conv2d(in_channels, channels, 1)
        self.readout = readout
        self.leak = nn.Parameter(torch.zeros(channels)) if readout == "leaky" else None
        nn.init.normal_(self.conv.weight, std=0.01)
        with torch.no_grad():  # rare classes: start from the prior (Lin et al., 2017), so that the negatives do not swamp the first updates
            bias = self.conv.bias.zero_().view(anchors, 5 + num_classes)  # type: ignore[union-attr]
            bias[:, 4] = -math.log((1 - prior) / prior)
            bias[:, 5:] = -math.log(num_classes - 1 + 1e-3) if num_classes > 1 else 0.0

    def forward(self, spikes: Tensor, state: ReadoutState | None) -> tuple[Tensor, ReadoutState | None]:
        """[B, C, H, W] -> logits [B, anchors * (5 + classes), H, W] in fp32 or wider, and the state after."""
        x = self.conv(spikes)
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.readout == "last":
            return x, None
        t = torch.ones((), device=x.device) if state is None else state.t + 1
        before = None if state is None else state.o
        if self.leak is not None:
            o = leaky_readout_step(x, before, torch.sigmoid(self.leak).view(-1, 1, 1))
        else:
            o = leaky_readout_step(x, before, 1 / t.to(x.dtype))
        return o, ReadoutState(o, t)
