"""Is an ONNX file, as it was written, the detector? It is run from pictures to boxes, and looked into on the way.

Flipped spikes move boxes in a sound file too (see `verify`), by how much depends on the network. So the file is judged in parts, each of
which is equal to rounding: torch is given the file's membranes and spikes and must come to the same layer by layer and step by step, and
its decoding and suppression are given the file's logits. Boxes that torch finds from the pictures alone are counted beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spyolo.boxes import Detections
from spyolo.checkpoint import WeightsInfo
from spyolo.detection import DetectorState, Reading, SpikingYOLO, postprocess
from spyolo.detection.blocks import StepRunner
from spyolo.errors import InputError
from spyolo.export.detector import LOGITS
from spyolo.export.graph import import_onnx
from spyolo.export.verify import LayerCheck, compare_step, equal_boxes, open_session, pairs, run_session
from spyolo.neurons import Cell

FLOOR = 0.001  # on scores: random pictures show few objects, but faint boxes are decoded as all are
PIXELS, SCORES = 0.01, 1e-4  # by how much boxes decoded from the same logits may differ
SHARE = 0.98  # of them that must be the same; two scores or overlaps that are equal to rounding may be ranked either way


@dataclass
class FileCheck:
    """A file beside torch, over all pictures shown. Boxes are those of both."""

    pictures: int = 0
    layers: dict[str, LayerCheck] = field(default_factory=dict)  # on the file's own membranes and spikes
    decoded: list[int] = field(default_factory=lambda: [0, 0])  # boxes from the file's logits: with an equal partner, all
    found: list[int] = field(default_factory=lambda: [0, 0])  # boxes from the pictures

    @property
    def layers_equal(self) -> bool:
        return all(layer.equal for layer in self.layers.values())

    @property
    def boxes_equal(self) -> bool:
        """Whether logits are decoded as torch decodes them."""
        return self.decoded[0] >= SHARE * self.decoded[1]


@torch.inference_mode()
def check_file(
    path: Path, detector: SpikingYOLO, info: WeightsInfo, batches: Iterable[Tensor], *, timesteps: int | None = None,
    reading: Reading | None = None,
) -> FileCheck:  # fmt: skip
    """Show pictures to a file of either form and to torch, T steps from rest.

    Args:
        batches: pictures, uint8 [B, C, size, size].
        timesteps, reading: with which the file was written.

    Raises:
        InputError: no picture at all, another number of steps in the file, or onnxruntime or onnx is not installed.
    """
    steps = detector.steps_of(timesteps or info.timesteps)
    file, check = _Opened(path, detector, steps), FileCheck()
    reading = replace(reading, confidence=FLOOR) if reading else info.reading(FLOOR, one_class_per_box=True)
    for images in batches:
        out = follow(detector, images, file, check.layers)
        logits = [out[f"{LOGITS}{i}"] for i in range(len(detector.heads))]
        *_, (predictions, _) = detector.run(images, steps)
        mine = [Detections(*(out[k][out["pictures"] == row] for k in ("boxes", "scores", "labels"))) for row in range(len(images))]
        count(check.decoded, same_boxes, mine, postprocess(logits, detector.anchors, detector.strides, reading))
        count(check.found, equal_boxes, mine, postprocess(predictions, detector.anchors, detector.strides, reading))
        check.pictures += len(images)
    if not check.pictures:
        raise InputError("there is no picture to show, so nothing can be compared")
    return check


def follow(detector: SpikingYOLO, images: Tensor, file: _Opened, layers: dict[str, LayerCheck]) -> dict[str, Tensor]:
    """torch beside the file, every layer on the file's membranes and spikes: adds to `layers`, returns what the file puts out at last."""
    current, state = detector.encode(images), DetectorState({}, (None,) * len(detector.heads))
    for out in file.steps(images):
        run = _Following(state.cells, {name: out[f"spikes/{name}"] for name in file.cells})
        features = detector.neck(*detector.backbone(current, run), run)
        pairs = [head(x, r) for head, x, r in zip(detector.heads, features, state.readouts)]
        compare_step(detector, DetectorState(run.after, ()), (), out, layers)
        cells: dict[str, Any] = dict(run.after)
        for name in file.cells:
            cells[name] = cells[name]._replace(u=out[f"next/{name}"], s=out[f"spikes/{name}"])
        state = DetectorState(cells, tuple(r for _, r in pairs))
    last = out | {f"logits/{i}": out[f"{LOGITS}{i}"] for i in range(len(pairs))}
    compare_step(detector, DetectorState({}, ()), [p for p, _ in pairs], last, layers)
    return out


class _Following(StepRunner):
    """torch's cells, which hand on the file's spikes in place of their own."""

    def __init__(self, before: Any, spikes: dict[str, Tensor]) -> None:
        super().__init__(before)
        self.spikes = spikes

    def __call__(self, name: str, cell: Cell, x: Tensor) -> Tensor:
        return self.spikes.get(name, super().__call__(name, cell, x))

    def from_current(self, name: str, cell: Cell, current: Tensor) -> Tensor:
        return self.spikes.get(name, super().from_current(name, cell, current))


class _Opened:
    """A file with its cells' spikes and membranes and its logits as further outputs: the nodes that are there, found by their names."""

    def __init__(self, path: Path, detector: SpikingYOLO, steps: int) -> None:
        onnx = import_onnx()
        model = onnx.load(str(path))
        units = {name: cell.unit for name, cell in detector.named_modules() if isinstance(cell, Cell)}
        self.cells, self.count = [name for name, unit in units.items() if hasattr(unit, "threshold")], steps
        self.inside: dict[str, list[str]] = {}  # "spikes/NAME" or "next/NAME" -> one value a step
        for node in model.graph.node:
            cell, _, op = node.name.rpartition("/")
            kind = {"Cast": "spikes", "Where": "next"}.get(op.partition("_")[0])  # what `cells.unit` ends with
            if cell in units and kind:
                self.inside.setdefault(f"{kind}/{cell}", []).append(node.output[0])
        names = [name for values in self.inside.values() for name in values] + [f"{LOGITS}{i}" for i in range(len(detector.heads))]
        model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
        self.session = open_session(model.SerializeToString())
        self.states = {i.name: i.shape for i in self.session.get_inputs() if i.name.startswith("state/")}
        there = {len(values) for values in self.inside.values()}
        if len(self.inside) != 2 * len(self.cells) or there - {1 if self.states else steps}:
            raise InputError(f"{path}: not the detector's layers, or not {steps} steps of them; export it again")

    def steps(self, images: Tensor) -> Iterator[dict[str, Tensor]]:
        """Of each step `spikes/NAME` and `next/NAME`, beside the outputs over FLOOR (of an unrolled file always those of the last step)."""
        feeds = {"images": images.numpy(), "confidence": np.array([FLOOR], np.float32)}
        state = {k: np.zeros([len(images) if n == "batch" else n for n in shape], np.float32) for k, shape in self.states.items()}
        out: dict[str, Tensor] = {}
        for t in range(self.count):
            if state or not out:
                out = run_session(self.session, feeds | state)
                state = {name: out[name.replace("state/", "next/", 1)].numpy() for name in state}
            yield out | {name: out[values[0 if state else t]] for name, values in self.inside.items()}


def same_boxes(one: Detections, other: Detections) -> int:
    """How many boxes of one are those of the other: same class, corners within PIXELS and score within SCORES, each used once. (Overlap
    would not do: the smallest boxes have sides of a thousandth of a pixel.)"""
    if not len(one) or not len(other):
        return 0
    off = (one.boxes[:, None] - other.boxes).abs().amax(2)
    same = (off <= PIXELS) & ((one.scores[:, None] - other.scores).abs() <= SCORES) & (one.labels[:, None] == other.labels)
    return pairs(same / (1 + off), 0.5)


def count(total: list[int], pair: Callable[[Detections, Detections], int], mine: list[Detections], theirs: list[Detections]) -> None:
    """Add the boxes of both that have a partner, and all."""
    for one, other in zip(mine, theirs):
        total[0] += 2 * pair(one, other)
        total[1] += len(one) + len(other)


def format_file(path: Path, check: FileCheck) -> str:
    """A line a file."""
    if not check.decoded[1]:
        return f"{path}: no box over {FLOOR:g} on these pictures, so decoding and suppression were not compared; show others"
    same, alike = (f"{100 * equal / max(1, boxes):.1f} % of {boxes}" for equal, boxes in (check.decoded, check.found))
    return f"{path}, boxes over {FLOOR:g}: {same} as torch decodes the same logits; {alike} as torch finds them from the pictures"
