"""k-means on shapes, with 1 - IoU for a distance."""

from __future__ import annotations

import json

import numpy as np
import pytest

from spyolo.cli import run
from spyolo.data import SAMPLE_CLASSES, VOCSet
from spyolo.data.annotation import Thing
from spyolo.data.kmeans import anchor_fit, box_sides, fit_anchors, parse_anchors, shape_iou
from spyolo.errors import InputError


def test_iou_of_shapes_by_hand():
    iou = shape_iou(np.array([[10.0, 20.0]]), np.array([[10.0, 20.0], [20.0, 10.0], [5.0, 10.0]]))
    assert iou == pytest.approx(np.array([[1, 100 / 300, 50 / 200]]))


def test_it_finds_shapes_that_are_there():
    rng = np.random.default_rng(0)
    truth = np.array([[12, 20], [40, 30], [50, 120], [300, 250]])
    sides = np.repeat(truth, 50, axis=0) * rng.uniform(0.95, 1.05, (200, 2))
    assert fit_anchors(sides, 4) == pytest.approx(truth, rel=0.05)


def test_small_boxes_count_as_much_as_large_ones():
    """Euclidean k-means would spend both anchors on the large boxes."""
    sides = np.array([[10.0, 10], [11, 11], [12, 12], [200, 200], [260, 260], [320, 320]])
    assert fit_anchors(sides, 2)[0].max() < 20


def test_the_same_seed_gives_the_same_anchors(sample_root):
    sides = box_sides(VOCSet(sample_root, "2007:train", SAMPLE_CLASSES), 160)
    assert np.array_equal(fit_anchors(sides, 6, seed=3), fit_anchors(sides, 6, seed=3))
    fitted, worse = (anchor_fit(sides, a)["mean_best_iou"] for a in (fit_anchors(sides, 6), parse_anchors("5,5 6,6 7,7 8,8 9,9 10,10")))
    assert fitted > worse


def test_sides_are_those_on_the_canvas_without_difficult_ones(make_devkit):
    root = make_devkit({"a": [Thing("cat", (0, 0, 32, 12)), Thing("cat", (0, 0, 5, 5), difficult=True)]}, size=(64, 48))
    assert box_sides(VOCSet(root, "2007:train", ("cat",)), 128).tolist() == [[64, 24]]


def test_too_few_boxes_and_bad_pairs(make_devkit):
    with pytest.raises(InputError, match="6 anchors cannot be fitted to 2 different"):
        fit_anchors(np.array([[1.0, 2], [1, 2], [3, 4]]), 6)
    assert parse_anchors("10,14 23,27").tolist() == parse_anchors("10,14,23,27").tolist() == [[10, 14], [23, 27]]
    for bad in ("", "10", "10,-4", "10,nan", "a,b"):
        with pytest.raises(InputError, match="pairs of width,height"):
            parse_anchors(bad)


def test_command_line(sample_root, tmp_path, capsys):
    out = tmp_path / "anchors.json"
    assert run("anchors", ["--data", str(sample_root), "--classes", "sample", "--json", str(out)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    told = json.loads(out.read_text())
    assert last == "--anchors " + ",".join(f"{v:g}" for pair in told["fitted"]["anchors"] for v in pair)
    assert told["fitted"]["mean_best_iou"] > told["compared"]["mean_best_iou"]
    assert run("anchors", ["--data", str(tmp_path), "--classes", "sample"]) == 2


def test_another_size_hands_train_the_same_anchors_and_compares_as_well(sample_root, tmp_path, capsys):
    """The config takes anchors at 416 pixels, and the detector's grow with its input."""
    told, lines = {}, {}
    for size in (416, 208):
        out = tmp_path / f"{size}.json"
        assert run("anchors", ["--data", str(sample_root), "--classes", "sample", "--size", str(size), "--json", str(out)]) == 0
        lines[size] = parse_anchors(capsys.readouterr().out.splitlines()[-1].removeprefix("--anchors "))
        told[size] = json.loads(out.read_text())
    assert lines[208] == pytest.approx(lines[416], abs=0.2)
    assert np.array(told[208]["fitted"]["anchors"]) * 2 == pytest.approx(np.array(told[416]["fitted"]["anchors"]), abs=0.2)
    assert told[208]["compared"]["mean_best_iou"] == pytest.approx(told[416]["compared"]["mean_best_iou"], abs=1e-3)


def test_a_line_for_train_only_where_train_takes_it(sample_root, capsys):
    assert run("anchors", ["--data", str(sample_root), "--classes", "sample", "--count", "4"]) == 0
    assert "--anchors" not in capsys.readouterr().out
