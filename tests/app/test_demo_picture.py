"""The picture tab without a browser: boxes, what the neurons did, and bad input."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from app_samples import NOISE, huge_png, unusual
from PIL import Image

from app.figures import strip
from app.insight import TRACE_STEPS, Sight, trace, watch
from app.models import Models
from app.parts import by_path, read_upload
from app.picture import Looked
from spyolo.boxes import Detections
from spyolo.checkpoint import WeightsInfo, save_weights
from spyolo.data import read_image
from spyolo.detection import build_detector
from spyolo.drawing import save_image
from spyolo.errors import InputError
from spyolo.evaluation.energy import energy_table


def test_boxes_after_each_step_are_the_predictors(models: Models, name: str) -> None:
    model = models.load(name)
    predictor = model.predictor(confidence=0.001, timesteps=3)
    sight = watch(model, predictor, NOISE)
    expected = predictor.each_step(NOISE)
    assert len(sight.steps) == 3 and len(expected[-1]) > 0
    assert all(torch.equal(ours.boxes, theirs.boxes) for ours, theirs in zip(sight.steps, expected))


def test_maps_rates_and_the_meter_agree(models: Models, name: str) -> None:
    model = models.load(name)
    sight = watch(model, model.predictor(timesteps=2), NOISE)
    neurons = {k: m[0].size for k, m in sight.maps.items()}
    assert all(m.shape[0] == 2 for m in sight.maps.values()) and len(neurons) > 10
    for layer, maps in sight.maps.items():
        assert maps.astype(float).mean((1, 2)) == pytest.approx(sight.rates[layer], abs=2e-3)
    assert 0 < sight.energy["synaptic_mj"] < sight.energy["total_mj"]
    assert sight.energy["ann_twin_mj"] == pytest.approx(energy_table(model.twin())["synaptic_mj"])


def test_the_page_shows_boxes_numbers_strip_and_meter(tabs: SimpleNamespace, name: str, noise: str, visitor: Any) -> None:
    boxed, strip, numbers, energy, message = tabs.picture.detect(noise, 0.001, 0.5, 3, name, visitor)
    assert max(read_image(boxed).shape) == 640 and len(strip) == 3 and "found" in message and "ANN twin" in energy
    assert {"class", "score", "box"} == set(numbers[0])
    _, maps, rates, _ = tabs.picture.look_inside([], None, visitor)
    assert Path(maps).suffix == ".png" and rates is not None


def test_an_ordinary_network_is_shown_a_picture_once_whatever_the_slider_says(
    tabs: SimpleNamespace, weights: Path, name: str, noise: str, visitor: Any
) -> None:
    detector, twin = build_detector("yolov4_tiny", 2, width=0.05), weights.with_name("twin.safetensors")
    save_weights(twin, detector, WeightsInfo(detector.spec, ("cat", "dog"), size=64, timesteps=3, nms_iou=0.4))
    try:
        energies = []
        for steps in (1, 4):
            _, strip, _, energy, _ = tabs.picture.detect(noise, 0.3, 0.5, steps, "twin", visitor)
            energies.append(energy)
            assert len(strip) == 1
        assert energies[0] == energies[1] and "Everything that runs" in energies[0] and "rdinary network" not in energies[0]
        assert tabs.picture.draw_trace(None, 1, "twin", visitor) == [None, "An ordinary network has no spikes to show."]
        chosen, overlap = tabs.picture.usual("twin")
        assert (chosen.value, chosen.interactive, overlap) == (1, False, 0.4)
        chosen, overlap = tabs.picture.usual(name)
        assert (chosen.value, chosen.interactive, overlap) == (2, True, 0.5)
    finally:
        twin.unlink()


def test_a_membrane_trace_follows_the_neuron(models: Models, name: str) -> None:
    model = models.load(name)
    seen = trace(model, model.predictor(), NOISE, "backbone.conv1", 60, 40)
    assert seen.u.shape == seen.spikes.shape == (TRACE_STEPS, 5)
    assert (seen.u[seen.spikes] == 0).all() and (seen.u <= seen.threshold).all()


def test_a_click_far_outside_is_taken_to_the_rim(models: Models, name: str) -> None:
    model = models.load(name)
    assert trace(model, model.predictor(), NOISE, "neck.coarse", 1e6, -50).u.shape[0] == TRACE_STEPS


@pytest.mark.parametrize(("file", "told"), [("text.jpg", "no known picture format"), ("empty.png", "empty"), ("huge.png", "smaller")])
def test_they_are_told_without_the_servers_paths(
    tabs: SimpleNamespace, name: str, tmp_path: Path, visitor: Any, file: str, told: str
) -> None:
    path = tmp_path / file
    path.write_bytes({"text.jpg": b"not a picture", "empty.png": b"", "huge.png": huge_png()}[file])
    boxed, *_, message = tabs.picture.detect(str(path), 0.3, 0.5, 2, name, visitor)
    assert boxed is None and tabs.sessions.of(visitor).recall(Looked).sight is None
    assert told in message and file in message and str(tmp_path) not in message


@pytest.mark.parametrize("kind", ["gif", "cmyk", "grey16", "turned", "alpha"])
def test_unusual_but_good_ones_are_shown(tabs: SimpleNamespace, name: str, tmp_path: Path, visitor: Any, kind: str) -> None:
    path = unusual(tmp_path, kind)
    *_, message = tabs.picture.detect(str(path), 0.3, 0.5, 1, name, visitor)
    assert "⚠️" not in message
    assert tabs.sessions.of(visitor).recall(Looked).sight.image.shape == ((120, 80, 3) if kind == "turned" else (80, 120, 3))


def test_a_camera_sends_bytes() -> None:
    coded = io.BytesIO()
    Image.fromarray(NOISE).save(coded, "PNG")
    url = "data:image/png;base64," + base64.b64encode(coded.getvalue()).decode()
    upload = by_path(SimpleNamespace()).preprocess(SimpleNamespace(url=url, path=None))
    assert (read_upload(upload) == NOISE).all()


def test_a_broken_data_url_is_told() -> None:
    upload = by_path(SimpleNamespace()).preprocess(SimpleNamespace(url="data:image/png;base64,!!", path=None))
    with pytest.raises(InputError, match="cannot be read"):
        read_upload(upload)


def test_large_ones_are_shown_smaller(tmp_path: Path) -> None:
    assert read_upload(str(save_image(tmp_path / "wide.png", np.zeros((10, 4000, 3), np.uint8)))).shape == (4, 1600, 3)


@pytest.mark.parametrize(
    ("asked", "told"),
    [((2.0, 0.5, 2), "confidence"), ((0.3, float("nan"), 2), "overlap"), ((0.3, 0.5, 1e9), "time steps"), (("high", 0.5, 2), "confidence")],
)
def test_values_that_no_slider_gives_are_told(tabs: SimpleNamespace, name: str, noise: str, visitor: Any, asked: Any, told: str) -> None:
    boxed, *_, message = tabs.picture.detect(noise, *asked, name, visitor)
    assert boxed is None and told in message


def test_a_file_that_is_gone_is_asked_for_again(tabs: SimpleNamespace, name: str, visitor: Any, tmp_path: Path) -> None:
    *_, message = tabs.picture.detect(str(tmp_path / "gone.png"), 0.3, 0.5, 2, name, visitor)
    assert "give it again" in message


def test_a_click_shows_the_neurons_there(tabs: SimpleNamespace, name: str, noise: str, visitor: Any) -> None:
    tabs.picture.detect(noise, 0.3, 0.5, 2, name, visitor)
    tabs.picture.pick(SimpleNamespace(index=(320, 210)), visitor)
    plot, said = tabs.picture.draw_trace("backbone.conv1", 2, name, visitor)
    assert plot is not None and "pixel 60, 39" in said  # 120 pixels wide, shown at 640


def test_a_very_flat_picture_makes_a_small_strip() -> None:
    """Scaled by its height alone it would be 70,400 pixels wide, and no picture file takes that."""
    flat = np.full((5, 1600, 3), 90, np.uint8)
    (picture, _), *_ = strip(Sight(flat, [Detections.empty()] * 2, {}, {}, {}), ("cat",))
    assert picture.shape[1] == 4 * 220 and picture.shape[0] == 3
