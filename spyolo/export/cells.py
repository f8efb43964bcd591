"""Cells as ONNX nodes: synapse, gate and LTC step, with norms folded into the convolutions before them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spyolo.errors import InputError
from spyolo.export.graph import Wire, Writer
from spyolo.neurons import Cell, ConvGate, LeakyReLUUnit, LTCUnit, StaticGate


def folded(conv: nn.Conv2d, norm: nn.Module | None) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a convolution that does the work of both, worked out in float64."""
    weight = conv.weight.detach().double()
    bias = torch.zeros(len(weight), dtype=torch.float64) if conv.bias is None else conv.bias.detach().double()
    if isinstance(norm, nn.BatchNorm2d):
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = weight * scale.view(-1, 1, 1, 1)
        bias = (bias - norm.running_mean.double()) * scale + norm.bias.detach().double()
    elif norm is not None:
        raise InputError(f"export cannot fold a {type(norm).__name__} into the convolution before it")
    return weight.cpu().numpy(), bias.cpu().numpy()


def convolve(writer: Writer, x: Wire, conv: nn.Conv2d, norm: nn.Module | None, name: str) -> Wire:
    """Convolution and norm. `name` names the weights, which every unrolled step shares."""
    weight, bias = folded(conv, norm)
    pads = [int(p) for p in conv.padding] * 2
    return x.op(
        "Conv", writer.constant(weight, name=f"{name}.weight"), writer.constant(bias, name=f"{name}.bias"),
        kernel_shape=list(conv.kernel_size), strides=list(conv.stride), pads=pads, group=conv.groups,
    )  # fmt: skip


def synapse(writer: Writer, x: Wire, module: nn.Module, name: str) -> Wire:
    """conv, norm and (where the current is resampled) upsampling, as `detection.blocks.conv_cell` builds them."""
    parts = dict(module.named_children())
    if "conv" not in parts or not set(parts) <= {"conv", "norm", "upsample"}:
        raise InputError(f"export does not know the synapse of {name}: {', '.join(parts) or type(module).__name__}")
    current = convolve(writer, x, parts["conv"], parts.get("norm"), f"{name}.conv")  # type: ignore[arg-type]
    if "upsample" in parts:
        scales = writer.constant([1, 1, 2, 2], name="upsample.scales")
        how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        current = current.op("Resize", "", scales, **how)
    return current


def gate(writer: Writer, module: nn.Module, current: Wire, u: Wire | None, name: str) -> Wire:
    """tau in (0, 1)."""
    if isinstance(module, StaticGate):
        tau = torch.sigmoid(module.logit.detach().double()).view(1, -1, 1, 1)
        return writer.constant(tau.cpu().numpy(), name=f"{name}.tau")
    if isinstance(module, ConvGate):
        return convolve(writer, current if u is None else current + u, module.conv, module.norm, f"{name}.conv").sigmoid()
    raise InputError(f"export does not know the gate {type(module).__name__} of {name}")


def unit(writer: Writer, module: nn.Module, current: Wire, u: Wire | None, name: str) -> tuple[Wire, Wire | None]:
    """What the neurons make of a current: output, and the membrane after (None for units without state).

    Args:
        u: membrane before; None for neurons at rest, u = 0.
    """
    if isinstance(module, LeakyReLUUnit):
        return current.op("LeakyRelu", alpha=0.1), None
    if not isinstance(module, LTCUnit) or module.adaptation_gate is not None:
        raise InputError(f"export does not know the unit of {name}: {type(module).__name__} with these options")
    tau = gate(writer, module.gate, current, u, f"{name}.gate")
    v = tau * current if u is None else u + tau * (current - u)
    fired = v.op("Greater", writer.constant(module.threshold, name=f"{name}.threshold"))
    u_after = fired.op("Where", writer.constant(0.0, name="zero"), v)
    return fired.op("Cast", to=1), u_after  # 1 is FLOAT


class GraphRunner:
    """Stands in for `detection.blocks.StepRunner`: draws the cells of one time step instead of running them.

    Args:
        before: membranes before the step by name of cell; a cell that is missing starts as its unit says.
        starts: membrane [1, C, H, W] of cells that do not start at zero.
        forced: spikes by name of cell that stand in for its own at the cells behind it (comparing layer by layer).

    Attributes:
        after: membranes after the step.
        spikes: every cell's output.
    """

    def __init__(
        self, writer: Writer, before: dict[str, Wire], starts: dict[str, Tensor], forced: dict[str, Wire] | None = None
    ) -> None:
        self.writer, self.before, self.starts, self.forced = writer, before, starts, forced or {}
        self.after: dict[str, Wire] = {}
        self.spikes: dict[str, Wire] = {}

    def __call__(self, name: str, cell: Cell, x: Wire) -> Wire:
        if cell.recurrent is not None:
            raise InputError(f"export does not know recurrent cells such as {name}")
        self.writer.scope = f"{name}/"
        return self.from_current(name, cell, synapse(self.writer, x, cell.synapse, f"{name}.synapse"))

    def from_current(self, name: str, cell: Cell, current: Any) -> Wire:
        self.writer.scope = f"{name}/"
        u = self.before.get(name)
        if u is None and name in self.starts:
            u = self.writer.constant(self.starts[name].cpu().numpy(), name=f"{name}.start")
        self.spikes[name], after = unit(self.writer, cell.unit, current, u, f"{name}.unit")
        if after is not None:
            self.after[name] = after
        self.writer.scope = ""
        return self.forced.get(name, self.spikes[name])
