"""Evaluation: VOC and COCO average precision, predictions in and out, energy and sparsity, plots and reports."""

from spyolo.evaluation.coco_json import write_coco_json
from spyolo.evaluation.metrics import Assessment, assess, evaluate_detections, format_metrics, format_protocol
from spyolo.evaluation.predictions import read_predictions
from spyolo.evaluation.tables import DetectionTable, TruthTable
from spyolo.evaluation.voc_text import write_voc_text

__all__ = [
    "Assessment",
    "DetectionTable",
    "TruthTable",
    "assess",
    "evaluate_detections",
    "format_metrics",
    "format_protocol",
    "read_predictions",
    "write_coco_json",
    "write_voc_text",
]
