"""Is the ONNX file the detector? Compared layer by layer on the same input spikes, and end to end.

A threshold turns one rounding difference into a whole spike, and a spike into others behind it. So each layer is given the spikes that
torch's layers before it sent, and must come to the same membranes; end to end, shares of equal spikes and boxes are counted. (The layers
are those of a file with probes, made for the comparison; `written` holds the files that are handed out to torch.)
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from spyolo.boxes import Detections
from spyolo.checkpoint import WeightsInfo
from spyolo.detection import DetectorState, SpikingYOLO
from spyolo.errors import InputError
from spyolo.export.detector import export_onnx, state_at_rest, tensors_of

TOLERANCE = 1e-4


@dataclass
class LayerCheck:
    """Differences of one layer over all pictures and steps shown."""

    membrane: float = 0.0  # largest difference of u where both or neither fired (a head: of its logits)
    flipped: int = 0  # neurons that fired in one and not in the other
    margin: float = 0.0  # of those, how far at most the one that stayed silent was from its threshold
    neurons: int = 0

    @property
    def equal(self) -> bool:
        return self.membrane <= TOLERANCE and self.margin <= TOLERANCE


def open_session(model: Path | bytes) -> Any:
    """An onnxruntime session on the CPU, of a file or of what would be in it.

    Raises:
        InputError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError("verification needs the package onnxruntime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"])


def run_session(session: Any, feeds: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {o.name: torch.from_numpy(v) for o, v in zip(session.get_outputs(), session.run(None, dict(feeds)))}


@torch.inference_mode()
def layer_by_layer(
    detector: SpikingYOLO, info: WeightsInfo, batches: Iterable[Tensor], *, size: int | None = None, timesteps: int | None = None
) -> dict[str, LayerCheck]:
    """Hold every layer of the step form to torch's, on torch's own state and spikes; also where the state comes in and goes out.

    Args:
        batches: pictures, uint8 [B, C, size, size].

    Raises:
        InputError: no picture at all, or what `export_onnx` and `open_session` say.
    """
    size, timesteps = size or info.size, detector.steps_of(timesteps or info.timesteps)
    checks: dict[str, LayerCheck] = {}
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(export_onnx(detector, info, Path(folder) / "step.onnx", form="step", size=size, probes=True, forced=True))
        rest = state_at_rest(detector, size)
        for images in batches:
            before = zeros(rest, len(images))
            for seen, (predictions, after) in enumerate(detector.run(images, timesteps)):
                forced = {f"forced/{name}": cell.s.float().numpy() for name, cell in spiking(after)}
                state = {f"state/{name}": value for name, value in before.items()} | {"state/seen": np.array([seen], np.float32)}
                out = run_session(session, {"images": images.numpy()} | state | forced)
                compare_step(detector, after, predictions, out, checks)
                before = {name: value.float().numpy() for name, value in tensors_of(after).items()}
    if not checks:
        raise InputError("there is no picture to show, so nothing can be compared")
    return checks


def zeros(rest: DetectorState, batch: int) -> dict[str, np.ndarray]:
    """The state the step form takes for neurons at rest."""
    return {name: np.zeros((batch, *value.shape[1:]), np.float32) for name, value in tensors_of(rest).items()}


def spiking(state: DetectorState) -> list[tuple[str, Any]]:
    return [(name, cell) for name, cell in state.cells.items() if cell is not None]


def compare_step(
    detector: SpikingYOLO, after: DetectorState, predictions: Iterable[Tensor], out: Mapping[str, Tensor], checks: dict[str, LayerCheck]
) -> None:
    """Add one step's differences to `checks`."""
    units = {name: cell.unit for name, cell in detector.named_modules() if hasattr(cell, "unit")}
    for name, cell in spiking(after):
        check, other = checks.setdefault(name, LayerCheck()), out[f"next/{name}"]
        flipped = (cell.s > 0.5) != (out[f"spikes/{name}"] > 0.5)
        silent = torch.where(cell.s > 0.5, other, cell.u)[flipped]
        check.membrane = largest(check.membrane, (cell.u - other)[~flipped])
        check.margin = largest(check.margin, silent - units[name].threshold)
        check.flipped, check.neurons = check.flipped + int(flipped.sum()), check.neurons + flipped.numel()
    for i, prediction in enumerate(predictions):
        check = checks.setdefault(f"heads.{i}", LayerCheck())
        check.membrane = largest(check.membrane, prediction - out[f"logits/{i}"])
        check.neurons += prediction.numel()


def largest(before: float, difference: Tensor) -> float:
    """The largest difference so far; what is no number differs from everything."""
    return max(before, float(difference.abs().nan_to_num(nan=math.inf, posinf=math.inf).max())) if difference.numel() else before


@torch.inference_mode()
def equal_spikes(detector: SpikingYOLO, batches: Iterable[Tensor], session: Any, timesteps: int) -> tuple[int, int]:
    """End to end from the pictures: (neurons and steps that agree, all), with a session of the unrolled form with probes."""
    same = total = 0
    for images in batches:
        out = run_session(session, {"images": images.numpy()})
        for t, (_, state) in enumerate(detector.run(images, timesteps), 1):
            for name, cell in spiking(state):
                agree = (cell.s > 0.5) == (out[f"spikes/{name}/{t}"] > 0.5)
                same, total = same + int(agree.sum()), total + agree.numel()
    return same, total


def equal_boxes(one: Detections, other: Detections, iou: float = 0.95) -> int:
    """How many boxes of one have a partner in the other: same class, overlap of at least `iou`, each used once."""
    if not len(one) or not len(other):
        return 0
    overlap = box_iou(one.boxes, other.boxes)
    overlap[one.labels[:, None] != other.labels] = 0
    return pairs(overlap, iou)


def pairs(likeness: Tensor, least: float) -> int:
    """How many rows [N, M] find a column of their own, at least so alike. Changes `likeness`."""
    count = 0
    for row in likeness:  # best score first, as detections come
        best = int(row.argmax())
        if row[best] >= least:
            count += 1
            likeness[:, best] = 0
    return count


def random_pictures(count: int, channels: int, size: int, seed: int = 0) -> Iterator[Tensor]:
    """Pictures of soft random colours, one a batch: noise of single pixels would leave most neurons silent."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        coarse = 255 * torch.rand(1, channels, size // 8, size // 8, generator=generator)
        yield torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear").to(torch.uint8)


def format_layers(checks: Mapping[str, LayerCheck]) -> str:
    """A line a layer."""
    lines = [f"{'layer':<24}{'max |du|':>12}{'flipped':>10}{'of':>12}{'margin':>12}"]
    for name, c in checks.items():
        lines.append(f"{name:<24}{c.membrane:>12.2e}{c.flipped:>10}{c.neurons:>12}{c.margin:>12.1e}")
    return "\n".join(lines)
