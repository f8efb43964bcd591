"""One picture of a report, the numbers in it, and how both are saved. Figures are objects drawn by Agg: no display, no global state."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from spyolo.evaluation.files import write_csv, write_json
from spyolo.files import write_whole

INK, GREY, FAINT = "#1f2933", "#7b8794", "#e4e7eb"
# Okabe and Ito's palette: told apart by readers with any colour vision.
BLUE, ORANGE, GREEN, RED, SKY, PURPLE = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)


@dataclass(frozen=True)
class Exhibit:
    """A picture and the numbers it shows."""

    name: str  # of the files, without suffix
    title: str
    caption: str  # what to read off it, for the report
    drawing: Figure | np.ndarray  # a figure, or a picture, RGB uint8 [H, W, 3]
    rows: list[dict[str, Any]]  # the data, a row a point

    @cached_property
    def png(self) -> bytes:
        """The picture as a PNG file."""
        data = io.BytesIO()
        if isinstance(self.drawing, Figure):
            self.drawing.savefig(data, format="png", dpi=130, facecolor="white", bbox_inches="tight")
        else:
            Image.fromarray(self.drawing).save(data, "PNG")
        return data.getvalue()

    def save(self, folder: str | Path) -> list[Path]:
        """Write NAME.png, NAME.json and NAME.csv into `folder`. Raises InputError where that cannot be written."""
        paths = [Path(folder) / f"{self.name}.{suffix}" for suffix in ("png", "json", "csv")]
        write_whole(paths[0], self.png)
        write_json(paths[1], {"title": self.title, "caption": self.caption, "rows": self.rows})
        write_csv(paths[2], self.rows)
        return paths


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure with our title; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    return figure


def tidy(axes: Axes, **labels: Any) -> Axes:
    """Our look: two spines, a faint grid behind the data, small grey ticks. `labels` are set as by `Axes.set`."""
    axes.set(**labels)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=GREY, labelsize=8, length=3)
    axes.xaxis.label.set(color=INK, fontsize=9)
    axes.yaxis.label.set(color=INK, fontsize=9)
    axes.title.set(color=INK, fontsize=10)
    return axes


def literal(name: str) -> str:
    """A name as it is: a dollar sign would start a formula."""
    return name.replace("$", r"\$")


def note(axes: Axes, text: str) -> None:
    """A sentence in the middle, where there is nothing to draw."""
    axes.text(0.5, 0.5, text, ha="center", va="center", color=GREY, fontsize=10, transform=axes.transAxes)


def columns_to_rows(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Equally long columns, by name -> a row a point."""
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


