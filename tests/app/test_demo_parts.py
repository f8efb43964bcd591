"""The demo without a browser: models on offer, pictures, streams, lessons, and bad input."""

from __future__ import annotations

import gc
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from app.examples import draw_examples
from app.insight import TRACE_STEPS, trace, watch
from app.learn import Desk, LearnTab
from app.live import CARRIED, FRESH, LiveTab, Stream
from app.models import Models, about
from app.parts import by_path, read_upload
from app.picture import PictureTab
from spyolo.cli.demo import main
from spyolo.drawing import save_image
from spyolo.errors import InputError
from spyolo.evaluation.energy import energy_table
from spyolo.outputs import VideoFile
from spyolo.sources import video_frames

NOISE = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tabs(models: Models, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    with gr.Blocks():
        chosen = gr.Dropdown(models.names())
        folder = tmp_path_factory.mktemp("tabs")
        pictures, video = draw_examples(folder)
        picture, live = PictureTab(models, chosen, pictures), LiveTab(models, chosen, video, folder)
        learn = LearnTab(models, chosen, pictures, folder / "learned")
    return SimpleNamespace(picture=picture, live=live, learn=learn, folder=folder)


@pytest.fixture
def name(models: Models) -> str:
    return models.names()[0]


@pytest.fixture
def noise(tmp_path: Path) -> str:
    return str(save_image(tmp_path / "noise.png", NOISE))


class TestModels:
    def test_a_model_of_drawn_shapes_says_so(self, models: Models, name: str) -> None:
        assert "not on photographs" in about(models.load(name))

    def test_only_what_is_offered_is_loaded(self, models: Models, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no longer there"):
            models.load("/etc/passwd")

    def test_nothing_to_offer_says_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="make train"):
            Models([tmp_path])

    def test_a_file_saved_meanwhile_is_offered(self, weights: Path, tmp_path: Path) -> None:
        models = Models([weights.parent, tmp_path])
        (tmp_path / "new.safetensors").write_bytes(weights.read_bytes())
        assert str(tmp_path / "new.safetensors") in models.names()


class TestPicture:
    def test_boxes_after_each_step_are_the_predictors(self, models: Models, name: str) -> None:
        model = models.load(name)
        predictor = model.predictor(confidence=0.001, timesteps=3)
        sight = watch(model, predictor, NOISE)
        expected = predictor.each_step(NOISE)
        assert len(sight.steps) == 3 and len(expected[-1]) > 0
        assert all(torch.equal(ours.boxes, theirs.boxes) for ours, theirs in zip(sight.steps, expected))

    def test_maps_rates_and_the_meter_agree(self, models: Models, name: str) -> None:
        model = models.load(name)
        sight = watch(model, model.predictor(timesteps=2), NOISE)
        neurons = {k: m[0].size for k, m in sight.maps.items()}
        assert all(m.shape[0] == 2 for m in sight.maps.values()) and len(neurons) > 10
        for layer, maps in sight.maps.items():
            assert maps.astype(float).mean((1, 2)) == pytest.approx(sight.rates[layer], abs=2e-3)
        assert 0 < sight.energy["synaptic_mj"] < sight.energy["total_mj"]
        assert sight.energy["ann_twin_mj"] == pytest.approx(energy_table(model.twin())["synaptic_mj"])

    def test_the_page_shows_boxes_numbers_strip_and_meter(self, tabs: SimpleNamespace, name: str, noise: str) -> None:
        boxed, strip, numbers, energy, message, sight = tabs.picture.detect(noise, 0.001, 0.5, 3, name)
        assert max(boxed.shape) == 640 and len(strip) == 3 and "found" in message and "ANN twin" in energy
        assert {"class", "score", "box"} == set(numbers[0])
        _, maps, rates, _ = tabs.picture.look_inside(sight, [], None)
        assert maps.shape[2] == 4 and rates is not None

    def test_a_membrane_trace_follows_the_neuron(self, models: Models, name: str) -> None:
        model = models.load(name)
        seen = trace(model, model.predictor(), NOISE, "backbone.conv1", 60, 40)
        assert seen.u.shape == seen.spikes.shape == (TRACE_STEPS, 5)
        assert (seen.u[seen.spikes] == 0).all() and (seen.u <= seen.threshold).all()

    def test_a_click_far_outside_is_taken_to_the_rim(self, models: Models, name: str) -> None:
        model = models.load(name)
        assert trace(model, model.predictor(), NOISE, "neck.coarse", 1e6, -50).u.shape[0] == TRACE_STEPS


class TestBadPictures:
    @pytest.mark.parametrize(("file", "told"), [("text.jpg", "no known picture format"), ("empty.png", "empty"), ("huge.png", "smaller")])
    def test_they_are_told_without_the_servers_paths(
        self, tabs: SimpleNamespace, name: str, tmp_path: Path, file: str, told: str
    ) -> None:
        path = tmp_path / file
        path.write_bytes({"text.jpg": b"not a picture", "empty.png": b"", "huge.png": huge_png()}[file])
        boxed, *_, message, sight = tabs.picture.detect(str(path), 0.3, 0.5, 2, name)
        assert boxed is None and sight is None
        assert told in message and file in message and str(tmp_path) not in message

    @pytest.mark.parametrize("kind", ["gif", "cmyk", "grey16", "turned", "alpha"])
    def test_unusual_but_good_ones_are_shown(self, tabs: SimpleNamespace, name: str, tmp_path: Path, kind: str) -> None:
        path = unusual(tmp_path, kind)
        _, _, _, _, message, sight = tabs.picture.detect(str(path), 0.3, 0.5, 1, name)
        assert "⚠️" not in message
        assert sight.image.shape == ((120, 80, 3) if kind == "turned" else (80, 120, 3))

    def test_a_camera_sends_bytes(self) -> None:
        coded = io.BytesIO()
        Image.fromarray(NOISE).save(coded, "PNG")
        import base64

        url = "data:image/png;base64," + base64.b64encode(coded.getvalue()).decode()
        upload = by_path(SimpleNamespace()).preprocess(SimpleNamespace(url=url, path=None))
        assert (read_upload(upload) == NOISE).all()

    def test_a_broken_data_url_is_told(self) -> None:
        upload = by_path(SimpleNamespace()).preprocess(SimpleNamespace(url="data:image/png;base64,!!", path=None))
        with pytest.raises(InputError, match="cannot be read"):
            read_upload(upload)

    def test_large_ones_are_shown_smaller(self, tmp_path: Path) -> None:
        assert read_upload(str(save_image(tmp_path / "wide.png", np.zeros((10, 4000, 3), np.uint8)))).shape == (4, 1600, 3)


class TestStream:
    def frames(self, tabs: SimpleNamespace, name: str, mode: str, count: int) -> tuple[Any, Stream]:
        stream: Any = None
        for _ in range(count):
            coded = io.BytesIO()
            Image.fromarray(NOISE).save(coded, "PNG")
            boxed, _, stream, _ = tabs.live.frame(coded, stream, 0.001, 0.5, mode, 1, name)
        return boxed, stream

    def test_state_is_carried_or_fresh_as_chosen(self, tabs: SimpleNamespace, models: Models, name: str) -> None:
        model = models.load(name)
        predictor = model.predictor(confidence=0.001)
        carried, fresh = Stream(), Stream()
        for _ in range(3):
            kept = carried.see(model, predictor, NOISE, CARRIED, 1)
            anew = fresh.see(model, predictor, NOISE, FRESH, 2)
        assert torch.equal(kept.scores, model.predictor(confidence=0.001, timesteps=3).predict(NOISE).scores)
        assert torch.equal(anew.scores, predictor.predict(NOISE).scores)

    def test_a_change_of_mode_starts_at_rest(self, tabs: SimpleNamespace, name: str) -> None:
        _, stream = self.frames(tabs, name, CARRIED, 2)
        tabs.live.frame(None, stream, 0.3, 0.5, FRESH, 1, name)
        coded = io.BytesIO()
        Image.fromarray(NOISE).save(coded, "PNG")
        *_, stream, _ = tabs.live.frame(coded, stream, 0.3, 0.5, FRESH, 1, name)
        assert stream.frames == 1 and stream.state is None

    def test_an_unplugged_camera_is_told_and_the_stream_goes_on(self, tabs: SimpleNamespace, name: str) -> None:
        _, stream = self.frames(tabs, name, CARRIED, 2)
        *_, stream, message = tabs.live.frame(None, stream, 0.3, 0.5, CARRIED, 1, name)
        assert "connected" in message and stream.frames == 2 and stream.state is not None

    def test_a_long_stream_keeps_nothing_but_its_state(self, models: Models, name: str) -> None:
        model, stream = models.load(name), Stream()
        predictor = model.predictor()

        def tensors_after(frames: int) -> int:
            for _ in range(frames):
                stream.see(model, predictor, NOISE, CARRIED, 1)
            gc.collect()
            return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

        assert tensors_after(60) == tensors_after(60)
        assert len(stream.latencies) == len(stream.arrivals) == 50 and stream.fps > 0

    @pytest.mark.slow
    def test_500_frames_in_a_row(self, models: Models, name: str) -> None:
        """Memory flat, and the median latency of the last 50 at most 1.2 times that of frames 20 to 70.

        Other programs may slow the end of one run: a stream that grows slower does so in each of three.
        """
        resource = pytest.importorskip("resource")
        model, ratios, peaks = models.load(name), list[float](), list[int]()
        predictor = model.predictor()
        for _ in range(3):
            stream, times = Stream(), list[float]()
            for _ in range(500):
                stream.see(model, predictor, NOISE, CARRIED, 1)
                times.append(stream.latencies[-1])
            ratios.append(float(np.median(times[-50:]) / np.median(times[20:70])))
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        assert peaks[-1] - peaks[0] < 20_000  # kB
        assert min(ratios) <= 1.2


class TestVideo:
    def test_an_annotated_video_of_the_same_length_comes_out(self, tabs: SimpleNamespace, name: str, tmp_path: Path) -> None:
        with VideoFile(tmp_path / "film.webm", 10) as video:
            for k in range(6):
                video.add(np.full((48, 64, 3), 40 * k, np.uint8))
        *_, last = tabs.live.film(str(tmp_path / "film.webm"), 0.001, 0.5, CARRIED, 1, name)
        assert len(list(video_frames(last[2]))) == 6 and "6 frames" in last[3]

    @pytest.mark.parametrize(("content", "told"), [(b"", "empty"), (b"text", "cannot be read as a video"), (None, "no video yet")])
    def test_a_bad_one_is_told(self, tabs: SimpleNamespace, name: str, tmp_path: Path, content: bytes | None, told: str) -> None:
        path = tmp_path / "bad.mp4"
        path.write_bytes(content or b"")
        (answer,) = tabs.live.film(None if content is None else str(path), 0.3, 0.5, CARRIED, 1, name)
        assert told in answer[3] and str(tmp_path) not in answer[3]


class TestLearning:
    def boxed(self, tabs: SimpleNamespace, name: str, noise: str, thing: str = "ring") -> Desk:
        *_, desk, message = tabs.learn.add_picture(noise, None, name)
        assert "Picture 1" in message
        tabs.learn.corner(desk, thing, (30, 60))
        tabs.learn.corner(desk, thing, (90, 20))
        return desk

    def test_two_clicks_make_a_box_whichever_corner_comes_first(self, tabs: SimpleNamespace, name: str, noise: str) -> None:
        desk = self.boxed(tabs, name, noise)
        assert desk.page.boxes == [(30, 20, 90, 60)] and desk.page.names == ["ring"]
        tabs.learn.take_back(desk)
        assert desk.page.boxes == []

    def test_learning_shows_every_update_and_undo_takes_it_back(self, tabs: SimpleNamespace, models: Models, name: str, noise: str) -> None:
        desk = self.boxed(tabs, name, noise)
        before = tabs.learn.sight(desk, name)
        *_, last = tabs.learn.teach(desk, 15, False, name)
        assert len(desk.losses) == 30 and desk.losses[-1] < desk.losses[0] and "30 updates" in last[3]
        seen, _, desk, message = tabs.learn.go_back(desk)
        assert (seen == before).all() and desk.losses == [] and "as it was" in message
        assert "nothing to undo" in tabs.learn.go_back(desk)[3]

    def test_the_shared_model_does_not_learn(self, tabs: SimpleNamespace, models: Models, name: str, noise: str) -> None:
        before = {k: v.clone() for k, v in models.load(name).detector.state_dict().items()}
        list(tabs.learn.teach(self.boxed(tabs, name, noise), 2, True, name))
        assert all(torch.equal(before[k], v) for k, v in models.load(name).detector.state_dict().items())

    def test_a_new_name_becomes_a_class_and_is_saved(self, tabs: SimpleNamespace, name: str, noise: str) -> None:
        from spyolo.checkpoint import load_detector

        desk = self.boxed(tabs, name, noise, "mug")
        list(tabs.learn.teach(desk, 1, False, name))
        _, message = tabs.learn.keep(desk)
        (saved,) = (tabs.folder / "learned").glob("*.safetensors")
        assert saved.name in message and load_detector(saved)[1].classes[-1] == "mug"
        assert "mug" not in tabs.learn.go_back(desk)[2].lesson.classes

    def test_two_users_learn_apart(self, tabs: SimpleNamespace, name: str, noise: str) -> None:
        one, two = self.boxed(tabs, name, noise), self.boxed(tabs, name, noise)
        list(tabs.learn.teach(one, 1, False, name))
        assert one.losses and not two.losses and two.lesson.updates == 0

    @pytest.mark.parametrize("ask", ["learn", "save", "click", "undo"])
    def test_too_early_is_told(self, tabs: SimpleNamespace, name: str, ask: str) -> None:
        event = SimpleNamespace(index=(3, 4))
        asked = {
            "learn": lambda: next(tabs.learn.teach(None, 1, False, name)),
            "save": lambda: tabs.learn.keep(None),
            "click": lambda: tabs.learn.click(None, "ring", event),
            "undo": lambda: tabs.learn.go_back(None),
        }
        assert "⚠️" in asked[ask]()[-1]


class TestCommand:
    @pytest.mark.parametrize(
        ("options", "told"),
        [(["--tls-key", "k.pem"], "go together"), (["--user", "ann"], "name:password"), (["--port", "99999"], "65535"),
         (["--weights", "missing.safetensors"], "no such weights file")],
    )  # fmt: skip
    def test_bad_options_are_one_line(self, options: list[str], told: str) -> None:
        with pytest.raises(InputError, match=told):
            main(options)


def huge_png() -> bytes:
    """A PNG that says it is 30,000 x 30,000, in a hundred bytes."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def unusual(folder: Path, kind: str) -> Path:
    picture = Image.fromarray(NOISE)
    if kind == "gif":
        picture.save(folder / "a.gif", save_all=True, append_images=[picture])
        return folder / "a.gif"
    if kind == "grey16":
        Image.fromarray(NOISE[..., 0].astype(np.uint16) * 256).save(folder / "a.png")
        return folder / "a.png"
    if kind == "alpha":
        picture.convert("RGBA").save(folder / "a.png")
        return folder / "a.png"
    exif = Image.Exif()
    exif[274] = 6 if kind == "turned" else 1  # orientation: a quarter turn
    (picture.convert("CMYK") if kind == "cmyk" else picture).save(folder / "a.jpg", exif=exif)
    return folder / "a.jpg"
