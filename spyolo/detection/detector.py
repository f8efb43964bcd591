"""SpikingYOLO: backbone, neck, heads. One call is one time step; the state goes in and comes out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spyolo.detection.anchors import DEFAULT_ANCHORS, DEFAULT_MASKS, anchors_per_scale
from spyolo.detection.backbone import Backbone
from spyolo.detection.blocks import CellStates, StepRunner, Units
from spyolo.detection.head import Head, ReadoutState
from spyolo.detection.neck import Neck
from spyolo.neurons import LTCUnit

Predictions = tuple[Tensor, ...]  # logits of each scale, stride 16 first: [B, A * (5 + classes), H, W]


class DetectorState(NamedTuple):
    """State of a detector between two steps."""

    cells: CellStates
    readouts: tuple[ReadoutState | None, ...]


@dataclass(frozen=True)
class DetectorSpec:
    """All that is needed to build a detector again; stored with its weights."""

    name: str = "spyv4_lite"
    num_classes: int = 20
    width: float = 1.0
    depth: int = 1
    in_channels: int = 3
    readout: str = "leaky"
    units: Units = field(default_factory=Units)
    anchors: tuple[tuple[float, float], ...] = DEFAULT_ANCHORS
    masks: tuple[tuple[int, ...], ...] = DEFAULT_MASKS

    @property
    def events(self) -> bool:
        """Whether it takes windows of an event camera, one a step, rather than pictures."""
        return self.in_channels == 2

    @property
    def stepped(self) -> bool:
        """Whether it is a choice how many steps it is shown something: a picture, and units that remember."""
        return self.units.spiking and not self.events

    def __post_init__(self) -> None:
        for name, least in (("num_classes", 1), ("depth", 0), ("in_channels", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.width > 0:
            raise ValueError(f"width must be positive, got {self.width}")
        if not self.units.threshold > 0:
            raise ValueError(f"threshold must be positive, got {self.units.threshold}")


class SpikingYOLO(nn.Module):
    """Detector of LTC spiking neurons (or, with LeakyReLU units, its ANN twin YOLOv4-tiny).

    Attributes:
        spec: what it was built from.
        strides: (16, 32), of the two scales in the order of the predictions.
    """

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = Backbone(spec.units, spec.width, spec.depth, spec.in_channels)
        self.neck = Neck(self.backbone.out_channels, spec.units)
        shapes = anchors_per_scale(spec.anchors, spec.masks)
        self.strides = self.backbone.strides
        if len(shapes) != len(self.strides):
            raise ValueError(f"masks must name the anchors of {len(self.strides)} scales, got {len(shapes)}: {spec.masks}")
        for seed, unit in enumerate(m for m in self.modules() if isinstance(m, LTCUnit)):
            unit.seed = seed  # with `start="uniform"`, layers of one shape shall not start alike
        self.heads = nn.ModuleList(
            Head(c, len(a), spec.num_classes, spec.readout) for c, a in zip(self.neck.out_channels, shapes, strict=True)
        )
        for i, a in enumerate(shapes):  # fractions of the input size; not weights, so not saved
            self.register_buffer(f"anchors{i}", a, persistent=False)

    @property
    def anchors(self) -> list[Tensor]:
        """Each scale's anchors [A, 2] as fractions of the input's longer side."""
        return [getattr(self, f"anchors{i}") for i in range(len(self.strides))]

    @property
    def spiking(self) -> bool:
        return self.spec.units.spiking

    def steps_of(self, timesteps: int) -> int:
        """How many of T steps on a still picture say something: units that do not spike say the same at each."""
        return timesteps if self.spiking else 1

    def encode(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] (uint8, or float in [0, 1]) -> the encoder's current. H and W must be multiples of 32."""
        h, w = images.shape[-2:]
        if h % 32 or w % 32:
            raise ValueError(f"input sides must be multiples of 32, got {w} x {h}")
        if images.dtype == torch.uint8:
            images = images.to(self.heads[0].conv.weight.dtype).div(255)  # type: ignore[union-attr, arg-type]
        return self.backbone.encode(images)

    def step(self, current: Tensor, state: DetectorState | None = None) -> tuple[Predictions, DetectorState]:
        """One time step from the encoder's current (see `encode`)."""
        run = StepRunner(None if state is None else state.cells)
        features = self.neck(*self.backbone(current, run), run)
        readouts = [None] * len(features) if state is None else state.readouts
        pairs = [head(x, r) for head, x, r in zip(self.heads, features, readouts)]
        return tuple(p for p, _ in pairs), DetectorState(run.after, tuple(r for _, r in pairs))

    def forward(self, images: Tensor, state: DetectorState | None = None) -> tuple[Predictions, DetectorState]:
        """One time step: [B, 3, H, W] and the state before (None: neurons at rest) -> logits of each scale, and the state after."""
        return self.step(self.encode(images), state)

    def run(self, images: Tensor, timesteps: int) -> Iterator[tuple[Predictions, DetectorState]]:
        """Show still pictures for `timesteps` steps; yields what each step says. The encoder's current is computed once."""
        current, state = self.encode(images), None
        for _ in range(timesteps):
            predictions, state = self.step(current, state)
            yield predictions, state
