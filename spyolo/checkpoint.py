"""Weights and training checkpoints as safetensors, written whole or not at all. Nothing is ever unpickled.

A weights file holds a detector's tensors and, in its metadata, all that is needed to build and run it again. A training checkpoint
(`last.safetensors`) holds besides the rule's averages, the EMA and the optimizer's moments.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from spyolo.detection import DetectorSpec, Reading, SpikingYOLO, Units
from spyolo.errors import InputError
from spyolo.files import one_line, shortened
from spyolo.published import resolve
from spyolo.ranges import SIZES, STEPS, check_share, check_whole, share, whole
from spyolo.tensors import is_checkpoint, read_tensors, save_tensors, under

WEIGHTS_OF = ("w", "average", "ema")
OVERLAPS = ("nms_iou", "vote_iou")  # of a reading, what a weights file says
LIMITS = {"num_classes": 100_000, "width": 64, "depth": 64, "in_channels": 1024}  # of a description; a file may claim anything
T = TypeVar("T")


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says of itself."""

    spec: DetectorSpec
    classes: tuple[str, ...]
    size: int = 416
    timesteps: int = 3
    metrics: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    vote_iou: float = 0.0  # with which its boxes are read: see `detection.Reading`
    nms_iou: float = 0.5

    def reading(self, confidence: float, nms_iou: float | None = None, vote_iou: float | None = None, **how: Any) -> Reading:
        """With the overlaps asked for, where None the file's own. `how`: as in `Reading`, which raises."""
        nms_iou, vote_iou = self.nms_iou if nms_iou is None else nms_iou, self.vote_iou if vote_iou is None else vote_iou
        return Reading(confidence, nms_iou, vote_iou, **how)


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, given by its path or by a published name.

    Raises:
        InputError: no such file or published name, a checksum that differs, or not a whole safetensors file.
    """
    return read_tensors(resolve(path))


def info_to_metadata(info: WeightsInfo) -> dict[str, Any]:
    return {"format": "spyolo-1", **dataclasses.asdict(info)}


def info_from_metadata(metadata: Mapping[str, str], path: str | Path) -> WeightsInfo:
    """Read back what `info_to_metadata` wrote.

    Raises:
        InputError: not our file, or a field that is missing or malformed.
    """
    if metadata.get("format", "").startswith("spyolo-sequence"):
        raise InputError(f"{path}: the weights of a sequence network, not of a detector")
    if metadata.get("format") != "spyolo-1":
        raise InputError(f"{path}: its metadata has no spyolo description, so it does not say which detector it belongs to")
    spec = checked_field(metadata, "spec", path, spec_from)
    classes = checked_field(metadata, "classes", path, names_from)
    if len(classes) != spec.num_classes:
        raise InputError(f"{path}: its metadata names {len(classes)} classes, its detector has {spec.num_classes}")
    size = checked_field(metadata, "size", path, lambda v: whole(v, *SIZES))
    timesteps = checked_field(metadata, "timesteps", path, lambda v: whole(v, *STEPS))
    metrics, notes = (checked_field(metadata, k, path, dict) for k in ("metrics", "notes"))
    said = [name for name in OVERLAPS if name in metadata]  # older files do not: the defaults
    reading = {name: checked_field(metadata, name, path, share) for name in said}
    return WeightsInfo(spec, classes, size, timesteps, metrics, notes, **reading)


def is_of_epoch(path: str | Path, epoch: int) -> bool:
    """Whether there is a weights file that a run wrote after so many epochs. One that cannot be read is none: it may be written anew."""
    try:
        return bool(info_from_metadata(load_tensors(path)[1], path).notes.get("epoch") == epoch)
    except InputError:
        return False


def checked_field(metadata: Mapping[str, str], name: str, path: str | Path, read: Callable[[Any], T]) -> T:
    """A field of the metadata, decoded and read. Raises InputError naming the field."""
    if name not in metadata:
        raise InputError(f"{path}: field {name!r} of its metadata is missing")
    try:
        return read(json.loads(metadata[name]))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise InputError(f"{path}: field {name!r} of its metadata is malformed ({one_line(error)})") from error


def spec_from(tree: dict[str, Any]) -> DetectorSpec:
    anchors, masks = (tuple(tuple(row) for row in tree[name]) for name in ("anchors", "masks"))
    for name, most in LIMITS.items():
        if not tree[name] <= most:
            raise ValueError(f"{name} must be at most {most}, not {shortened(tree[name])}")
    return DetectorSpec(**tree | {"units": Units(**tree["units"]), "anchors": anchors, "masks": masks})


def names_from(names: list[str]) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"a list of names is wanted, not {shortened(names)}")
    return tuple(names)


def save_weights(path: str | Path, detector: SpikingYOLO, info: WeightsInfo, dtype: torch.dtype | None = None) -> None:
    """A detector's weights and description; `dtype` (bf16, fp16) halves the file.

    Raises:
        InputError: a size, a number of steps or an overlap with which `load_detector` would refuse the file, or it cannot be written.
    """
    check_whole(f"{path}: size", info.size, *SIZES)
    check_whole(f"{path}: timesteps", info.timesteps, *STEPS)
    for name in OVERLAPS:
        check_share(f"{path}: {name}", getattr(info, name))
    state = {k: v.to(dtype) if dtype and v.is_floating_point() else v for k, v in detector.state_dict().items()}
    save_tensors(path, state, info_to_metadata(info))


def detector_tensors(tensors: Mapping[str, Tensor], weights: str) -> dict[str, Tensor]:
    """A detector's own tensors out of a weights file, or out of a training checkpoint with the chosen weights in place."""
    if not is_checkpoint(tensors):
        return dict(tensors)
    return under("model.", tensors) | (under(f"{weights}.", tensors) if weights != "w" else {})


def load_detector(path: str | Path, *, weights: str = "w", dtype: torch.dtype = torch.float32) -> tuple[SpikingYOLO, WeightsInfo]:
    """A detector, in evaluation mode, and what its file says of it.

    Args:
        path: a weights file, or a training checkpoint.
        weights: of a checkpoint, which ones: `w`, `average` or `ema` (norm statistics are W's: recalibrate for the others).

    Raises:
        InputError: no such file, not ours, or tensors that do not fit the description or are not finite; names the first.
    """
    tensors, metadata = load_tensors(path)
    info = info_from_metadata(metadata, path)
    if weights not in WEIGHTS_OF:
        raise InputError(f"weights must be one of {', '.join(WEIGHTS_OF)}; got {weights!r}")
    if weights != "w" and not any(k.startswith(f"{weights}.") for k in tensors):
        raise InputError(f"{path}: holds one set of weights, not {weights!r} beside it as a training checkpoint (last.safetensors) does")
    state = detector_tensors(tensors, weights)
    try:
        with torch.device("meta"):  # shapes alone: what a file claims is compared with what it holds before anything of that size is made
            wanted = SpikingYOLO(info.spec).state_dict()
    except (ValueError, TypeError, RuntimeError, LookupError, ArithmeticError, AttributeError) as error:
        raise InputError(f"{path}: its description cannot be built: {one_line(error)}") from error
    for name, tensor in wanted.items():
        if name not in state:
            raise InputError(f"{path}: tensor {name} is missing")
        if state[name].shape != tensor.shape:
            raise InputError(f"{path}: tensor {name} has shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}")
        if state[name].is_floating_point() != tensor.is_floating_point():
            raise InputError(f"{path}: tensor {name} is of {state[name].dtype}, expected {tensor.dtype}")
        state[name] = state[name].to(tensor.dtype)
        check_finite(state[name], name, path)
    detector = SpikingYOLO(info.spec)
    detector.load_state_dict({k: v for k, v in state.items() if k in wanted})
    return detector.to(dtype).eval(), info


def check_finite(tensor: Tensor, name: str, path: str | Path) -> None:
    """Raises InputError where a file's tensor of some name holds NaN or infinity."""
    if not bool(tensor.isfinite().all()):
        raise InputError(f"{path}: tensor {name} holds values that are not finite; take an earlier checkpoint")


def check_pictures(spec: DetectorSpec, path: str | Path, because: str) -> None:
    """Raises InputError where a detector takes something else than pictures; `because`: why it must take these, and what to do."""
    if spec.in_channels != 3:
        raise InputError(f"{path}: takes {spec.in_channels} channels (an event camera has 2); {because}")


def other_classes(path: str | Path, classes: tuple[str, ...]) -> str:
    """What to say where a file's heads, as many as a run's, were taught other classes or the same in another order; else nothing.
    Raises InputError: as `load_tensors`, or a list of names that is none."""
    metadata = load_tensors(path)[1]
    theirs = checked_field(metadata, "classes", path, names_from) if "classes" in metadata else classes
    differ = [i for i, (there, here) in enumerate(zip(theirs, classes)) if there != here]
    if not differ or len(theirs) != len(classes):
        return ""
    first = f"its class {differ[0] + 1} is {shortened(theirs[differ[0]])}, here it is {shortened(classes[differ[0]])}"
    return f"{path}: {first} ({len(differ)} of {len(classes)} differ); heads start from what they knew of other things"


def initialise(detector: SpikingYOLO, path: str | Path) -> list[str]:
    """Warm start: copy every tensor that fits in name and shape (the ANN twin's fit a spiking detector's convolutions and norms).

    Returns:
        Names in the detector that stayed as they were.

    Raises:
        InputError: nothing fits, the heads are of another class count, or what fits holds a value that is not finite.
    """
    tensors, metadata = load_tensors(path)
    state = detector_tensors(tensors, "ema" if any(k.startswith("ema.") for k in tensors) else "w")
    wanted = detector.state_dict()
    for name in (k for k in wanted if k.startswith("heads.") and k in state and state[k].shape != wanted[k].shape):
        here, there = tuple(wanted[name].shape), tuple(state[name].shape)
        if here[:1] == there[:1]:
            raise InputError(f"{path}: weights of another width ({name} has shape {there}, the detector's {here})")
        classes = checked_field(metadata, "classes", path, names_from) if "classes" in metadata else None
        count = "another number of" if classes is None else len(classes)
        raise InputError(f"{path}: weights for {count} classes, the detector has {detector.spec.num_classes} ({name} differs)")
    fitting = {k: v.to(wanted[k].dtype) for k, v in state.items() if k in wanted and v.shape == wanted[k].shape}
    if not fitting:
        raise InputError(f"{path}: no tensor fits this detector")
    for name, tensor in fitting.items():
        check_finite(tensor, name, path)
    detector.load_state_dict(fitting, strict=False)
    return [k for k in wanted if k not in fitting]
