"""The neck: a top-down path from stride 32 to stride 16, and the last spiking cell before each head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spyolo.detection.blocks import StepRunner, Units, conv_cell


class Neck(nn.Module):
    """Maps (stride 16 [B, C, H, W], stride 32 [B, 2C, H/2, W/2]) -> spikes the heads read: ([B, C, H, W], [B, 2C, H/2, W/2])."""

    def __init__(self, in_channels: tuple[int, int], units: Units) -> None:
        super().__init__()
        fine, coarse = in_channels
        self.reduce = conv_cell(coarse, fine, 1, units)
        self.coarse = conv_cell(fine, coarse, 3, units)
        self.up = conv_cell(fine, fine // 2, 1, units, upsample=True)
        self.fine = conv_cell(fine // 2 + fine, fine, 3, units)
        self.out_channels = in_channels

    def forward(self, fine: Tensor, coarse: Tensor, run: StepRunner) -> tuple[Tensor, Tensor]:
        top = run("neck.reduce", self.reduce, coarse)
        up = run("neck.up", self.up, top)
        return run("neck.fine", self.fine, torch.cat([up, fine], 1)), run("neck.coarse", self.coarse, top)
