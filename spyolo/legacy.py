"""Weights from other times: pickled `.pth` files of tensors into safetensors, once, by an explicit command, and never elsewhere.

torch.load(weights_only=True) rebuilds tensors and plain containers and refuses everything else that a pickle could ask for. Two namings are
understood: our own, and that of the SPYv4 reference (Yin et al.: 514 keys, of which 254 are second names of the same tensors).
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from spyolo.detection import DetectorSpec, SpikingYOLO
from spyolo.detection.anchors import REFERENCE_MASKS
from spyolo.detection.backbone import scaled
from spyolo.detection.build import detector_spec
from spyolo.errors import InputError

MOST_BYTES = 4 << 30
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # keys under which others keep a state dict
REFERENCE_CELLS = {
    "conv1": "backbone.conv1", "conv2": "backbone.conv2", "conv3": "backbone.conv3", "conv_P5": "neck.reduce",
    "conv_yolo_1": "neck.coarse", "conv_up": "neck.up", "conv_yolo_2": "neck.fine",
    **{f"block{b}.conv{c}": f"backbone.block{b}.{'inner.0' if c == 3 else f'conv{c}'}" for b in (1, 2, 3) for c in (1, 2, 3, 4)},
}  # fmt: skip
REFERENCE_PARTS = {"conv1_x": "synapse.conv", "BN": "synapse.norm", "conv_tauM": "unit.gate.conv", "BN1": "unit.gate.norm"}
REFERENCE_HEADS = {"conv_P5_yolo_1": "heads.1.conv", "conv_P5_yolo_2": "heads.0.conv"}  # stride 32, stride 16
UNUSED = ("yolo_tau1", "yolo_tau2")  # one number each, which the reference never reads
_ORDER = [*("conv1", "conv2"), *(f"block{b}.conv{c}" for b in (1, 2, 3) for c in (1, 2, 3, 4)),
          *("conv3", "conv_P5", "conv_yolo_1", "conv_up", "conv_yolo_2")]  # fmt: skip


def read_pth(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a pickled state dict, on the CPU.

    Raises:
        InputError: no such file, too large, or anything in it besides tensors in plain containers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path}: larger than {MOST_BYTES >> 30} GiB; no weights of these detectors are")
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0][:120]
        raise InputError(
            f"{path}: holds more than tensors, which is not read since it could run code ({reason}); "
            "where it was made, save model.state_dict()"
        ) from None
    except Exception as error:  # a damaged archive makes torch raise nearly anything
        raise InputError(f"{path}: cannot be read as a .pth of tensors ({' '.join(str(error).split())[:160]})") from None
    for name in WRAPPERS:
        if isinstance(tree, Mapping) and isinstance(tree.get(name), Mapping):
            tree = tree[name]
    if not isinstance(tree, Mapping) or not tree or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in tree.items()):
        raise InputError(f"{path}: no state dict: names and their tensors are expected")
    return {k.removeprefix("module."): v for k, v in tree.items()}


def is_reference(tensors: Mapping[str, Tensor]) -> bool:
    return any(".conv1_x." in name or ".conv_tauM." in name for name in tensors)


def from_reference(tensors: Mapping[str, Tensor], path: str | Path = "the file") -> dict[str, Tensor]:
    """The reference's names -> ours; each tensor once.

    Raises:
        InputError: a name that is none of the reference's, or two names of one tensor that hold different values.
    """
    body = {k.removeprefix("network."): v for k, v in tensors.items()}
    found: dict[str, Tensor] = {}
    for name, tensor in body.items():
        if name in UNUSED:
            continue
        renamed = _reference_name(name)
        if renamed is None:
            raise InputError(f"{path}: {name!r} is no tensor of the SPYv4 reference")
        if renamed in found and not torch.equal(found[renamed], tensor):
            raise InputError(f"{path}: two names of one tensor ({renamed}) hold different values; which is right cannot be told")
        found[renamed] = tensor
    return found


def _reference_name(name: str) -> str | None:
    alias = re.fullmatch(r"network\.(\d+)\.(.+)", name)
    if alias and int(alias[1]) < len(_ORDER):
        name = f"{_ORDER[int(alias[1])]}.{alias[2]}"
    cell, _, rest = name.rpartition(".")
    if cell in REFERENCE_HEADS:
        return f"{REFERENCE_HEADS[cell]}.{rest}"
    cell, _, part = cell.rpartition(".")
    if cell in REFERENCE_CELLS and part in REFERENCE_PARTS:
        return f"{REFERENCE_CELLS[cell]}.{REFERENCE_PARTS[part]}.{rest}"
    return None


def described(tensors: Mapping[str, Tensor], reference: bool, path: str | Path, name: str = "spyv4_lite") -> DetectorSpec:
    """The detector these tensors belong to: width and number of classes from their shapes, the rest from `name`.

    Raises:
        InputError: tensors that the shapes would be read from are missing.
    """
    try:
        stem, base = (tensors[f"backbone.conv{i}.synapse.conv.weight"] for i in (1, 2))
        head = tensors["heads.0.conv.weight"]
        width, outputs = width_of(stem.shape[0], base.shape[0]), head.shape[0]
        in_channels = stem.shape[1]
    except (KeyError, IndexError) as error:
        raise InputError(f"{path}: {error} is missing or no convolution's; neither ours nor the SPYv4 reference's weights") from None
    try:
        spec = detector_spec("spyv4" if reference else name, 1, width=width, in_channels=in_channels)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if reference:
        spec = replace(spec, masks=REFERENCE_MASKS, units=replace(spec.units, start="uniform"))
    anchors = len(spec.masks[0])
    if outputs % anchors or outputs // anchors <= 5:
        raise InputError(f"{path}: a head of {outputs} outputs does not fit {anchors} anchors")
    return replace(spec, num_classes=outputs // anchors - 5)


def width_of(stem: int, base: int) -> float:
    """A width that gives the first two convolutions so many channels; all others follow from the second.

    Both are rounded, the first one more coarsely and from 16 up: the second says the width to within 1/16, the first which side of it.
    """
    near = [base / 64 + nudge for nudge in (0, 1 / 64, -1 / 64)]
    return next((width for width in near if (scaled(32, width), scaled(64, width)) == (stem, base)), near[0])


def fitted(tensors: Mapping[str, Tensor], spec: DetectorSpec, path: str | Path) -> SpikingYOLO:
    """A detector that holds them.

    Raises:
        InputError: a tensor is missing, left over, of another shape, or not finite; names the first.
    """
    try:
        detector = SpikingYOLO(spec)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: no detector has these shapes ({error})") from None
    wanted = detector.state_dict()
    for name in (*wanted, *tensors):
        if name not in tensors:
            raise InputError(f"{path}: tensor {name} is missing")
        if name not in wanted:
            raise InputError(f"{path}: tensor {name} has no place in a {spec.name} of width {spec.width:g}; give another --detector")
        if tensors[name].shape != wanted[name].shape:
            raise InputError(f"{path}: tensor {name} has shape {tuple(tensors[name].shape)}, expected {tuple(wanted[name].shape)}")
        if tensors[name].is_floating_point() and not bool(tensors[name].isfinite().all()):
            raise InputError(f"{path}: tensor {name} holds values that are not finite")
    detector.load_state_dict({k: v.to(wanted[k].dtype) for k, v in tensors.items()})
    return detector.eval()
