"""Every plot is drawn, shows the numbers it is given, and saves them beside the picture."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from eval_scenes import CLASSES, objects, random_scene
from PIL import Image

from spyolo.evaluation.metrics import assess
from spyolo.evaluation.plots import MOST_POINTS, confusion, detection_plots, f1_at, f1_curve, precision_recall
from spyolo.evaluation.plots_running import anytime_curve, energy_by_layer, energy_plots, firing_rates


@pytest.fixture(scope="module")
def result():
    return assess(*random_scene(21, pictures=20, span=60), CLASSES, confidence=0.4)


def running_plots():
    return [
        firing_rates([[0.1, 0.2], [0.05, 0.0], [0.3, 0.4]], ["stem", "csp1", "head"]),
        energy_by_layer({"stem": {"MAC": 0.5}, "csp1": {"MAC": 0.1, "AC": 0.2}}),
        anytime_curve([{"timesteps": t, "ap50": t / 10, "latency_ms": 2.0 * t, "energy_mj": None} for t in (1, 2, 3)]),
    ]


def ink(plot):
    """Share of the picture's pixels that are not white."""
    return float((np.asarray(Image.open(io.BytesIO(plot.png)).convert("L")) < 250).mean())


@pytest.mark.parametrize("place", range(5))
def test_every_detection_plot_is_a_picture_with_something_on_it(result, place):
    assert 0.005 < ink(detection_plots(result)[place]) < 0.9


@pytest.mark.parametrize("place", range(3))
def test_every_running_plot_is_a_picture_with_something_on_it(place):
    assert 0.01 < ink(running_plots()[place]) < 0.9


def test_a_plot_saves_picture_json_and_csv_with_the_same_numbers(tmp_path):
    plot = running_plots()[1]
    paths = plot.save(tmp_path / "plots")
    assert [path.name for path in paths] == ["energy_by_layer.png", "energy_by_layer.json", "energy_by_layer.csv"]
    assert json.loads(paths[1].read_text())["rows"] == [{"layer": "stem", "MAC": 0.5, "AC": 0}, {"layer": "csp1", "MAC": 0.1, "AC": 0.2}]
    assert list(csv.reader(paths[2].open())) == [["layer", "MAC", "AC"], ["stem", "0.5", "0.0"], ["csp1", "0.1", "0.2"]]


def test_precision_recall_shows_the_curve_of_every_class_that_is_there(result):
    rows = precision_recall(result).rows
    for label, name in enumerate(CLASSES):
        mine = [row for row in rows if row["class"] == name]
        assert len(mine) == min(MOST_POINTS, len(result.voc.curves[label].scores))
        assert mine[-1]["recall"] == result.voc.curves[label].recall[-1]
        assert all(row["envelope"] >= row["precision"] for row in mine)


def test_f1_at_a_confidence_is_the_operating_points(result):
    at = result.metrics["per_class"]
    for label, name in enumerate(CLASSES):
        assert f1_at(result.voc.curves[label : label + 1], np.array([0.4]))[0] == pytest.approx(at[name]["f1"])
    assert f1_at(result.voc.curves, np.array([0.4]))[0] == pytest.approx(result.metrics["f1"])


def test_confusion_rows_add_up_to_one(result):
    rows = confusion(result).rows
    assert len(rows) == 16
    for name in (*CLASSES, "background"):
        assert sum(row["share"] for row in rows if row["is"] == name) == pytest.approx(1.0)


def test_firing_rates_and_energy_name_their_layers():
    rates, energy, _ = running_plots()
    assert rates.rows[3] == {"layer": "csp1", "step": 2, "rate": 0.0}
    assert "17.5 %" in rates.caption
    assert "0.8 mJ a picture in all" in energy.caption


def test_the_anytime_curve_leaves_out_what_was_not_measured():
    plot = running_plots()[2]
    assert [axes.get_xlabel() for axes in plot.drawing.axes] == ["time steps T", "latency (ms a picture)"]
    twin = {"name": "ANN twin", "ap50": 0.5, "energy_mj": 15.7}
    with_twin = anytime_curve([{"timesteps": 1, "ap50": 0.4, "energy_mj": 1.0}], reference=twin)
    assert [axes.get_xlabel() for axes in with_twin.drawing.axes] == ["time steps T", "energy (mJ a picture)"]
    assert with_twin.rows[-1]["energy_mj"] == 15.7 and "The star is ANN twin" in with_twin.caption


def test_nothing_to_draw_is_still_a_picture():
    empty = assess({"a": objects()}, {}, CLASSES)
    for plot in (*detection_plots(empty), energy_by_layer({}), anytime_curve([{"timesteps": 1, "ap50": None}])):
        assert len(plot.png) > 1000


def test_class_names_are_shown_as_they_are():
    """A dollar sign starts a formula in matplotlib; a class name is none."""
    names = ("bi$_$rd", "c$at", "d_og")
    result = assess({"a": objects(("bird", [0, 0, 9, 9]))}, {}, names)
    for plot in (*detection_plots(result), firing_rates([[0.1]], names[:1]), energy_by_layer({names[0]: {names[0]: 1.0}})):
        assert len(plot.png) > 1000


def test_classes_named_as_a_column_have_columns_of_their_own():
    result = assess({"a": objects(("bird", [0, 0, 9, 9]), ("cat", [0, 0, 9, 9]))}, {}, ("confidence", "all_classes", "dog"))
    rows = f1_curve(result).rows
    assert set(rows[0]) == {"confidence", "all_classes", "confidence (class)", "all_classes (class)"}
    assert [rows[0]["confidence"], rows[-1]["confidence"]] == [0, 1] and len(detection_plots(result)) == 5


def test_the_energy_of_a_recording_is_that_of_a_window():
    table = {"layers": [{"name": "stem.synapse.conv", "part": "synapse", "energy_mj": [0.5, 0.25]}]}
    for more, what in (({}, "picture"), ({"priced": "window"}, "window")):
        (plot,) = energy_plots(table | more)
        assert plot.title == f"Energy of each layer, mJ a {what}" and f"0.75 mJ a {what} in all" in plot.caption
