"""Figures of the page. Drawn on no ground and in mid tones, so that they read on light and dark pages alike."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from spyolo.boxes import Detections
from spyolo.data.letterbox import resize
from spyolo.drawing import draw_boxes

from .insight import Sight, Trace

INK = "#8a8f98"  # readable on white and on near-black
TALL = 220  # pixels, a picture of the strip
WIDEST = 4  # times as wide as tall, at most


def zoom_of(image: np.ndarray, least: int = 640) -> float:
    """How much a small picture is enlarged, so that names on its boxes can be read."""
    return max(1.0, least / max(image.shape[:2]))


def boxed(image: np.ndarray, found: Detections, classes: Sequence[str], scores: bool = True) -> np.ndarray:
    """A picture, enlarged if small, with what was found in it."""
    zoom = zoom_of(image)
    if zoom > 1:
        image = resize(image, round(image.shape[1] * zoom), round(image.shape[0] * zoom))
    return draw_boxes(image, found.boxes * zoom, found.labels, classes, found.scores if scores else None)


def figure(width: float, height: float) -> tuple[Figure, Any]:
    """An empty figure in inches, and its axes."""
    drawn = Figure(figsize=(width, height), facecolor="none", layout="constrained", dpi=150)  # dense: readable on phones
    axes = drawn.add_subplot(facecolor="none")
    axes.tick_params(colors=INK, labelsize=8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return drawn, axes


def strip(sight: Sight, classes: Sequence[str]) -> list[tuple[np.ndarray, str]]:
    """The picture with the boxes found after each time step, with captions."""
    height, width = sight.image.shape[:2]
    scale = min(TALL / height, WIDEST * TALL / width)  # a very flat picture would be thousands of pixels wide
    small = resize(sight.image, max(1, round(width * scale)), max(1, round(height * scale)))
    return [
        (draw_boxes(small, d.boxes * scale, d.labels, classes), f"step {t}: {len(d)} box{'' if len(d) == 1 else 'es'}")
        for t, d in enumerate(sight.steps, 1)
    ]


def spike_maps(sight: Sight, layers: Sequence[str], side: int = 150, gap: int = 6, head: int = 22) -> np.ndarray | None:
    """One row a layer, one column a step: brighter where more of the layer's channels fired. RGBA, None without layers."""
    chosen = [name for name in layers if name in sight.maps]
    if not chosen:
        return None
    steps, row_height = len(sight.steps), head + side + gap
    sheet = Image.new("RGBA", (max(steps * (side + gap), 2 * side), len(chosen) * row_height + head))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, name in enumerate(chosen):
        values, top = sight.maps[name].astype(np.float32), row * row_height
        pen.text((0, top + head // 2), f"{name}: {np.mean(sight.rates[name]):.1%} firing", fill=INK, font=font, anchor="lm")
        brightest = max(float(values.max()), 1e-6)
        for t in range(steps):
            coloured = (colormaps["inferno"](values[t] / brightest)[..., :3] * 255).astype(np.uint8)
            tile = Image.fromarray(coloured).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (t * (side + gap), top + head))
    for t in range(steps):
        pen.text((t * (side + gap) + side // 2, len(chosen) * row_height + head // 2), f"step {t + 1}", fill=INK, font=font, anchor="mm")
    return np.asarray(sheet)


def rate_bars(sight: Sight) -> Figure:
    """Firing rate of every layer, in the order in which the picture passes through them."""
    names = list(sight.rates)
    drawn, axes = figure(5.5, max(1.4, 0.22 * len(names) + 0.5))
    for k, name in enumerate(names):
        axes.barh(k, 100 * np.mean(sight.rates[name]), color="#e8743b", height=0.62)
        axes.plot(100 * np.array(sight.rates[name]), [k] * len(sight.steps), "o", color="#3b82c4", markersize=4)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("neurons that fire in a time step, %\n(bar: mean; dots: each step)", fontsize=8)
    return drawn


def membrane(seen: Trace, steps: int) -> Figure:
    """Membrane potentials over time; a dot on the dashed line is a spike."""
    drawn, axes = figure(5.5, 2.8)
    time = np.arange(1, len(seen.u) + 1)
    for k, channel in enumerate(seen.channels):
        (line,) = axes.plot(time, seen.u[:, k], marker=".", linewidth=1.4, label=f"neuron {channel}")
        fired = time[seen.spikes[:, k]]
        axes.plot(fired, np.full(len(fired), seen.threshold + 0.04 * k), "o", color=line.get_color(), markersize=5)
    axes.axhline(seen.threshold, color=INK, linestyle="--", linewidth=1)
    axes.axvspan(0.5, steps + 0.5, color=INK, alpha=0.15, linewidth=0)
    axes.set_xlim(0.5, len(time) + 0.5)
    axes.set_xlabel(f"time step (shaded: the {steps} used for the boxes)\ndots at the dashed threshold: the neuron fired", fontsize=8)
    axes.set_ylabel("membrane potential u", fontsize=8)
    axes.legend(fontsize=7, frameon=False, labelcolor=INK, ncols=len(seen.channels), loc="upper center", bbox_to_anchor=(0.5, 1.18))
    return drawn


def loss_curve(losses: Sequence[float]) -> Figure:
    """Loss after each online update."""
    drawn, axes = figure(4.4, 2.0)
    axes.plot(range(1, len(losses) + 1), losses, color="#e8743b", linewidth=1.6, marker="." if len(losses) < 40 else None)
    axes.set_xlabel("update", fontsize=8)
    axes.set_ylabel("loss", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return drawn


def energy_html(energy: dict[str, Any], spiking: bool) -> str:
    """Bars of energy a picture; of spiking neurons also their firing rate, and an ordinary network beside them."""
    twin = energy.get("ann_twin_mj") if spiking else None
    bars = [("Everything that runs", energy["total_mj"], "#e8743b"), ("Ordinary network of this shape", twin, "#8a8f98")]
    if spiking:
        bars.insert(0, ("Synapses only", energy["synaptic_mj"], "#3b82c4"))
    longest = max(value or 0 for _, value, _ in bars) or 1.0
    lines = "".join(
        f'<div class="meter-name">{escape(name)}</div><div class="meter-value">{value:.3f} mJ</div>'
        f'<div class="meter-track"><div style="width:{100 * value / longest:.1f}%;background:{colour}"></div></div>'
        for name, value, colour in bars
        if value is not None
    )
    steps = energy["timesteps"]
    rate = f"{100 * energy['firing_rate']:.1f} % of the neurons fired in a time step. " if spiking else ""
    times = ""
    if twin:
        less, more = twin / energy["total_mj"], energy["total_mj"] / twin
        times = f"{less:.1f} times less than" if less >= 1 else f"{more:.1f} times as much as"
        times = f"After {steps} step{'' if steps == 1 else 's'}, {times} the ordinary network (its ANN twin). "
    note = f"{rate}{times}Computed for a 45 nm chip, not measured on this computer."
    return (
        f'<div class="meter" id="meter"><div class="meter-title">Energy for this picture</div><div class="meter-grid">{lines}</div>'
        f'<div class="meter-note">{escape(note)}</div></div>'
    )
