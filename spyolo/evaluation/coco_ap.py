"""COCO's average precision, through the COCO authors' own code (pycocotools) or its faster twin (faster-coco-eval), which gives the same
figures.

COCO has no `difficult`. A difficult object becomes a crowd region: it need not be found, any number of detections may land on it
uncounted, and, as for every crowd, what counts is the share of the detection that lies inside it. Areas are those of the boxes: small
below 32 x 32 pixels, large above 96 x 96. At most 100 detections a picture and class are judged: COCO's rule.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from spyolo.errors import InputError
from spyolo.evaluation.tables import Bools, DetectionTable, Floats, Ints, TruthTable, box_areas

BACKENDS = ("faster_coco_eval", "pycocotools")
FIGURES = ("coco_ap", "coco_ap50", "coco_ap75", "coco_ap_small", "coco_ap_medium", "coco_ap_large")


@dataclass(frozen=True)
class COCOScores:
    """COCO's figures in 0..1; NaN where there is no object to find."""

    figures: dict[str, float]  # the names of FIGURES
    per_class: Floats  # [classes] AP over IoU 0.5..0.95
    backend: str  # the package that worked them out, with its version


def choose_backend(wanted: str = "auto") -> str:
    """`auto` takes faster-coco-eval where it is installed. Raises InputError for a name that is unknown or not installed."""
    if wanted == "auto":
        return next(name for name in BACKENDS if importlib.util.find_spec(name))
    if wanted not in BACKENDS:
        raise InputError(f"unknown COCO backend {wanted!r}: choose auto, {' or '.join(BACKENDS)}")
    if importlib.util.find_spec(wanted) is None:
        raise InputError(f"the COCO backend {wanted} is not installed: choose auto, or `pip install {wanted.replace('_', '-')}`")
    return wanted


def score_coco(
    truth: TruthTable, detections: DetectionTable, classes: Sequence[str], *, backend: str = "auto", quiet: bool = True
) -> COCOScores:
    """COCO's six average precisions and each class's. `quiet=False` lets the package print its own table."""
    name = choose_backend(backend)
    with _collector_paused(), _prints_hidden() if quiet else contextlib.nullcontext():
        evaluation = _evaluate(name, *_as_coco(truth, detections, classes), quiet=quiet)
    precision = evaluation.eval["precision"]  # [thresholds, recalls, classes, areas, detection limits], -1 where there is no object
    whole = precision[..., 0, -1]  # all areas, 100 detections
    values = [whole, whole[0], whole[5], *(precision[..., area, -1] for area in (1, 2, 3))]  # thresholds 0.5, 0.55 ... 0.95
    return COCOScores(
        figures=dict(zip(FIGURES, map(_mean, values))),
        per_class=np.array([_mean(whole[:, :, label]) for label in range(len(classes))]),
        backend=f"{name} {version(name)}",
    )


def _evaluate(name: str, truth: dict[str, Any], results: dict[str, Any], *, quiet: bool) -> Any:
    """The package's evaluation object, accumulated."""
    if name == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval as Evaluation
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as Evaluation
    sides = []
    for dataset in (truth, results):
        side = COCO()
        side.dataset = dataset
        side.createIndex()
        sides.append(side)
    evaluation = Evaluation(*sides, "bbox")
    if quiet:
        evaluation.params.maxDets = [100]  # the limits of 1 and 10 serve only the recalls in the package's printed table
    else:
        evaluation.print_function = print  # faster-coco-eval's; it writes to a log otherwise
    evaluation.evaluate()
    evaluation.accumulate()
    if not quiet:
        evaluation.summarize()
    return evaluation


def _as_coco(truth: TruthTable, detections: DetectionTable, classes: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both tables as COCO data sets: pictures, classes and rows numbered from 1 (pycocotools takes number 0 for "not matched")."""
    head = {
        "images": [{"id": number + 1, "file_name": name} for number, name in enumerate(truth.ids)],
        "categories": [{"id": number + 1, "name": name} for number, name in enumerate(classes)],
    }
    objects = _rows(truth.image, truth.labels, truth.boxes)
    for row, crowd in zip(objects, truth.difficult.tolist()):
        row["iscrowd"] = int(crowd)
    found = _rows(detections.image, detections.labels, detections.boxes)
    for row, score in zip(found, detections.scores.tolist()):
        row["score"] = score
    return head | {"annotations": objects}, head | {"annotations": found}


def _rows(image: Ints, labels: Ints, boxes: Floats) -> list[dict[str, Any]]:
    corners_and_sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    columns = zip((image + 1).tolist(), (labels + 1).tolist(), corners_and_sizes.tolist(), box_areas(boxes).tolist())
    return [
        {"id": number, "image_id": picture, "category_id": category, "bbox": box, "area": area, "iscrowd": 0}
        for number, (picture, category, box, area) in enumerate(columns, start=1)
    ]


def _mean(precision: Floats) -> float:
    given: Bools = precision > -1
    return float(precision[given].mean()) if given.any() else float("nan")


@contextlib.contextmanager
def _prints_hidden() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """A quarter of the time would go into the garbage collector walking a million small dictionaries that are all in use."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
