"""Blocks the detectors are built from. A cell is conv + norm (+ resampling of the current) + unit; what runs them hands each its state.

`Units` says which unit every cell of a network gets: LTC with some gate, LIF, or the ANN twin's LeakyReLU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spyolo.detection.pooling import spike_pool
from spyolo.neurons import Cell, LeakyReLUUnit, LTCUnit, build_gate, build_norm
from spyolo.neurons.gates import CONV_GATES
from spyolo.neurons.surrogate import SURROGATES

CellStates = dict[str, Any]  # name of a cell -> its state


@dataclass(frozen=True)
class Units:
    """What every hidden unit of a detector is."""

    kind: str = "ltc"  # ltc | lif (LTC update with a fixed fraction of 1/2) | relu (the ANN twin)
    gate: str = "depthwise"  # conv | depthwise | pointwise | static
    norm: str = "batch"  # batch | renorm
    threshold: float = 1.0
    detach_reset: bool = False
    start: str = "zeros"  # zeros | uniform
    surrogate: str = "multi_gaussian"

    @property
    def spiking(self) -> bool:
        return self.kind != "relu"

    def build(self, channels: int) -> nn.Module:
        if self.kind == "relu":
            return LeakyReLUUnit()
        if self.kind not in ("ltc", "lif"):
            raise ValueError(f"unit must be ltc, lif or relu; got {self.kind!r}")
        if self.gate not in CONV_GATES:
            raise ValueError(f"gate must be one of {', '.join(CONV_GATES)}; got {self.gate!r}")
        if self.surrogate not in SURROGATES:
            raise ValueError(f"surrogate must be one of {', '.join(SURROGATES)}; got {self.surrogate!r}")
        gate = build_gate("static" if self.kind == "lif" else self.gate, channels, self.norm)
        if self.kind == "lif":
            gate.requires_grad_(False)
        return LTCUnit(
            gate, threshold=self.threshold, detach_reset=self.detach_reset, start=self.start, surrogate=SURROGATES[self.surrogate]
        )


def conv_cell(
    c_in: int, c_out: int, kernel_size: int, units: Units, *, stride: int = 1, bias: bool = True, upsample: bool = False
) -> Cell:
    """[B, c_in, H, W] -> spikes [B, c_out, H', W']; `upsample` doubles the current's sides (nearest).

    The ANN twin's convolutions have no bias.
    """
    conv = nn.Conv2d(c_in, c_out, kernel_size, stride, kernel_size // 2, bias=bias and units.spiking)
    nn.init.xavier_normal_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    synapse = nn.Sequential()
    synapse.add_module("conv", conv)
    synapse.add_module("norm", build_norm(units.norm, c_out))
    if upsample:
        synapse.add_module("upsample", nn.Upsample(scale_factor=2, mode="nearest"))
    return Cell(synapse, units.build(c_out))


class StepRunner:
    """Runs the cells of one time step: hands each its state by name and collects the states after."""

    def __init__(self, before: CellStates | None) -> None:
        self.before = before or {}
        self.after: CellStates = {}

    def __call__(self, name: str, cell: Cell, x: Tensor) -> Tensor:
        out, self.after[name] = cell(x, self.before.get(name))
        return out

    def from_current(self, name: str, cell: Cell, current: Tensor) -> Tensor:
        """As a call, for a cell whose synaptic current is known already."""
        out, self.after[name] = cell.from_current(current, self.before.get(name))
        return out


class CSPBlock(nn.Module):
    """Cross-stage partial block of YOLOv4-tiny: [B, C, H, W] -> (max-pooled [B, 2C, H/2, W/2], feature map [B, C, H, W]).

    The second half of the block's channels goes through `1 + depth` 3x3 cells; pooling and concatenation act on spikes (a pooled spike is
    an OR).
    """

    def __init__(self, channels: int, units: Units, depth: int = 1) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = conv_cell(channels, channels, 3, units, bias=False)
        self.conv2 = conv_cell(half, half, 3, units, bias=False)
        self.inner = nn.ModuleList(conv_cell(half, half, 3, units, bias=False) for _ in range(depth))
        self.conv4 = conv_cell(channels, channels, 1, units, bias=False)

    def forward(self, x: Tensor, run: StepRunner, name: str) -> tuple[Tensor, Tensor]:
        whole = run(f"{name}.conv1", self.conv1, x)
        first = run(f"{name}.conv2", self.conv2, whole.chunk(2, 1)[1])
        inner = first
        for i, cell in enumerate(self.inner):
            inner = run(f"{name}.inner.{i}", cell, inner)  # type: ignore[arg-type]
        feature = run(f"{name}.conv4", self.conv4, torch.cat([inner, first], 1))
        pooled = [spike_pool(x) for x in (whole, feature)]  # before they are joined: a quarter of the memory moved
        return torch.cat(pooled, 1), feature
