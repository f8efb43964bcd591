"""The COCO path gives what pycocotools gives when it is called by hand, with either package."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json

import numpy as np
import pytest
from eval_scenes import CLASSES, found, objects, perfect, random_scene, tables
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from spyolo.errors import InputError
from spyolo.evaluation.coco_ap import FIGURES, score_coco

BACKENDS = ["pycocotools", *(["faster_coco_eval"] if importlib.util.find_spec("faster_coco_eval") else [])]
BOX = [0, 0, 10, 10]


def by_hand(truth, detections, folder):
    """pycocotools as its own documentation uses it: two JSON files, loadRes, summarize."""
    numbers = {name: place + 1 for place, name in enumerate(truth)}
    annotations = [
        {
            "image_id": numbers[name],
            "category_id": int(label) + 1,
            "bbox": [float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1])],
            "area": float((b[2] - b[0]) * (b[3] - b[1])),
            "iscrowd": int(hard),
        }
        for name, o in truth.items()
        for b, label, hard in zip(o.boxes, o.labels, o.difficult)
    ]
    for place, row in enumerate(annotations):
        row["id"] = place + 1
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)]
    results = [
        {
            "image_id": numbers[name],
            "category_id": int(label) + 1,
            "bbox": [float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1])],
            "score": float(score),
        }
        for name, f in detections.items()
        for b, label, score in zip(f.boxes, f.labels, f.scores)
    ]
    (folder / "truth.json").write_text(
        json.dumps({"images": [{"id": n} for n in numbers.values()], "annotations": annotations, "categories": categories})
    )
    (folder / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(coco, coco.loadRes(str(folder / "results.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [value if value > -1 else np.nan for value in evaluation.stats[:6]]


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_agrees_with_pycocotools_called_directly(backend, seed, tmp_path_factory):
    truth, detections = random_scene(seed, span=100)
    if not any(len(f) for f in detections.values()):
        return
    scores = score_coco(*tables(truth, detections), CLASSES, backend=backend)
    expected = by_hand(truth, detections, tmp_path_factory.mktemp("coco"))
    np.testing.assert_allclose(list(scores.figures.values()), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_figures_and_the_backend_have_names(backend):
    truth = {"a": objects(("cat", BOX), ("dog", [0, 0, 50, 50]))}
    scores = score_coco(*tables(truth, perfect(truth)), CLASSES, backend=backend)
    assert tuple(scores.figures) == FIGURES
    assert scores.figures["coco_ap"] == scores.figures["coco_ap_small"] == scores.figures["coco_ap_medium"] == pytest.approx(1.0)
    assert np.isnan(scores.figures["coco_ap_large"])  # nothing that large
    np.testing.assert_allclose(scores.per_class, [np.nan, 1, 1])
    assert scores.backend.startswith(backend + " ")


@pytest.mark.parametrize("backend", BACKENDS)
def test_detections_on_a_difficult_object_count_neither_way(backend):
    truth = {"a": objects(("cat", BOX, "difficult"), ("cat", [50, 50, 60, 60]))}
    on_it = {"a": found(("cat", 0.9, BOX), ("cat", 0.8, BOX), ("cat", 0.7, [50, 50, 60, 60]))}
    beside = {"a": found(("cat", 0.9, [20, 20, 30, 30]), ("cat", 0.7, [50, 50, 60, 60]))}
    assert score_coco(*tables(truth, on_it), CLASSES, backend=backend).figures["coco_ap50"] == pytest.approx(1.0)
    assert score_coco(*tables(truth, beside), CLASSES, backend=backend).figures["coco_ap50"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_found_is_zero_and_nothing_to_find_is_no_figure(backend):
    truth = {"a": objects(("cat", BOX))}
    assert score_coco(*tables(truth, {}), CLASSES, backend=backend).figures["coco_ap"] == 0.0
    empty = {"a": objects()}
    assert np.isnan(score_coco(*tables(empty, {"a": found(("cat", 0.9, BOX))}), CLASSES, backend=backend).figures["coco_ap"])
    assert np.isnan(score_coco(*tables(empty, {}), CLASSES, backend=backend).figures["coco_ap"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_prints_its_own_table_only_when_asked(backend, capsys):
    truth = {"a": objects(("cat", BOX))}
    score_coco(*tables(truth, perfect(truth)), CLASSES, backend=backend)
    assert capsys.readouterr().out == ""
    score_coco(*tables(truth, perfect(truth)), CLASSES, backend=backend, quiet=False)
    assert "Average Precision" in capsys.readouterr().out


def test_an_unknown_backend_is_refused():
    with pytest.raises(InputError, match="unknown COCO backend 'excel'"):
        score_coco(*tables({}, {}), CLASSES, backend="excel")
