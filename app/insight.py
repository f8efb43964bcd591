"""Looking inside: one picture shown for T steps, with everything the page tells about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from spyolo.boxes import Detections
from spyolo.detection import firing_rates
from spyolo.engine import autocast, in_picture
from spyolo.evaluation.energy import EnergyMeter, energy_table
from spyolo.predictor import Predictor

from .models import Model

CHANNELS = 5  # neurons shown in a trace
TRACE_STEPS = 16  # a trace of the one or two steps a detector needs would show nothing


@dataclass(frozen=True)
class Sight:
    """What happened while a picture was shown."""

    image: np.ndarray  # uint8 [H, W, 3]
    steps: list[Detections]  # after each time step
    maps: dict[str, np.ndarray]  # layer -> [T, h, w] float16, share of its channels that fired there
    rates: dict[str, list[float]]  # layer -> firing rate at each step
    energy: dict[str, Any]  # see evaluation.energy.energy_table


@dataclass(frozen=True)
class Trace:
    """Membranes under one point of the picture."""

    layer: str
    channels: list[int]
    u: np.ndarray  # [T, channels], before the reset where it fired is not kept: after a spike it is 0
    spikes: np.ndarray  # [T, channels] bool
    threshold: float


@torch.inference_mode()
def watch(model: Model, predictor: Predictor, image: np.ndarray) -> Sight:
    """Show a picture for the predictor's T steps, counting operations and keeping spike maps."""
    canvas, place = predictor.fitted(image)
    pixels = predictor.tensor(canvas)
    steps, maps, rates = [], dict[str, list[np.ndarray]](), dict[str, list[float]]()
    with model.lock, EnergyMeter(model.detector) as meter, autocast(predictor.device, predictor.amp):
        for predictions, state in model.detector.run(pixels, predictor.timesteps):
            steps.append(in_picture(predictor.read(predictions), place, image.shape[1], image.shape[0]))
            for name, rate in firing_rates(state).items():
                rates.setdefault(name, []).append(float(rate))
                maps.setdefault(name, []).append(state.cells[name].s[0].float().mean(0).half().cpu().numpy())
    energy = energy_table(meter.counts(), twins={"ann_twin": model.twin()})
    return Sight(image, steps, {name: np.stack(m) for name, m in maps.items()}, rates, energy)


@torch.inference_mode()
def trace(model: Model, predictor: Predictor, image: np.ndarray, layer: str, x: float, y: float) -> Trace:
    """Membrane potentials of the liveliest channels of `layer` under picture pixel (x, y), over TRACE_STEPS steps from rest."""
    canvas, place = predictor.fitted(image)
    u, spikes = [], []
    with model.lock, autocast(predictor.device, predictor.amp):
        for _, state in model.detector.run(predictor.tensor(canvas), TRACE_STEPS):
            cell = state.cells[layer]
            h, w = cell.u.shape[-2:]
            column = min(w - 1, max(0, int((x * place.scale + place.left) / place.size[1] * w)))
            row = min(h - 1, max(0, int((y * place.scale + place.top) / place.size[0] * h)))
            u.append(cell.u[0, :, row, column].float().cpu())
            spikes.append(cell.s[0, :, row, column].float().cpu())
    all_u, all_s = torch.stack(u), torch.stack(spikes)
    lively = (all_s.sum(0) + all_u.abs().amax(0)).topk(min(CHANNELS, all_u.shape[1])).indices.sort().values
    threshold = model.detector.spec.units.threshold
    return Trace(layer, lively.tolist(), all_u[:, lively].numpy(), all_s[:, lively].numpy() > 0, threshold)
