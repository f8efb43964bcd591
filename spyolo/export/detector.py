"""A detector as one ONNX file, boxes included: one step with the state going in and coming out, or T steps of a still picture."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spyolo.checkpoint import WeightsInfo
from spyolo.detection import DetectorState, Reading, SpikingYOLO
from spyolo.detection.head import Head
from spyolo.errors import InputError
from spyolo.export.boxes import decode, suppress
from spyolo.export.cells import GraphRunner, convolve, synapse
from spyolo.export.graph import Wire, Writer
from spyolo.export.int8 import to_int8
from spyolo.files import replace_file
from spyolo.neurons import LTCUnit, norms
from spyolo.ranges import SIZES, STEPS, check_whole

FORMS = ("step", "unrolled")
FORMAT = "spyolo-onnx-1"
LOGITS = "read/"  # and the number of the scale: what boxes are decoded from


def export_onnx(
    detector: SpikingYOLO,
    info: WeightsInfo,
    path: str | Path,
    *,
    form: str = "unrolled",
    timesteps: int | None = None,
    size: int | None = None,
    reading: Reading | None = None,
    int8: bool = False,
    probes: bool = False,
    forced: bool = False,
) -> Path:
    """Write a detector as ONNX. Pictures go in as uint8 [B, C, size, size], letterboxed; B is free.

    Args:
        form: `step`: one time step; state tensors `state/...` go in and `next/...` come out (zeros are neurons at rest).
            `unrolled`: T steps of a still picture, from rest.
        timesteps: T of `unrolled`; None: as trained.
        size: input side, a multiple of 32; None: as trained.
        reading: how boxes are read; None: as `Predictor` does.
        int8: weights of convolutions as 8-bit integers with one scale a channel (a quarter of the file).
        probes: also put out every cell's spikes and the logits, step by step: for comparing.
        forced: with `step`: spikes `forced/...` go in and stand in for each cell's own behind it: for comparing layer by layer.

    Raises:
        InputError: onnx is not installed, the detector was never trained, a form, size or number of steps that there is not, or the file
            cannot be written.
    """
    if form not in FORMS:
        raise InputError(f"form must be one of {', '.join(FORMS)}; got {form!r}")
    size, timesteps = info.size if size is None else size, info.timesteps if timesteps is None else timesteps
    reading = reading or info.reading(0.3, one_class_per_box=True)
    check_whole("size", size, *SIZES)
    check_whole("timesteps", timesteps, *STEPS)
    timesteps = detector.steps_of(timesteps)
    refuse_untrained(detector)
    drawing = _Drawing(detector, size, reading, probes=probes, forced=forced)
    if form == "step":
        drawing.step()
    else:
        drawing.unrolled(timesteps)
    told = {
        "format": FORMAT, "form": form, "timesteps": timesteps, "size": size, "classes": info.classes,
        "detector": detector.spec.name, "int8": int8, "reading": asdict(reading),
    }  # fmt: skip
    model = drawing.writer.model("spyolo", {k: v if isinstance(v, str) else json.dumps(v) for k, v in told.items()})
    if int8:
        model = to_int8(model)
    return replace_file(path, lambda temporary: temporary.write_bytes(model.SerializeToString()))


def refuse_untrained(detector: SpikingYOLO) -> None:
    """Raises InputError for a detector whose norms have never seen a picture: its boxes would mean nothing."""
    counts = [m.num_batches_tracked for m in norms(detector)]
    if counts and all(c is not None and int(c) == 0 for c in counts):
        raise InputError("this detector was never trained (its norms have seen no picture); train it, or load weights, before export")


class _Drawing:
    """One graph in the making."""

    def __init__(self, detector: SpikingYOLO, size: int, reading: Reading, *, probes: bool, forced: bool) -> None:
        self.detector, self.size, self.reading, self.probes, self.forced = detector.eval(), size, reading, probes, forced
        self.writer = Writer()
        self.rest = state_at_rest(detector, size)
        self.starts = {
            name: cell.u for name, cell in self.rest.cells.items() if cell is not None and bool((cell.u != 0).any())
        }  # fmt: skip

    def unrolled(self, timesteps: int) -> None:
        current = self.images()
        membranes: dict[str, Wire] = {}
        readouts: list[Wire | None] = [None] * len(self.detector.heads)
        logits: list[Wire] = []
        for t in range(1, timesteps + 1):
            run = GraphRunner(self.writer, membranes, self.starts)
            logits = [
                self.read(i, head, x, before, t)
                for i, (head, x, before) in enumerate(zip(self.detector.heads, self.features(current, run), readouts))
            ]
            membranes, readouts = run.after, list(logits)
            self.probe(run, logits, f"/{t}")
        self.boxes(logits)

    def step(self) -> None:
        current = self.images()
        names = [name for name, cell in self.rest.cells.items() if cell is not None]
        seen = self.writer.input("state/seen", np.float32, [1])
        fresh = seen.op("Equal", self.writer.constant(0.0))
        membranes = {}
        for name in names:
            u = self.writer.input(f"state/{name}", np.float32, ["batch", *self.rest.cells[name].u.shape[1:]])
            if name in self.starts:
                u = fresh.op("Where", self.writer.constant(self.starts[name].cpu().numpy(), name=f"{name}.start"), u)
            membranes[name] = u
        forced = {n: self.writer.input(f"forced/{n}", np.float32, ["batch", *self.rest.cells[n].s.shape[1:]]) for n in names if self.forced}
        run = GraphRunner(self.writer, membranes, {}, forced)
        features = self.features(current, run)
        now = seen + self.writer.constant(1.0)
        logits = [self.read_on(i, head, x, fresh, now) for i, (head, x) in enumerate(zip(self.detector.heads, features))]
        self.probe(run, logits, "")
        self.boxes(logits)
        for name in names:
            self.writer.output(f"next/{name}", run.after[name], np.float32, ["batch", *self.rest.cells[name].u.shape[1:]])
        self.writer.output("next/seen", now, np.float32, [1])

    def images(self) -> Wire:
        """The encoder's current: for a still picture the same at every step."""
        images = self.writer.input("images", np.uint8, ["batch", self.detector.spec.in_channels, self.size, self.size])
        scaled = images.op("Cast", to=1).op("Div", self.writer.constant(255.0, name="number.255"))
        return synapse(self.writer, scaled, self.detector.backbone.conv1.synapse, "backbone.conv1.synapse")

    def features(self, current: Wire, run: Any) -> tuple[Wire, Wire]:
        """The detector's own wiring, on wires."""
        wire: Any = current
        return self.detector.neck(*self.detector.backbone(wire, run), run)

    def read(self, i: int, head: Any, x: Wire, before: Wire | None, t: int) -> Wire:
        """Logits of one scale after step `t`; see `detection.head`."""
        logits = convolve(self.writer, x, head.conv, None, f"heads.{i}.conv")
        if before is None or head.readout == "last":
            return logits
        fraction = self.leak(i, head) or self.writer.constant(1 / t)
        return before + fraction * (logits - before)

    def read_on(self, i: int, head: Any, x: Wire, fresh: Wire, now: Wire) -> Wire:
        """As `read`, from a state that comes in; a readout starts at its first input."""
        if head.readout == "last":
            return self.read(i, head, x, None, 1)
        shape: list[int | str] = ["batch", *self.logit_shape(i, head)]
        before = self.writer.input(f"state/heads.{i}", np.float32, shape)
        logits = convolve(self.writer, x, head.conv, None, f"heads.{i}.conv")
        one = self.writer.constant(1.0, name="number.1")
        fraction = fresh.op("Where", one, self.leak(i, head) or one.op("Div", now))
        logits = before + fraction * (logits - before)
        self.writer.output(f"next/heads.{i}", logits, np.float32, shape)
        return logits

    def leak(self, i: int, head: Head) -> Wire | None:
        """How far a leaky readout follows its input at a step."""
        if head.leak is None:
            return None
        return self.writer.constant(torch.sigmoid(head.leak.detach().double()).view(1, -1, 1, 1).cpu().numpy(), name=f"heads.{i}.fraction")

    def logit_shape(self, i: int, head: Any) -> list[int]:
        side = self.size // self.detector.strides[i]
        return [head.conv.out_channels, side, side]

    def boxes(self, logits: list[Wire]) -> None:
        classes = self.detector.spec.num_classes
        logits = [self.writer.label(f"{LOGITS}{i}", wire) for i, wire in enumerate(logits)]
        boxes, scores = decode(logits, self.detector.anchors, self.detector.strides, self.size, classes)
        found = suppress(self.writer, boxes, scores, self.size, classes, self.reading)
        shapes: dict[str, tuple[Any, list[int | str]]] = {
            "boxes": (np.float32, ["found", 4]), "scores": (np.float32, ["found"]), "labels": (np.int64, ["found"]),
            "pictures": (np.int64, ["found"]),
        }  # fmt: skip
        for name, wire in found.items():
            self.writer.output(name, wire, *shapes[name])

    def probe(self, run: GraphRunner, logits: list[Wire], suffix: str) -> None:
        if not self.probes:
            return
        for name, wire in run.spikes.items():
            if name in run.after:
                self.writer.output(f"spikes/{name}{suffix}", wire, np.float32, ["batch", *self.rest.cells[name].s.shape[1:]])
        for i, (head, wire) in enumerate(zip(self.detector.heads, logits)):
            self.writer.output(f"logits/{i}{suffix}", wire, np.float32, ["batch", *self.logit_shape(i, head)])


@torch.no_grad()
def state_at_rest(detector: SpikingYOLO, size: int) -> DetectorState:
    """Every cell's state before the first step of one picture, found by showing one and noting what each unit starts from."""
    detector = copy.deepcopy(detector)
    for m in detector.modules():
        if isinstance(m, LTCUnit):
            m.fused = False  # compiling its kernels for one picture is a waste
    found: dict[str, Any] = {}
    names = {cell.unit: name for name, cell in detector.named_modules() if isinstance(getattr(cell, "unit", None), LTCUnit)}
    for unit in names:
        unit.register_forward_pre_hook(lambda m, a: found.__setitem__(names[m], m.initial_state(a[0])))
    device = next(detector.parameters()).device
    _, state = detector(torch.zeros(1, detector.spec.in_channels, size, size, dtype=torch.uint8, device=device))
    return DetectorState({name: found.get(name) for name in state.cells}, state.readouts)


def tensors_of(state: DetectorState) -> dict[str, Tensor]:
    """A detector's state by the names that the step form uses, without `state/seen`."""
    cells = {name: cell.u for name, cell in state.cells.items() if cell is not None}
    return cells | {f"heads.{i}": r.o for i, r in enumerate(state.readouts) if r is not None}
