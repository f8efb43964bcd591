"""Operations of one call of a convolution or linear layer, counted exactly from its operand.

A value of the operand goes into as many products as kernel positions see it, times the output channels of its group. That fan-out depends
on the place only (less at the border, less with strides), so it is worked out once for a shape, and counting is one weighted sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from spyolo.evaluation.tallies import Tally

MEASURED = ("nonzero", "binary_values", "macs", "macs_nonzero", "acs")  # what depends on values in a Tally, in the order of `measure`


PIECE = 1 << 17  # values looked at together on a CPU


def is_synapse(module: nn.Module) -> bool:
    """Whether its operations can be counted here: Conv1d, Conv2d, Conv3d, Linear and what derives from them."""
    return isinstance(module, nn.Linear | _ConvNd) and not isinstance(module, _ConvTransposeNd)


@dataclass(frozen=True)
class FanOut:
    """How many products read a value of the operand, by its place."""

    places: Tensor  # int64 kernel positions that see each place: [H, W] for a 2-D convolution, [] for a linear layer
    total: int  # sum of `places`
    outputs: int  # output channels that each of them feeds


def side_fan_out(size: int, kernel: int, stride: int, dilation: int, padding: tuple[int, int], mode: str = "zeros") -> Tensor:
    """Kernel positions that see each of `size` places along one side, [size] int64. Padding with zeros feeds nothing."""
    numbered = torch.arange(1.0, size + 1).view(1, 1, -1)  # from 1, so that padding shows as 0
    padded = nn.functional.pad(numbered, padding, mode="constant" if mode == "zeros" else mode).long().flatten()
    outputs = (len(padded) - dilation * (kernel - 1) - 1) // stride + 1
    seen = padded[torch.arange(outputs).view(-1, 1) * stride + torch.arange(kernel) * dilation]
    return torch.bincount(seen.flatten(), minlength=size + 1)[1:]


def fan_out(layer: Any, shape: torch.Size, device: torch.device) -> FanOut:
    """Of a synapse whose operand has this shape, [B, C, ...] for a convolution, [..., features] for a linear layer."""
    places = torch.ones((), dtype=torch.int64)
    if isinstance(layer, nn.Linear):
        return FanOut(places.to(device), 1, layer.out_features)
    for axis, size in enumerate(shape[-len(layer.kernel_size) :]):
        kernel, dilation = layer.kernel_size[axis], layer.dilation[axis]
        spare = {"valid": 0, "same": dilation * (kernel - 1)}.get(layer.padding) if isinstance(layer.padding, str) else None
        sides = (layer.padding[axis],) * 2 if spare is None else (spare // 2, spare - spare // 2)
        places = places.unsqueeze(-1) * side_fan_out(size, kernel, layer.stride[axis], dilation, sides, layer.padding_mode)
    return FanOut(places.to(device), int(places.sum()), layer.out_channels // layer.groups)


def geometry(layer: Any, fan: FanOut, shape: torch.Size, outputs: int) -> Tally:
    """What follows from shapes alone, for an operand of `shape` and a result of `outputs` values."""
    per_output = layer.weight[0].numel()
    in_front = shape[: len(shape) - fan.places.dim()].numel()  # pictures times channels; for a linear layer all values
    return Tally(rows=shape[0], dense_macs=outputs * per_output, connections=in_front * fan.total * fan.outputs, values=shape.numel())


def is_binary(x: Tensor) -> Tensor:
    """Of each row (picture) of x [B, ...], whether every value of it is 0 or 1: bool [B] on x's device."""
    row = x[0].numel() if len(x) else 0
    if not x.is_cpu or row <= PIECE:
        return _zeros_and_ones(x.reshape(len(x), -1))
    # No device to wait for here: pieces stay in the cache, and the first one of a real operand spares the others.
    pieces = (row.reshape(1, -1).split(PIECE, 1) for row in x)
    return torch.tensor([all(bool(_zeros_and_ones(piece)) for piece in row) for row in pieces])


def _zeros_and_ones(x: Tensor) -> Tensor:
    """Of each row of x [B, N]. x - x x is exactly zero for 0 and 1, and for no other number."""
    if not x.numel():
        return torch.ones(len(x), dtype=torch.bool, device=x.device)
    low, high = torch.aminmax(torch.addcmul(x, x, x, value=-1), dim=1)
    return (low == 0) & (high == 0)


def nonzero_at(x: Tensor, inner: tuple[int, ...], binary: Tensor) -> Tensor:
    """How many values of each row are not zero at each place, summed over the dimensions `inner`, int64 [B, places]."""
    if not inner:
        return x.bool().long()
    wide = torch.promote_types(x.dtype, torch.float32)
    if x.is_cpu and bool(binary.all()) and math.prod(x.shape[axis] for axis in inner) < 1 / torch.finfo(wide).eps:
        return x.sum(inner, dtype=wide).long()  # several times as fast, and exact: whole numbers
    return x.bool().view(torch.uint8).sum(inner, dtype=torch.int32).long()


def measure(x: Tensor, fan: FanOut, tally: Tally) -> Tensor:
    """What depends on the operand's values, as int64 [5] on its device, in the order of MEASURED. Each row (picture) is judged by itself:
    what it costs does not depend on those beside it.

    On the meta device there are none: the operand counts as real numbers, none of them zero, as in a plain network.
    """
    if x.is_meta:
        return torch.tensor([tally.values, 0, tally.dense_macs, tally.connections, 0])
    binary = is_binary(x)
    at = nonzero_at(x, tuple(range(1, x.dim() - fan.places.dim())), binary)
    rows = max(1, len(x))
    reached = (at * fan.places).reshape(len(x), -1).sum(1) * fan.outputs
    ones = binary.sum()
    values, macs = ones * (tally.values // rows), (len(x) - ones) * (tally.dense_macs // rows)
    return torch.stack([at.sum(), values, macs, (reached * ~binary).sum(), (reached * binary).sum()])
