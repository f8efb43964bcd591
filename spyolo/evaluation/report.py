"""The HTML report: one file that stands alone. Pictures are inside it, there are no scripts, and nothing is fetched from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from spyolo.evaluation.metrics import percent, plainly
from spyolo.evaluation.plot import Exhibit
from spyolo.files import write_whole

HEADLINES = (
    ("VOC07 AP50", "voc07_ap50"), ("VOC10+ AP50", "voc10_ap50"), ("VOC10+ AP50:95", "voc10_ap50_95"),
    ("COCO AP", "coco_ap"), ("COCO AP50", "coco_ap50"), ("COCO AP75", "coco_ap75"),
)  # fmt: skip

CLASS_COLUMNS = (
    ("objects", "objects"), ("difficult", "difficult"), ("detections", "detections"), ("VOC07 AP50", "voc07_ap50"),
    ("VOC10+ AP50", "voc10_ap50"), ("VOC10+ AP50:95", "voc10_ap50_95"), ("COCO AP", "coco_ap"), ("precision", "precision"),
    ("recall", "recall"), ("F1", "f1"), ("best F1", "best_f1"), ("at confidence", "best_f1_confidence"),
)  # fmt: skip

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; background: #f5f7fa; margin: 0; }
main { max-width: 1180px; margin: 0 auto; padding: 24px; }
h1 { font-size: 26px; margin: 8px 0 2px; } h2 { font-size: 19px; margin: 36px 0 10px; }
section, .tile { background: #fff; border: 1px solid #e4e7eb; border-radius: 8px; }
section { padding: 14px 18px; margin: 14px 0; overflow-x: auto; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; } .tile { padding: 10px 16px; min-width: 120px; }
.tile b { display: block; font-size: 24px; } .tile span, .small, figcaption { color: #52606d; font-size: 13px; }
table { border-collapse: collapse; font-size: 13px; } th { color: #52606d; font-weight: 600; }
th, td { padding: 3px 7px; text-align: right; border-bottom: 1px solid #eef1f4; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } .protocol td { text-align: left; white-space: normal; }
figure { margin: 0; } pre { white-space: pre-wrap; font-size: 13px; } img { max-width: 100%; height: auto; }
.warning { border-left: 4px solid #e69f00; }
"""


def report_html(
    title: str,
    metrics: Mapping[str, Any],
    exhibits: Sequence[Exhibit],
    *,
    figures: Sequence[tuple[str, str]] = (),
    texts: Sequence[tuple[str, str]] = (),
    warnings: Sequence[str] = (),
    data_folder: str | None = None,
) -> str:
    """The report's text.

    Args:
        title: its headline.
        metrics: of `evaluate_detections`.
        exhibits: plots and sheets, in order.
        figures: further (name, value) headlines, such as energy.
        texts: (title, preformatted text) sections, such as the energy table.
        warnings: shown at the top.
        data_folder: where, seen from the report, each exhibit's PNG, JSON and CSV lie; None leaves out the links.
    """
    tiles = [(name, percent(metrics[key])) for name, key in HEADLINES] + list(figures)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="small">{escape(_summary(metrics["protocol"]))}</p>',
        *(f'<section class="warning">{escape(warning)}</section>' for warning in warnings),
        '<div class="tiles">' + "".join(f'<div class="tile"><span>{escape(n)}</span><b>{escape(v)}</b></div>' for n, v in tiles) + "</div>",
        "<h2>Protocol</h2>", f"<section>{_protocol(metrics['protocol'])}</section>",
        "<h2>Classes</h2>", f"<section>{_classes(metrics)}</section>",
        *(f"<h2>{escape(name)}</h2><section><pre>{escape(text)}</pre></section>" for name, text in texts),
        *(_figure(exhibit, data_folder) for exhibit in exhibits),
    ]  # fmt: skip
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n' + "\n".join(parts) + "\n</main></body></html>\n"


def write_report(path: str | Path, title: str, metrics: Mapping[str, Any], exhibits: Sequence[Exhibit], **options: Any) -> None:
    """Write the report; options as for `report_html`. Raises InputError where that cannot be written."""
    write_whole(path, report_html(title, metrics, exhibits, **options))


def _summary(protocol: Mapping[str, Any]) -> str:
    split = f"{protocol['split']}: " if protocol.get("split") else ""
    return (
        f"{split}{protocol['pictures']} pictures, {protocol['objects']} objects and {protocol['difficult_objects']} difficult ones, "
        f"{protocol['detections']} detections; shares in per cent"
    )


def _protocol(protocol: Mapping[str, Any]) -> str:
    flat = {**{key: value for key, value in protocol.items() if key != "rules"}, **protocol.get("rules", {})}
    rows = []
    for key, value in flat.items():
        if value is not None:
            rows.append(f"<tr><td>{escape(str(key).replace('_', ' '))}</td><td>{escape(plainly(value))}</td></tr>")
    return f'<table class="protocol">{"".join(rows)}</table>'


def _classes(metrics: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title, _ in CLASS_COLUMNS)
    rows = []
    for name, row in metrics["per_class"].items():
        cells = [_cell(key, row[key]) for _, key in CLASS_COLUMNS]
        rows.append(f"<tr><td>{escape(name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    absent = metrics["absent_classes"]
    note = f'<p class="small">No objects of {escape(", ".join(absent))}: no AP, left out of the means.</p>' if absent else ""
    return f"<table><tr><th>class</th>{head}</tr>{''.join(rows)}</table>{note}"


def _cell(key: str, value: Any) -> str:
    if key in ("objects", "difficult", "detections"):
        return str(value)
    return f"{value:.3f}" if key == "best_f1_confidence" and value is not None else percent(value)


def _figure(exhibit: Exhibit, data_folder: str | None) -> str:
    picture = f'<img alt="{escape(exhibit.title)}" src="data:image/png;base64,{base64.b64encode(exhibit.png).decode()}">'
    links = ""
    if data_folder is not None:
        anchors = [f'<a href="{escape(data_folder)}/{escape(exhibit.name)}.{kind}">{kind.upper()}</a>' for kind in ("png", "json", "csv")]
        links = " " + " ".join(anchors)
    words = f"<figcaption>{escape(exhibit.caption)}{links}</figcaption>"
    heading = "" if isinstance(exhibit.drawing, Figure) else f"<h2>{escape(exhibit.title)}</h2>"  # a figure holds its own
    return f"{heading}<section><figure>{picture}{words}</figure></section>"
