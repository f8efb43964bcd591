"""The last layer of a sequence network: a linear map of what the neurons show, with or without a leak; it never spikes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from spyolo.neurons.span import gated_span

READOUTS = ("linear", "leaky", "learned", "gated")
READS = ("output", "membrane")


class Readout(nn.Module):
    """x_t = W r_t + b, then by `kind`

        linear    o_t = x_t                                             (no state)
        leaky     o_t = decay o_{t-1} + (1 - decay) x_t                 (e-prop's readout)
        learned   the same, decay = sigma(one learned logit an output), started at `decay`
        gated     o_t = o_{t-1} + sigma(G [x_t ; o_{t-1}]) (x_t - o_{t-1})   (the LTC networks' readout)

    Args:
        features, outputs: sizes of r [B, features] and o [B, outputs]; r may also be maps [B, C, H, W] of so many features together.
        decay: share of the past that stays, in [0, 1); `learned`: in (0, 1), for its logit must be finite.
        reads: r is the last layer's `output` (spikes), or its `membrane` (the first field of its state: the reference's adding problem).
    """

    def __init__(
        self, features: int, outputs: int, kind: str = "linear", *, decay: float = 0.9, reads: str = "output", bias: bool = True
    ) -> None:
        super().__init__()
        if kind not in READOUTS:
            raise ValueError(f"readout must be one of {', '.join(READOUTS)}; got {kind!r}")
        if reads not in READS:
            raise ValueError(f"reads must be one of {', '.join(READS)}; got {reads!r}")
        if not 0 <= decay < 1 or (kind == "learned" and decay == 0):
            raise ValueError(f"decay must be in {'(' if kind == 'learned' else '['}0, 1), got {decay}")
        self.kind, self.reads, self.decay = kind, reads, decay if kind == "leaky" else 0.0
        self.linear = nn.Linear(features, outputs, bias=bias)
        if kind == "learned":
            self.logit = nn.Parameter(torch.full((outputs,), math.log(decay / (1 - decay))))
        if kind == "gated":
            self.gate = nn.Linear(2 * outputs, outputs)

    def forward(self, r: Tensor, o: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """r [B, features] or [B, C, H, W], and the output of the step before (None: zeros) -> output [B, outputs] and the state after."""
        return self._leak(self.linear(r.flatten(1) if r.dim() == 4 else r), o)

    def span(self, r: Tensor, o: Tensor | None) -> Tensor | None:
        """The state after all steps of r [T, B, features]; None where the kind has none, and nothing is computed."""
        if self.kind == "gated" and len(r) and type(self.linear) is type(self.gate) is nn.Linear:
            return gated_span(r, r.new_zeros(r.shape[1], self.linear.out_features) if o is None else o, self.linear, self.gate)
        if self.kind != "linear":
            for x in self.linear(r):
                _, o = self._leak(x, o)
        return o

    def _leak(self, x: Tensor, o: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.kind == "linear":
            return x, None
        if o is None:
            o = torch.zeros_like(x)
        if self.kind == "leaky":
            o = self.decay * o + (1 - self.decay) * x
        elif self.kind == "learned":
            o = x + torch.sigmoid(self.logit) * (o - x)
        else:
            o = o + torch.sigmoid(self.gate(torch.cat([x, o], -1))) * (x - o)
        return o, o
