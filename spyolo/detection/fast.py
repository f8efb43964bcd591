"""Detectors made for looking only: norms folded away, weights packed once, each layer's gate and step in one visit to memory.

    fast = fuse(detector, "int8")   # then as any detector: fast.run(images, 8), fast.step(...), Predictor(fast, info)

`fuse` gives back a detector with the same methods and the same kind of state. What differs from the plain path: in `fp64` and `fp32` only
the order of operations; in `bf16` the precision of weights and currents (membranes stay fp32), as under autocast; in `int8` the weights of
the convolutions that read spikes have eight bits (one scale an output channel), while the spikes, 0 or 1, and the sums are exact.
A CPU without bf16 instructions takes `bf16` as `fp32`, and `int8` with currents in fp32.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from spyolo.detection.blocks import CellStates
from spyolo.detection.detector import DetectorState, Predictions, SpikingYOLO
from spyolo.neurons import Cell, LTCState, LTCUnit, has_bf16, native, norms
from spyolo.neurons.fused import check_shapes
from spyolo.neurons.gates import ConvGate, StaticGate

PRECISIONS = ("fp64", "fp32", "bf16", "int8")
CPU = torch.device("cpu")


def dtype_of(precision: str) -> torch.dtype:
    """Of currents."""
    if precision == "int8":  # bf16 takes half the memory of fp32, where it costs nothing
        return torch.bfloat16 if has_bf16(CPU) else torch.float32
    return {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def fuse(detector: SpikingYOLO, precision: str = "fp32") -> SpikingYOLO:
    """A detector for inference that sees the same; `detector` itself is left as it is.

    The fast path is for LTC detectors on a CPU and needs a C++ compiler, once. Elsewhere the norms alone are folded, channels-last, and
    the precision is the caller's (autocast); a warning says why. Its `precision` is what it runs in: `fp32` where `bf16` was asked of a CPU
    without bf16 instructions, with a warning too.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    folded = fold(detector)
    reason = obstacle(folded)
    if reason:
        warnings.warn(f"no fast path here ({reason}): norms are folded, the rest runs as it is", stacklevel=2)
        return folded
    if precision == "bf16" and not has_bf16(CPU):
        warnings.warn("this CPU has no bf16 instructions: the fast path takes fp32", stacklevel=2)
        precision = "fp32"
    return FastDetector(folded, precision)


def obstacle(detector: SpikingYOLO) -> str:
    """Why this detector cannot take the fast path; empty if it can."""
    if detector.spec.units.kind == "relu":
        return "its units do not spike"
    device = next(detector.parameters()).device
    if device.type != "cpu":
        return f"it is on {device.type}"
    return native.why_not()


def fold(detector: SpikingYOLO) -> SpikingYOLO:
    """A copy in evaluation mode, channels-last, whose norms are folded into the convolutions before them."""
    folded = copy.deepcopy(detector).eval()
    for module in folded.modules():
        if isinstance(module, Cell):
            module.synapse.conv, module.synapse.norm = folded_pair(module.synapse.conv, module.synapse.norm)
        elif isinstance(module, ConvGate):
            conv, module.norm = folded_pair(module.conv, module.norm)
            module.conv = conv  # type: ignore[assignment]
    assert not norms(folded)
    return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def folded_pair(conv: Any, norm: Any) -> tuple[nn.Module, nn.Module]:
    return (conv, norm) if isinstance(norm, nn.Identity) else (fuse_conv_bn_eval(conv, norm), nn.Identity())


class PackedConv:
    """A convolution with its weights in the order the processor wants them.

    Args:
        conv: with the weights.
        dtype: of the outputs, and of the inputs unless `spikes8`.
        spikes8: inputs are spikes in uint8, weights int8 with a scale for each output channel.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype, spikes8: bool = False) -> None:
        weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
        self.bias = torch.zeros(weight.shape[0], dtype=weight.dtype) if conv.bias is None else conv.bias.detach()
        self.geometry = list(conv.stride), list(conv.padding), list(conv.dilation)  # type: ignore[arg-type]
        self.groups, self.dtype, self.spikes8 = conv.groups, dtype, spikes8
        if spikes8:
            self.scale = weight.float().abs().amax((1, 2, 3)).clamp(min=1e-12) / 127
            whole = (weight.float() / self.scale.view(-1, 1, 1, 1)).round().to(torch.int8)
            self.zero = torch.zeros(len(self.scale), dtype=torch.int64)
            self.weight = torch.ops.onednn.qconv_prepack(whole, self.scale, 1.0, 0, *self.geometry, self.groups, None)
            self.bias = self.bias.float()
            return
        self.weight, self.bias = weight.to(dtype), self.bias.to(dtype)
        self.packed = dtype == torch.bfloat16 and self.groups == 1 and torch.backends.mkldnn.is_available()
        if self.packed:
            stride, padding, dilation = self.geometry
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight, padding, stride, dilation, self.groups, None)

    def __call__(self, x: Tensor) -> Tensor:
        stride, padding, dilation = self.geometry
        if self.spikes8:
            return torch.ops.onednn.qconv2d_pointwise(  # type: ignore[no-any-return]
                x, 1.0, 0, self.weight, self.scale, self.zero, self.bias, stride, padding, dilation, self.groups, 1.0, 0, self.dtype,
                "none", [None], "",
            )  # fmt: skip
        if self.packed:
            return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
                x, self.weight, self.bias, padding, stride, dilation, self.groups, "none", [], ""
            )
        return conv2d(x, self.weight, self.bias, stride, padding, dilation, self.groups)  # type: ignore[arg-type]


class FastCell:
    """A folded cell: packed convolution, then gate and step by native code.

    Args:
        cell: convolution and LTC unit, norms folded.
        precision: see the module.
        encoder: its convolution reads pictures, not spikes.
    """

    def __init__(self, cell: Cell, precision: str, encoder: bool = False) -> None:
        self.dtype = dtype_of(precision)
        self.spikes = torch.uint8 if precision == "int8" else self.dtype
        self.wide = torch.promote_types(self.dtype, torch.float32)
        synapse: Any = cell.synapse
        unit: LTCUnit = cell.unit
        self.conv = PackedConv(synapse.conv, self.dtype, precision == "int8" and not encoder)
        self.upsample = hasattr(synapse, "upsample")
        self.unit, self.threshold, gate = unit, unit.threshold, unit.gate
        self.channels: int = synapse.conv.out_channels
        self.kernel: Tensor | None = None
        self.gate: PackedConv | None = None
        if isinstance(gate, StaticGate):
            self.bias = gate.logit.detach().to(self.wide)
            return
        assert isinstance(gate, ConvGate) and isinstance(gate.conv, nn.Conv2d)
        conv = gate.conv
        assert conv.bias is not None
        self.bias = conv.bias.detach().to(self.wide)
        if conv.groups == self.channels and conv.kernel_size == (3, 3):
            self.kernel = conv.weight.detach().to(self.wide).view(self.channels, 9).t().contiguous()
        else:
            self.gate = PackedConv(conv, self.dtype)
            self.bias = torch.zeros_like(self.bias)  # the convolution adds it

    def current(self, x: Tensor) -> Tensor:
        """The synaptic current, channels-last."""
        out = self.conv(x)
        if self.upsample:
            out = interpolate(out, scale_factor=2, mode="nearest")
        return out.contiguous(memory_format=torch.channels_last)

    def room(self, current: Tensor) -> Tensor:
        """Memory for the spikes."""
        return torch.empty_like(current, dtype=self.spikes, memory_format=torch.channels_last)

    def fire(self, current: Tensor, state: LTCState | None, spikes: Tensor, copy: Tensor | None = None, copy_from: int = 0) -> LTCState:
        """The unit on a known current: writes `spikes` and the `copy` of those from channel `copy_from` on.

        Raises:
            ValueError: a state of another shape than the current.
        """
        check_shapes(current, state)  # native code gets bare addresses: it would read whatever lies behind the state
        if state is None and self.unit.start != "zeros":
            state = self.unit.initial_state(current)
        u = None if state is None else state.u.to(self.wide).contiguous(memory_format=torch.channels_last)
        logit = None if self.gate is None else self.gate(current if u is None else self.sum(current, u))
        if logit is not None:
            logit = logit.contiguous(memory_format=torch.channels_last)
        after = native.ltc_layer(
            current, u, self.bias, spikes, self.threshold, kernel=self.kernel, logit=logit, copy=copy, copy_from=copy_from
        )
        return LTCState(after, spikes)

    def sum(self, current: Tensor, u: Tensor) -> Tensor:
        return native.add_bf16(current, u) if current.dtype == torch.bfloat16 else current + u


class Run:
    """One step of the fast path: the states before by name, and those after."""

    def __init__(self, cells: dict[str, FastCell], before: CellStates) -> None:
        self.cells, self.before = cells, before
        self.after: CellStates = {}

    def __call__(self, name: str, x: Tensor, spikes: Tensor | None = None, copy: Tensor | None = None, copy_from: int = 0) -> Tensor:
        """Spikes of the cell on input spikes x."""
        return self.from_current(name, self.cells[name].current(x), spikes, copy, copy_from)

    def from_current(
        self, name: str, current: Tensor, spikes: Tensor | None = None, copy: Tensor | None = None, copy_from: int = 0
    ) -> Tensor:
        cell = self.cells[name]
        spikes = cell.room(current) if spikes is None else spikes
        self.after[name] = cell.fire(current, self.before.get(name), spikes, copy, copy_from)
        return spikes


class FastDetector(SpikingYOLO):
    """What `fuse` makes of a folded detector; not to be trained, moved or saved."""

    def __init__(self, folded: SpikingYOLO, precision: str) -> None:
        nn.Module.__init__(self)
        self.spec, self.strides, self.precision = folded.spec, folded.strides, precision
        self.dtype = dtype_of(precision)
        self.heads = folded.heads
        for head in self.heads:
            head.conv.to(self.dtype)  # type: ignore[union-attr, operator]
            if precision == "fp64":
                head.to(self.dtype)
        for i, shapes in enumerate(folded.anchors):
            self.register_buffer(f"anchors{i}", shapes, persistent=False)
        self.depth = folded.spec.depth
        self.cells = {
            name: FastCell(cell, precision, name == "backbone.conv1") for name, cell in folded.named_modules() if isinstance(cell, Cell)
        }
        self.eval()

    def train(self, mode: bool = True) -> FastDetector:
        if mode:
            raise ValueError("a fused detector cannot be trained: train the one it was made from")
        super().train(False)
        return self

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        h, w = images.shape[-2:]
        if h % 32 or w % 32:
            raise ValueError(f"input sides must be multiples of 32, got {w} x {h}")
        scale = 255 if images.dtype == torch.uint8 else 1
        images = images.contiguous(memory_format=torch.channels_last).to(self.dtype).div(scale)
        with torch.autocast("cpu", enabled=False):
            return self.cells["backbone.conv1"].current(images)

    @torch.no_grad()
    def step(self, current: Tensor, state: DetectorState | None = None) -> tuple[Predictions, DetectorState]:
        run = Run(self.cells, {} if state is None else state.cells)
        with torch.autocast("cpu", enabled=False):
            x = run.from_current("backbone.conv1", current)
            x = run("backbone.conv2", x)
            for name in ("backbone.block1", "backbone.block2"):
                x = self.block(run, name, x)
            up, joined = self.cells["neck.up"].channels, None
            joined = self.empty(x, up + self.cells["backbone.block3.conv4"].channels)
            x = self.block(run, "backbone.block3", x, joined[:, up:])
            top = run("neck.reduce", run("backbone.conv3", x))
            run("neck.up", top, joined[:, :up])
            features = run("neck.fine", joined), run("neck.coarse", top)
            readouts = [None] * len(features) if state is None else state.readouts
            pairs = [head(x.to(self.dtype), r) for head, x, r in zip(self.heads, features, readouts)]
        return tuple(p for p, _ in pairs), DetectorState(run.after, tuple(r for _, r in pairs))

    def empty(self, like: Tensor, channels: int) -> Tensor:
        """A map for spikes of the size of another."""
        n, _, h, w = like.shape
        return torch.empty((n, channels, h, w), dtype=like.dtype, memory_format=torch.channels_last)

    def block(self, run: Run, name: str, x: Tensor, copy: Tensor | None = None) -> Tensor:
        """A CSP block; its feature map goes to `copy` too. What is joined is written where it is joined."""
        channels = self.cells[f"{name}.conv1"].channels
        half = channels // 2
        tail, joined = self.empty(x, half), self.empty(x, channels)
        whole = run(f"{name}.conv1", x, copy=tail, copy_from=half)
        inner = run(f"{name}.conv2", tail, copy=joined[:, half:])
        if not self.depth:
            joined[:, :half] = inner
        for i in range(self.depth):
            inner = run(f"{name}.inner.{i}", inner, joined[:, :half] if i == self.depth - 1 else None)
        feature = run(f"{name}.conv4", joined, copy=copy)
        return native.pool(whole, feature)
