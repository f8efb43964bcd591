"""All detection metrics of one set of detections, each under its own name, with the protocol that they depend on beside them.

    metrics = evaluate_detections(truth, detections, classes)
    print(format_metrics(metrics))

Shares and APs are in 0..1 in the dictionary and in per cent in the table. None stands where there is no figure: a class without objects
has no AP and is left out of every mean, and `absent_classes` says which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spyolo.boxes import Detections, Objects
from spyolo.errors import InputError
from spyolo.evaluation.coco_ap import COCOScores, score_coco
from spyolo.evaluation.files import json_safe
from spyolo.evaluation.operating import OperatingPoint, at_confidence, best_f1
from spyolo.evaluation.tables import DetectionTable, TruthTable, class_counts
from spyolo.evaluation.voc_ap import VOCScores, score_voc

RULES = {
    "voc07": "VOC2007 devkit: 11-point interpolation; each detection meets the object of its class it overlaps most; the +1 pixel",
    "voc10": "VOC2010+ devkit: area under the monotone precision-recall curve, matched as for voc07",
    "coco": "COCO: 101 recall points, IoU 0.50:0.05:0.95, at most 100 detections a picture and class",
    "voc_difficult": "not counted among the positives; detections on them count neither way",
    "coco_difficult": "crowd regions: need not be found; detections mostly inside them count neither way",
    "absent_classes": "no AP, left out of the means",
    "ties": "equal scores in the order given",
}


@dataclass(frozen=True)
class Assessment:
    """Everything worked out about one set of detections; `metrics` is the part to print and keep, the rest is for plots."""

    classes: tuple[str, ...]
    truth: TruthTable
    detections: DetectionTable
    confidence: float  # of the operating point
    voc: VOCScores
    coco: COCOScores
    metrics: dict[str, Any]  # JSON-safe


def evaluate_detections(
    truth: Mapping[str, Objects] | TruthTable,
    detections: Mapping[str, Detections] | DetectionTable,
    classes: Sequence[str],
    *,
    confidence: float = 0.5,
    backend: str = "auto",
    protocol: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Judge detections against truth; see `assess`, of which this returns `metrics`.

    Returns:
        `voc07_ap50, voc07_ap50_95, voc10_ap50, voc10_ap75, voc10_ap50_95, coco_ap, coco_ap50, coco_ap75, coco_ap_small, coco_ap_medium,
        coco_ap_large`, `precision, recall, f1` over all classes at `confidence`, `per_class`, `absent_classes`, `by_iou` and `protocol`.
    """
    return assess(truth, detections, classes, confidence=confidence, backend=backend, protocol=protocol).metrics


def assess(
    truth: Mapping[str, Objects] | TruthTable,
    detections: Mapping[str, Detections] | DetectionTable,
    classes: Sequence[str],
    *,
    confidence: float = 0.5,
    backend: str = "auto",
    protocol: Mapping[str, Any] | None = None,
) -> Assessment:
    """Judge detections against truth.

    Args:
        truth: every picture judged, also those without objects.
        detections: of those pictures; one that is missing has none.
        classes: names in label order.
        confidence: where precision, recall and F1 are read.
        backend: see `score_coco`.
        protocol: what only the caller knows (split, weights, floor, NMS, T); put in front of the rules.

    Raises:
        InputError: a picture not in the truth, a label outside the classes, a score or coordinate that is no number, a box upside down.
    """
    truth = truth if isinstance(truth, TruthTable) else TruthTable.of(truth)
    detections = detections if isinstance(detections, DetectionTable) else DetectionTable.of(detections, truth.ids, classes)
    if len(truth) and not 0 <= truth.labels.min() <= truth.labels.max() < len(classes):
        raise InputError(f"the truth has class indices outside 0..{len(classes) - 1}; read it with the same class list as the detections")
    if detections.ids != truth.ids:
        raise InputError("truth and detections number their pictures differently; read both with the same list of ids")
    voc = score_voc(truth, detections, len(classes))
    coco = score_coco(truth, detections, classes, backend=backend)
    metrics = _figures(voc, coco) | _operating(voc, confidence)
    metrics["per_class"] = _per_class(voc, coco, detections, classes, confidence)
    metrics["absent_classes"] = [classes[label] for label in voc.absent]
    metrics["by_iou"] = [
        {"iou": threshold, "voc07": voc07, "voc10": voc10}
        for threshold, voc07, voc10 in zip(voc.thresholds, voc.mean(voc.voc07), voc.mean(voc.voc10))
    ]
    metrics["protocol"] = dict(protocol or {}) | _protocol(truth, detections, classes, coco, confidence)
    return Assessment(tuple(classes), truth, detections, confidence, voc, coco, json_safe(metrics))


def _figures(voc: VOCScores, coco: COCOScores) -> dict[str, Any]:
    voc07, voc10 = voc.mean(voc.voc07), voc.mean(voc.voc10)
    return {
        "voc07_ap50": voc07[0],
        "voc07_ap50_95": voc07.mean(),
        "voc10_ap50": voc10[0],
        "voc10_ap75": voc10[voc.thresholds.index(0.75)],
        "voc10_ap50_95": voc10.mean(),
        **coco.figures,
    }


def _operating(voc: VOCScores, confidence: float) -> dict[str, Any]:
    """All classes' counts together."""
    points = [at_confidence(curve, confidence) for curve in voc.curves]
    total = OperatingPoint(*(sum(getattr(point, name) for point in points) for name in ("true", "false", "positives")))
    return {"precision": total.precision, "recall": total.recall, "f1": total.f1}


def _per_class(
    voc: VOCScores, coco: COCOScores, detections: DetectionTable, classes: Sequence[str], confidence: float
) -> dict[str, dict[str, Any]]:
    counts = class_counts(detections.labels, classes)
    table = {}
    for label, name in enumerate(classes):
        curve = voc.curves[label]
        point, best = at_confidence(curve, confidence), best_f1(curve)
        table[name] = {
            "objects": int(voc.positives[label]),
            "difficult": int(voc.difficult[label]),
            "detections": counts[name],
            "voc07_ap50": voc.voc07[label, 0],
            "voc10_ap50": voc.voc10[label, 0],
            "voc10_ap50_95": voc.voc10[label].mean(),
            "coco_ap": coco.per_class[label],
            "precision": point.precision,
            "recall": point.recall,
            "f1": point.f1,
            "best_f1": best[1] if best else None,
            "best_f1_confidence": best[0] if best else None,
        }
    return table


def _protocol(
    truth: TruthTable, detections: DetectionTable, classes: Sequence[str], coco: COCOScores, confidence: float
) -> dict[str, Any]:
    return {
        "pictures": len(truth.ids),
        "pictures_without_objects": len(truth.ids) - len(np.unique(truth.image)),
        "objects": int((~truth.difficult).sum()),
        "difficult_objects": int(truth.difficult.sum()),
        "detections": len(detections),
        "classes": list(classes),
        "lowest_score": detections.scores.min() if len(detections) else None,
        "operating_confidence": confidence,
        "coco_backend": coco.backend,
        "rules": dict(RULES),
    }


def format_metrics(metrics: Mapping[str, Any]) -> str:
    """The metrics as a table for the terminal: the means, then a line a class, in per cent."""
    shown = (
        ("VOC07 AP50 (11-point)", "voc07_ap50"), ("VOC10+ AP50 (area)", "voc10_ap50"), ("VOC10+ AP75", "voc10_ap75"),
        ("VOC10+ AP50:95", "voc10_ap50_95"), ("COCO AP", "coco_ap"), ("COCO AP50", "coco_ap50"), ("COCO AP75", "coco_ap75"),
        ("COCO AP small", "coco_ap_small"), ("COCO AP medium", "coco_ap_medium"), ("COCO AP large", "coco_ap_large"),
    )  # fmt: skip
    confidence = metrics["protocol"]["operating_confidence"]
    lines = [f"{title:<24}{percent(metrics[key]):>7}" for title, key in shown]
    lines.append(f"at confidence {confidence:g}: precision {percent(metrics['precision'])}, recall {percent(metrics['recall'])}")
    columns = (
        ("objects", "objects"), ("found", "detections"), ("VOC07", "voc07_ap50"), ("VOC10+", "voc10_ap50"), ("50:95", "voc10_ap50_95"),
        ("COCO", "coco_ap"), ("prec.", "precision"), ("recall", "recall"), ("F1", "f1"), ("best F1", "best_f1"),
        ("at conf.", "best_f1_confidence"),
    )  # fmt: skip
    wide = max([len("class"), *map(len, metrics["per_class"])]) + 1
    lines += ["", "class".ljust(wide) + "".join(f"{title:>9}" for title, _ in columns)]
    for name, row in metrics["per_class"].items():
        cells = [f"{row[key]}" if key in ("objects", "detections") else percent(row[key]) for _, key in columns]
        lines.append(name.ljust(wide) + "".join(f"{cell:>9}" for cell in cells))
    if metrics["absent_classes"]:
        lines.append(f"no objects of {', '.join(metrics['absent_classes'])}: no AP, left out of the means")
    return "\n".join(lines)


def format_protocol(protocol: Mapping[str, Any]) -> str:
    """The protocol, a line an entry."""
    flat = {key: value for key, value in protocol.items() if key != "rules"} | dict(protocol.get("rules", {}))
    return "\n".join(f"  {key.replace('_', ' ')}: {plainly(value)}" for key, value in flat.items() if value is not None)


def plainly(value: Any) -> str:
    """A value of the protocol for a reader."""
    if isinstance(value, list):
        return f"{len(value)}: {', '.join(map(str, value))}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def percent(share: float | None) -> str:
    """0.5317 -> `53.17`; None -> `-`."""
    return "-" if share is None else f"{100 * share:.2f}"
