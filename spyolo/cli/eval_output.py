"""What an evaluation leaves behind: metrics, predictions in others' formats, the report with its plots and sheets."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spyolo.cli.noted import noted

if TYPE_CHECKING:
    from spyolo.cli.eval_model import Measured
    from spyolo.evaluation.metrics import Assessment


def write(args: argparse.Namespace, measured: Measured, result: Assessment, metrics: dict[str, Any]) -> list[Path]:
    """Write what was asked for; the paths written."""
    from spyolo.evaluation.coco_json import write_coco_json
    from spyolo.evaluation.files import write_json
    from spyolo.evaluation.voc_text import write_voc_text

    written = []
    known, figures = len(metrics["warnings"]), [Path(p) for p in (args.json, Path(args.out) / "metrics.json" if args.out else None) if p]
    for path in figures:
        write_json(path, metrics)
        written.append(path)
    said = result.detections.by_image()
    if args.save_predictions:
        write_coco_json(args.save_predictions, said, measured.classes)
        written.append(Path(args.save_predictions))
    if args.voc_text:
        write_voc_text(args.voc_text, said, measured.classes)
        written.append(Path(args.voc_text))
    if args.report:
        written.append(report(args, measured, result, metrics))
        for path in figures if len(metrics["warnings"]) > known else []:  # what the report had to tell belongs to them
            write_json(path, metrics)
    return written


def report(args: argparse.Namespace, measured: Measured, result: Assessment, metrics: dict[str, Any]) -> Path:
    """Plots, sheets and the report, all in --out."""
    from spyolo.evaluation.energy import format_energy
    from spyolo.evaluation.pictures import picture_or_grey
    from spyolo.evaluation.plots import detection_plots
    from spyolo.evaluation.plots_running import anytime_curve, energy_plots
    from spyolo.evaluation.report import write_report
    from spyolo.evaluation.sheets import picture_sheets

    exhibits = detection_plots(result)
    figures, texts = [], []
    if len(metrics.get("anytime", [])) > 1:
        points = [row | {"ap50": row["voc10_ap50"]} for row in metrics["anytime"]]
        exhibits.insert(0, anytime_curve(points, reference=metrics.get("compared_with")))
    if measured.energy is not None:
        exhibits += energy_plots(measured.energy)
        texts.append(("Energy", format_energy(measured.energy)))
        figures.append(("synaptic only", f"{measured.energy['synaptic_mj']:.3f} mJ"))
        figures.append(("everything", f"{measured.energy['total_mj']:.3f} mJ"))
        if (rate := measured.energy["firing_rate"]) is not None:
            figures.append(("firing rate", f"{100 * rate:.1f} %"))
    if any(measured.voc.image_path(i).is_file() for i in range(len(measured.voc))):
        with noted(metrics["warnings"]):
            exhibits += picture_sheets(result, partial(picture_or_grey, measured.voc))
    else:
        metrics["warnings"].append("no pictures on disk: the report has no sheets of them")
    for exhibit in exhibits:
        exhibit.save(Path(args.out) / "plots")
    path = Path(args.out) / "report.html"
    title = f"{Path(args.weights or args.predictions).name} on {args.split}"
    write_report(path, title, metrics, exhibits, figures=figures, texts=texts, warnings=metrics["warnings"], data_folder="plots")
    return path
