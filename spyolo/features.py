"""The spiking backbone for other people's detectors and classifiers: pictures in, feature maps out, the time steps folded away inside.

    body = spyolo.backbone("spyv4_lite", out_indices=(2, 3, 4), timesteps=1, pretrained="spyv4_lite_voc")  # T as they were trained
    maps = body(images)                                            # three maps; nothing is remembered between two calls
    detector = FCOS(with_fpn(body, 128), num_classes=20, image_mean=[0] * 3, image_std=[1] * 3, ...)    # docs/reuse.md has it whole

Inside `with carry_state(detector):` each call is one time step of a sequence instead: online learning (FPTT) and streams.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from spyolo.checkpoint import load_detector
from spyolo.detection import DetectorSpec, detector_spec
from spyolo.detection.backbone import Backbone
from spyolo.detection.blocks import CellStates, StepRunner
from spyolo.detection.head import ReadoutState
from spyolo.errors import InputError
from spyolo.neurons import LTCUnit, detach, leaky_readout_step
from spyolo.published import read_manifest

FOLDS = ("mean", "last", "learned")
# What can be put out, finest first: layer, reduction.
LAYERS = (("conv1", 2), ("block1.conv4", 4), ("block2.conv4", 8), ("block3.conv4", 16), ("conv3", 32))


class FeatureState(NamedTuple):
    """State of a backbone between two steps."""

    cells: CellStates
    readouts: tuple[ReadoutState, ...]  # of each map put out


class FeatureInfo:
    """What timm's `feature_info` says of each map: `channels()`, `reduction()`, `module_name()`."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.rows[i]

    def channels(self) -> list[int]:
        return [row["num_chs"] for row in self.rows]

    def reduction(self) -> list[int]:
        return [row["reduction"] for row in self.rows]

    def module_name(self) -> list[str]:
        return [row["module"] for row in self.rows]


class _Enough(Exception):
    """All maps asked for are there: the layers behind them need not run."""


class _Recorder(StepRunner):
    """Keeps the outputs of some cells."""

    def __init__(self, before: CellStates | None, wanted: Sequence[str]) -> None:
        super().__init__(before)
        self.wanted = wanted
        self.found: dict[str, Tensor] = {}

    def __call__(self, name: str, cell: Any, x: Tensor) -> Tensor:
        return self.keep(name, super().__call__(name, cell, x))

    def from_current(self, name: str, cell: Any, current: Tensor) -> Tensor:
        return self.keep(name, super().from_current(name, cell, current))

    def keep(self, name: str, output: Tensor) -> Tensor:
        if name in self.wanted:
            self.found[name] = output
            if len(self.found) == len(self.wanted):
                raise _Enough
        return output


class SpikingBackbone(nn.Module):
    """Feature maps of pictures. See `backbone`, which builds it.

    Attributes:
        body: the backbone as the detectors have it.
        out_channels: channels of each map.
        strides: pixels a cell of each map.
        feature_info: the same under timm's names.
        timesteps: how many steps a call shows its pictures.
    """

    def __init__(
        self, spec: DetectorSpec, out_indices: Sequence[int] = (2, 3, 4), *, timesteps: int = 3, fold: str = "mean",
        features_only: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if fold not in FOLDS:
            raise ValueError(f"fold must be one of {', '.join(FOLDS)}; got {fold!r}")
        if timesteps < 1:
            raise ValueError(f"timesteps must be at least 1, got {timesteps}")
        indices = tuple(i + len(LAYERS) if i < 0 else i for i in out_indices)
        if not indices or list(indices) != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < len(LAYERS):
            raise ValueError(f"out_indices must be rising numbers from 0 to {len(LAYERS) - 1}, got {tuple(out_indices)}")
        self.spec, self.fold, self.features_only = spec, fold, features_only
        self.timesteps = timesteps if spec.units.spiking else 1
        self.body = Backbone(spec.units, spec.width, spec.depth, spec.in_channels)
        for seed, unit in enumerate(m for m in self.body.modules() if isinstance(m, LTCUnit)):
            unit.seed = seed  # as in SpikingYOLO
        self.wanted = tuple(f"backbone.{LAYERS[i][0]}" for i in indices)
        self.out_channels = [self._channels(LAYERS[i][0]) for i in indices]
        self.strides = [LAYERS[i][1] for i in indices]
        rows = zip(self.out_channels, self.strides, indices)
        self.feature_info = FeatureInfo([{"num_chs": c, "reduction": s, "module": LAYERS[i][0], "index": i} for c, s, i in rows])
        self.leaks = nn.ParameterList(nn.Parameter(torch.zeros(c)) for c in self.out_channels) if fold == "learned" else None
        self._freeze_behind(indices[-1])

    def _channels(self, layer: str) -> int:
        return self.body.get_submodule(layer).synapse.conv.out_channels  # type: ignore[union-attr, return-value]

    def _freeze_behind(self, index: int) -> None:
        """Layers behind the last map are kept (weights files have them) but never run: they shall not look trainable."""
        for layer in ("conv1", "conv2", "block1", "block2", "block3", "conv3")[{0: 1, 1: 3, 2: 4, 3: 5, 4: 6}[index] :]:
            self.body.get_submodule(layer).requires_grad_(False)

    def forward(self, images: Tensor) -> Any:
        """Pictures [B, 3, H, W] (uint8, or float in [0, 1]) shown for `timesteps` steps from rest -> the maps of all steps folded into one.

        Returns:
            OrderedDict "0", "1", ... of [B, C, H / stride, W / stride] (torchvision's contract), or with `features_only` a list (timm's).
        """
        carried = _CARRIED.get().get(id(self))
        if carried is None:
            maps, _ = self.run(images, None, self.timesteps)
        else:
            maps = carried.advance(self, images)
        return maps if self.features_only else OrderedDict((str(i), m) for i, m in enumerate(maps))

    def run(self, images: Tensor, state: FeatureState | None, steps: int) -> tuple[list[Tensor], FeatureState]:
        """`steps` steps from `state` -> the folded maps after them, and the state after, both with their graph."""
        if images.dtype == torch.uint8:
            images = images.to(next(self.body.parameters()).dtype).div(255)
        current = self.body.encode(images)
        cells = None if state is None else state.cells
        readouts: list[ReadoutState | None] = [None] * len(self.wanted) if state is None else list(state.readouts)
        for _ in range(steps):
            run = _Recorder(cells, self.wanted)
            with suppress(_Enough):
                self.body(current, run)
            cells = run.after
            readouts = [self._read(i, run.found[name], before) for i, (name, before) in enumerate(zip(self.wanted, readouts))]
        done = tuple(r for r in readouts if r is not None)
        return [r.o for r in done], FeatureState(cells or {}, done)

    def _read(self, i: int, x: Tensor, before: ReadoutState | None) -> ReadoutState:
        """Fold one more step into map `i`: fp32 (or wider), as all states."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        t = torch.ones((), device=x.device) if before is None else before.t + 1
        if self.fold == "last" or before is None:
            return ReadoutState(x, t)
        fraction = 1 / t.to(x.dtype) if self.leaks is None else torch.sigmoid(self.leaks[i]).view(-1, 1, 1)
        return ReadoutState(leaky_readout_step(x, before.o, fraction), t)


class carry_state:  # written small: a context manager reads like a function
    """Inside, each call of the backbone is the next time step of one sequence; the state is kept here, not in the module.

        with carry_state(detector) as carried:
            for _ in range(timesteps):                   # FPTT: one update a step, memory of one step
                losses = detector(images, targets)
                ...backward, rule.step()
        with carry_state(detector):                      # a film: one step a frame
            for frame in frames: found = detector([frame])

    The state is detached after each call. To go back (a second forward of the same step), keep `carried.state` and put it back.

    Args:
        module: a backbone, or anything with one inside.
        steps: steps a call.

    Raises:
        ValueError: no backbone of ours inside, or several; in a call: a batch of another shape than the one before.
    """

    def __init__(self, module: nn.Module, steps: int = 1) -> None:
        found = [m for m in module.modules() if isinstance(m, SpikingBackbone)]
        if len(found) != 1:
            raise ValueError(f"carry_state needs a module with one spiking backbone inside, {type(module).__name__} has {len(found)}")
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        self.backbone, self.steps = found[0], steps
        self.state: FeatureState | None = None
        self.shape: torch.Size | None = None

    def __enter__(self) -> carry_state:
        self.state = self.shape = None  # entered again, it begins another sequence
        self._token = _CARRIED.set({**_CARRIED.get(), id(self.backbone): self})
        return self

    def __exit__(self, *error: object) -> None:
        _CARRIED.reset(self._token)

    def advance(self, backbone: SpikingBackbone, images: Tensor) -> list[Tensor]:
        """The next steps of the sequence: maps with the graph of these steps alone."""
        if self.shape is not None and images.shape != self.shape:
            was, now = (" x ".join(map(str, s)) for s in (self.shape, images.shape))
            raise ValueError(f"the state carried is of a batch [{was}], this one is [{now}]; open a new carry_state for a new sequence")
        maps, state = backbone.run(images, self.state, self.steps)
        self.state, self.shape = detach(state), images.shape
        return maps


_CARRIED: ContextVar[dict[int, carry_state]] = ContextVar("carried", default={})  # noqa: B039 (never changed in place)


class BackboneFPN(nn.Module):
    """A backbone and a feature pyramid on its maps, for torchvision's FCOS, RetinaNet and FasterRCNN. See `with_fpn`."""

    def __init__(self, body: SpikingBackbone, out_channels: int, extra_blocks: ExtraFPNBlock | None) -> None:
        super().__init__()
        if body.features_only:
            raise ValueError("a pyramid takes a backbone without features_only: it names its maps")
        self.body, self.out_channels = body, out_channels
        self.fpn = FeaturePyramidNetwork(body.out_channels, out_channels, extra_blocks)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.fpn(self.body(images))


def with_fpn(body: SpikingBackbone, out_channels: int = 256, extra_blocks: ExtraFPNBlock | None = None) -> BackboneFPN:
    """What torchvision's `BackboneWithFPN` is to its own backbones: all maps with `out_channels` channels, top-down."""
    return BackboneFPN(body, out_channels, extra_blocks)


def backbone(
    name: str = "spyv4_lite", out_indices: Sequence[int] = (2, 3, 4), *, timesteps: int | None = None, fold: str = "mean",
    pretrained: str | Path | bool | None = None, features_only: bool = False, **options: Any,
) -> SpikingBackbone:  # fmt: skip
    """A detector's backbone for use elsewhere.

    Args:
        name: `spyv4`, `spyv4_lite` or `yolov4_tiny`.
        out_indices: which maps, of 0 to 4: strides 2, 4, 8, 16, 32. Negative ones count from the end.
        timesteps: steps a picture is shown; None: as the weights were trained, or 3.
        fold: `mean` of the steps, `last` one, or `learned`: a leaky integral with one learned fraction a channel.
        pretrained: weights by name or path, checked against their checksum; True: the published ones of this detector, of several the
            most accurate.
        features_only: give a list of maps, as timm's models do, instead of torchvision's dictionary.
        options: of the detector, such as `width`; with `pretrained` the file says them.

    Raises:
        ValueError: an unknown name, option, fold or index, or fewer timesteps than one.
        InputError: weights that are not known, not whole, or of another detector.
    """
    how: dict[str, Any] = {"fold": fold, "features_only": features_only}
    if not pretrained:
        return SpikingBackbone(detector_spec(name, **options), out_indices, timesteps=3 if timesteps is None else timesteps, **how)
    source = published(name) if pretrained is True else pretrained
    detector, info = load_detector(source)
    wanted = detector_spec(name, **{"num_classes": info.spec.num_classes} | options)
    if info.spec.name != name:
        raise InputError(f"{source}: weights of {info.spec.name}, but the backbone asked for is {name}")
    for option in options:
        here, there = (getattr(s if hasattr(s, option) else s.units, option) for s in (wanted, info.spec))
        if here != there:
            raise InputError(f"{source}: its {option} is {there}, not {here}; leave {option} out: the file says it")
    made = SpikingBackbone(info.spec, out_indices, timesteps=info.timesteps if timesteps is None else timesteps, **how)
    made.body.load_state_dict(detector.backbone.state_dict())
    return made


def published(name: str) -> str:
    """The published weights of a detector; of several those with the highest VOC10+ AP50.

    Raises:
        InputError: there are none.
    """
    known = read_manifest()
    fitting = [entry for entry in known.values() if entry.config.get("name") == name]
    if not fitting:
        raise InputError(f"no published weights of {name}; there are {', '.join(sorted(known)) or 'none at all'}")
    return max(fitting, key=lambda entry: entry.metrics.get("voc10_ap50") or 0.0).name
