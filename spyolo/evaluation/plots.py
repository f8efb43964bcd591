"""Plots of how well a detector detects: precision against recall, F1 against confidence, and what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from spyolo.evaluation.metrics import Assessment
from spyolo.evaluation.operating import confusion_matrix
from spyolo.evaluation.plot import (
    BLUE,
    COLOURS,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    Exhibit,
    columns_to_rows,
    literal,
    new_figure,
    note,
    tidy,
)
from spyolo.evaluation.tables import Floats, Ints
from spyolo.evaluation.voc_ap import Curve, envelope

MOST_POINTS = 300  # of one curve, drawn and saved: more than a panel has pixels
SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#9ecae1", BLUE, "#08306b"])


def detection_plots(result: Assessment) -> list[Exhibit]:
    """All plots of this file."""
    return [ap_by_class(result), precision_recall(result), f1_curve(result), ap_by_iou(result), confusion(result)]


def precision_recall(result: Assessment) -> Exhibit:
    """A panel a class, best first: precision (thin) and its monotone envelope (filled), whose area is the VOC10+ AP50."""
    present = [label for label in range(len(result.classes)) if result.voc.positives[label]]
    order = sorted(present, key=lambda label: -result.voc.voc10[label, 0])
    across = min(5, max(1, int(np.ceil(np.sqrt(len(order))))))
    down = max(1, -(-len(order) // across))
    title = "Precision against recall at IoU 0.5"
    figure = new_figure(max(5.5, 2.3 * across), 1.9 * down + 0.7, title)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    rows: list[dict[str, Any]] = []
    for axes, label in zip(grid.flat, order):
        curve, name = result.voc.curves[label], result.classes[label]
        here = _thinned(len(curve.scores))
        _panel(axes, curve, f"{literal(name)}   {100 * result.voc.voc10[label, 0]:.1f}", here)
        columns = {"score": curve.scores, "recall": curve.recall, "precision": curve.precision, "envelope": envelope(curve.precision)}
        rows += [{"class": name} | row for row in columns_to_rows({key: values[here] for key, values in columns.items()})]
    for axes in grid.flat[len(order) :]:
        axes.set_visible(False)
    if not order:
        grid[0, 0].set_visible(True)
        note(tidy(grid[0, 0]), "no objects to find")
    figure.supxlabel("recall", fontsize=9, color=INK)
    figure.supylabel("precision", fontsize=9, color=INK)
    caption = "A panel a class, best first; the number is its VOC10+ AP50 in per cent, the shaded area. Difficult objects are left out."
    return Exhibit("precision_recall", title, caption, figure, rows)


def _panel(axes: Axes, curve: Curve, title: str, here: Ints) -> None:
    tidy(axes, xlim=(0, 1), ylim=(0, 1.03))
    axes.set_title(title, fontsize=9, loc="left", color=INK)
    if len(here):
        recall, best = np.append(0.0, curve.recall[here]), envelope(curve.precision)[here]
        axes.fill_between(recall, np.append(best[0], best), step="pre", color=BLUE, alpha=0.18, linewidth=0)
        axes.step(recall, np.append(best[0], best), where="pre", color=BLUE, linewidth=1.4)
        axes.plot(curve.recall[here], curve.precision[here], color=GREY, linewidth=0.7)


def f1_curve(result: Assessment) -> Exhibit:
    """F1 of every class, and of all detections together, against the confidence that is asked for."""
    confidences = np.linspace(0, 1, 201)
    present = [label for label in range(len(result.classes)) if result.voc.positives[label]]
    curves = {result.classes[label]: f1_at(result.voc.curves[label : label + 1], confidences) for label in present}
    title = "F1 against confidence at IoU 0.5"
    figure = new_figure(7.6, 4.4, title)
    axes = tidy(figure.subplots(), xlabel="confidence", ylabel="F1", xlim=(0, 1), ylim=(0, 1))
    ranked = sorted(curves, key=lambda name: -curves[name].max())
    outer = dict(zip(ranked[:3] + ranked[3:][-3:], COLOURS))
    for name, values in curves.items():
        axes.plot(confidences, values, color=outer.get(name, "#cbd2d9"), linewidth=1.1, zorder=3 if name in outer else 2)
    together = f1_at(result.voc.curves, confidences)
    peak = int(together.argmax())
    axes.plot(confidences, together, color=INK, linewidth=2.4, zorder=4)
    axes.plot(confidences[peak], together[peak], "o", color=INK, markersize=6, zorder=5)
    axes.axvline(result.confidence, color=GREY, linewidth=0.9, linestyle=":")
    lines = [(INK, f"all classes: best {together[peak]:.2f} at {confidences[peak]:.2f}")]
    lines += [(colour, f"{literal(name)}: best {curves[name].max():.2f}") for name, colour in outer.items()]
    for colour, label in lines:
        axes.plot([], [], color=colour, linewidth=2, label=label)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8, labelcolor=INK)
    columns = {"confidence": confidences, "all_classes": together}
    columns |= {f"{name} (class)" if name in columns else name: values for name, values in curves.items()}
    rows = columns_to_rows(columns)
    caption = (
        "The three best and three worst classes in colour, all others grey, all detections together in black; "
        f"the dotted line is the confidence the tables use, {result.confidence:g}."
    )
    return Exhibit("f1_curve", title, caption, figure, rows)


def f1_at(curves: Sequence[Curve], confidences: Floats) -> Floats:
    """F1 of some classes' detections together when only scores of at least each confidence are kept: [C] -> [C]."""
    true, counted = np.zeros(len(confidences)), np.full(len(confidences), float(sum(curve.positives for curve in curves)))
    for curve in curves:
        kept = np.searchsorted(-curve.scores, -confidences, side="right")
        true += np.append(0, curve.true)[kept]
        counted += kept
    return np.divide(2 * true, counted, out=np.zeros_like(true), where=counted > 0)


def confusion(result: Assessment) -> Exhibit:
    """Which classes are taken for which at the operating confidence, each row in per cent of its total."""
    counts = confusion_matrix(result.truth, result.detections, result.classes, result.confidence)
    names = [*result.classes, "background"]
    shown = [literal(name) for name in names]
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    size = max(4.2, 0.36 * len(names) + 1.6)
    title = f"Confusion at confidence {result.confidence:g}, IoU 0.5"
    figure = new_figure(size + 0.6, size, title)
    axes = figure.subplots()
    axes.imshow(shares, cmap=SHADES, vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(shares >= 0.005)):
        ink = "white" if shares[row, column] > 0.45 else INK
        axes.text(column, row, f"{100 * shares[row, column]:.0f}", ha="center", va="center", fontsize=7, color=ink)
    axes.set_xticks(range(len(names)), shown, rotation=60, ha="right", rotation_mode="anchor", fontsize=8, color=INK)
    axes.set_yticks(range(len(names)), [f"{name}  ({total})" for name, total in zip(shown, totals[:, 0])], fontsize=8, color=INK)
    axes.set_xlabel("detected as", fontsize=9, color=INK)
    axes.set_ylabel("is (count)", fontsize=9, color=INK)
    edge = len(names) - 1.5
    axes.axhline(edge, color=GREY, linewidth=0.9)
    axes.axvline(edge, color=GREY, linewidth=0.9)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    cells = list(np.ndindex(counts.shape))
    rows = [{"is": names[i], "detected_as": names[j], "count": int(counts[i, j]), "share": shares[i, j]} for i, j in cells]
    caption = (
        "Rows are objects, columns detections, in per cent of the row. The last column holds objects that were missed, "
        "the last row detections where nothing is. Difficult objects are left out."
    )
    return Exhibit("confusion", title, caption, figure, rows)


def ap_by_iou(result: Assessment) -> Exhibit:
    """Both VOC means against the overlap that is asked for: where a detector's boxes are loose, it falls early."""
    title = "Mean AP against the overlap asked for"
    figure = new_figure(5.6, 3.6, title)
    axes = tidy(figure.subplots(), xlabel="IoU threshold", ylabel="mean AP (%)", xlim=(0.49, 0.96))
    rows = [dict(row) for row in result.metrics["by_iou"]]
    for key, label, colour in (("voc10", "VOC10+ (area)", BLUE), ("voc07", "VOC07 (11-point)", ORANGE)):
        values = [np.nan if row[key] is None else 100 * row[key] for row in rows]
        axes.plot([row["iou"] for row in rows], values, "o-", color=colour, linewidth=1.8, markersize=4, label=label)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return Exhibit("ap_by_iou", title, "The steeper the fall, the looser the boxes.", figure, rows)


def ap_by_class(result: Assessment) -> Exhibit:
    """AP of every class under the three names, best first."""
    table = {name: row for name, row in result.metrics["per_class"].items() if row["objects"]}
    names = sorted(table, key=lambda name: table[name]["voc10_ap50"])
    marks = {
        "voc10_ap50": ("VOC10+ AP50", BLUE, "o"),
        "voc07_ap50": ("VOC07 AP50", ORANGE, "D"),
        "voc10_ap50_95": ("VOC10+ AP50:95", GREEN, "s"),
        "coco_ap": ("COCO AP", RED, "v"),
    }
    title = "Average precision of each class"
    figure = new_figure(6.4, 0.34 * len(names) + 1.5, title)
    axes = tidy(figure.subplots(), xlabel="AP (%)", xlim=(0, 100), ylim=(-0.6, len(names) - 0.4))
    axes.grid(axis="y", visible=False)
    for place, name in enumerate(names):
        row = table[name]
        axes.barh(place, 100 * row["voc10_ap50"], color=BLUE, alpha=0.25, height=0.66)
        for key, (_, colour, mark) in marks.items():
            axes.plot(100 * row[key], place, mark, color=colour, markersize=4.5)
    for label, colour, mark in marks.values():
        axes.plot([], [], mark, color=colour, markersize=4.5, label=label)
    axes.set_yticks(range(len(names)), [literal(name) for name in names], fontsize=8, color=INK)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="center left", bbox_to_anchor=(1.01, 0.5))
    rows = [{"class": name, **{key: table[name][key] for key in ("objects", *marks)}} for name in reversed(names)]
    return Exhibit("ap_by_class", title, "Best first. Classes without objects are left out.", figure, rows)


def _thinned(count: int) -> Ints:
    """At most MOST_POINTS places out of `count`, the first and the last among them."""
    return np.arange(count) if count <= MOST_POINTS else np.unique(np.linspace(0, count - 1, MOST_POINTS).round().astype(np.int64))
