"""Plots of what running a detector costs: spikes, energy, and accuracy against both as steps are added. From plain numbers, whoever counted
them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from spyolo.evaluation.plot import BLUE, COLOURS, GREEN, GREY, INK, ORANGE, RED, Exhibit, literal, new_figure, note, tidy
from spyolo.evaluation.plots import SHADES


def firing_rates(rates: ArrayLike, layers: Sequence[str]) -> Exhibit:
    """Firing rate of every layer at every step.

    Args:
        rates: [layers, steps], spikes a unit and step, 0..1.
        layers: names, in the network's order.
    """
    table = np.asarray(rates, np.float64).reshape(len(layers), -1)
    steps = table.shape[1]
    title = "Firing rate of each layer at each step"
    figure = new_figure(max(4.6, 0.62 * steps + 3.2), 0.26 * len(layers) + 1.6, title)
    axes = figure.subplots()
    top = max(float(np.nanmax(table, initial=0.0)), 1e-9)
    image = axes.imshow(table, cmap=SHADES, vmin=0, vmax=top, aspect="auto")
    if steps <= 16:
        for row, step in np.ndindex(table.shape):
            ink = "white" if table[row, step] > 0.45 * top else INK
            axes.text(step, row, f"{100 * table[row, step]:.1f}", ha="center", va="center", fontsize=7, color=ink)
    axes.set_xticks(range(steps), [str(step + 1) for step in range(steps)], fontsize=8, color=INK)
    axes.set_yticks(range(len(layers)), [literal(name) for name in layers], fontsize=8, color=INK)
    axes.set_xlabel("step", fontsize=9, color=INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, colors=GREY)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    rows = [{"layer": name, "step": step + 1, "rate": table[row, step]} for row, name in enumerate(layers) for step in range(steps)]
    caption = "In per cent of the layer's units, input side at the top. Mean over all layers and steps, unweighted: "
    return Exhibit("firing_rates", title, f"{caption}{100 * np.nanmean(table) if table.size else 0:.1f} %.", figure, rows)


def energy_by_layer(energy: Mapping[str, Mapping[str, float]], priced: str = "picture") -> Exhibit:
    """Where the energy of a picture (or what is `priced`) goes: `{layer: {kind of operation: mJ}}`, layers in the network's order."""
    kinds = list(dict.fromkeys(kind for parts in energy.values() for kind in parts))
    title = f"Energy of each layer, mJ a {priced}"
    figure = new_figure(7.2, 0.26 * len(energy) + 1.6, title)
    axes = tidy(figure.subplots(), xlabel=f"mJ a {priced}")
    places, left = np.arange(len(energy)), np.zeros(len(energy))
    for kind, colour in zip(kinds, COLOURS * (1 + len(kinds) // len(COLOURS))):
        values = np.array([float(parts.get(kind, 0.0)) for parts in energy.values()])
        axes.barh(places, values, left=left, color=colour, height=0.72, label=f"{literal(kind)}: {values.sum():.3g} mJ")
        left += values
    axes.set_yticks(places, [literal(name) for name in energy], fontsize=8, color=INK)
    axes.set_ylim(len(energy) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    if kinds:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="center left", bbox_to_anchor=(1.01, 0.5))
    else:
        note(axes, "nothing counted")
    rows = [{"layer": name, **{kind: float(parts.get(kind, 0.0)) for kind in kinds}} for name, parts in energy.items()]
    return Exhibit("energy_by_layer", title, f"{left.sum():.3g} mJ a {priced} in all; input side at the top.", figure, rows)


def energy_plots(table: Mapping[str, Any]) -> list[Exhibit]:
    """Firing rates and energy by layer out of what `spyolo.evaluation.energy.energy_table` returns."""
    spiking = [row for row in table["layers"] if row.get("firing_rate")]
    parts = {"synapse": "synapses", "gate": "gates", "unit": "neurons", "readout": "neurons"}
    energy: dict[str, dict[str, float]] = {}
    for row in table["layers"]:
        kinds = energy.setdefault(_cell_name(row["name"]), dict.fromkeys(("synapses", "gates", "neurons"), 0.0))
        kinds[parts[row["part"]]] += sum(row["energy_mj"])
    plots = [energy_by_layer(energy, priced=table.get("priced", "picture"))]
    if spiking:
        plots.insert(0, firing_rates([row["firing_rate"] for row in spiking], [_cell_name(row["name"]) for row in spiking]))
    return plots


def _cell_name(module: str) -> str:
    """`backbone.conv1.synapse.conv`, `backbone.conv1.unit` -> `backbone.conv1`: a cell is what a reader takes for a layer."""
    return re.split(r"\.(?:synapse|unit|conv)(?:\.|$)", module)[0]


ANYTIME_COLUMNS = ("timesteps", "ap50", "latency_ms", "energy_mj")


def anytime_curve(points: Sequence[Mapping[str, Any]], *, reference: Mapping[str, Any] | None = None) -> Exhibit:
    """Accuracy, latency and energy after every number of steps, from one pass.

    Args:
        points: rows of `timesteps`, `ap50` (0..1) and, where they were measured, `latency_ms` and `energy_mj`; None where they were not.
        reference: another detector to compare with, such as the ANN twin: `name`, `ap50`, `energy_mj`, `latency_ms`.
    """
    rows = [{column: point.get(column) for column in ANYTIME_COLUMNS} for point in sorted(points, key=lambda point: point["timesteps"])]
    labels = {"timesteps": "time steps T", "latency_ms": "latency (ms a picture)", "energy_mj": "energy (mJ a picture)"}
    panels = [(key, label) for key, label in labels.items() if any(row[key] is not None for row in rows) or key == "timesteps"]
    title = "VOC10+ AP50 after every step"
    figure = new_figure(3.9 * len(panels) + 0.6, 3.7, title)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (key, label), colour in zip(grid, panels, (BLUE, GREEN, RED)):
        tidy(axes, xlabel=label, ylabel="VOC10+ AP50 (%)" if key == "timesteps" else "")
        _anytime_panel(axes, rows, key, colour)
        if reference is not None and reference.get(key) is not None and reference.get("ap50") is not None:
            star = (reference[key], 100 * reference["ap50"])
            axes.plot(*star, "*", color=ORANGE, markersize=12, zorder=4)
            axes.annotate(literal(str(reference["name"])), star, textcoords="offset points", xytext=(6, -11), fontsize=8, color=INK)
        axes.set_xlim(left=0)
        axes.margins(y=0.15)
    saved = rows + ([{column: reference.get(column) for column in ANYTIME_COLUMNS}] if reference is not None else [])
    caption = "Every point is the same pass, read out after T steps."
    return Exhibit("anytime", title, caption + (f" The star is {reference['name']}." if reference else ""), figure, saved)


def _anytime_panel(axes: Axes, rows: Sequence[Mapping[str, Any]], key: str, colour: str) -> None:
    known = [row for row in rows if row[key] is not None and row["ap50"] is not None]
    if not known:
        note(axes, "not measured")
        return
    across, up = [row[key] for row in known], [100 * row["ap50"] for row in known]
    axes.plot(across, up, "o-", color=colour, linewidth=1.8, markersize=5)
    for row, x, y in zip(known, across, up):
        text = f"{y:.1f}" if key == "timesteps" else f"T={row['timesteps']}"
        axes.annotate(text, (x, y), textcoords="offset points", xytext=(5, -9), fontsize=7, color=INK)
    if key == "timesteps":
        axes.set_xticks([row["timesteps"] for row in known])
