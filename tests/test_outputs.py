"""Outputs: tables, VOC XML, video and other libraries' types; and the predict command on each kind of source."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from defusedxml.ElementTree import fromstring
from PIL import Image

from spyolo.boxes import Detections
from spyolo.checkpoint import WeightsInfo, load_detector, save_weights
from spyolo.cli import run
from spyolo.cli.predict import told_apart
from spyolo.data.annotation import read_annotation
from spyolo.data.images import read_image
from spyolo.detection import build_detector
from spyolo.drawing import save_image
from spyolo.errors import InputError
from spyolo.evaluation.coco_json import write_coco_json
from spyolo.outputs import COLUMNS, TABLES, CSVTable, JSONLines, VideoFile, to_supervision, write_voc
from spyolo.predictor import Predictor
from spyolo.sources import video_frames

CLASSES = ("cat", "dog")
FOUND = Detections(torch.tensor([[1.0, 2.0, 30.5, 40.0], [0.0, 0.0, 10.0, 60.0]]), torch.tensor([0.9, 0.25]), torch.tensor([1, 0]))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    detector = build_detector("spyv4_lite", 2, width=0.05)
    path = tmp_path / "tiny.safetensors"
    save_weights(path, detector, WeightsInfo(detector.spec, CLASSES, size=64, timesteps=2))
    return path


@pytest.fixture
def film(tmp_path: Path) -> Path:
    with VideoFile(tmp_path / "in" / "film.webm", 10) as video:
        for k in range(5):
            video.add(np.full((48, 64, 3), 40 * k, np.uint8))
    return tmp_path / "in" / "film.webm"


def test_json_lines_hold_a_picture_each(tmp_path: Path) -> None:
    with JSONLines(tmp_path / "found.jsonl", CLASSES) as table:
        table.add("a.jpg", (50, 60), FOUND)
        table.add("b.jpg", (50, 60), Detections.empty(), frame=2)
    first, second = map(json.loads, (tmp_path / "found.jsonl").read_text().splitlines())
    assert first["detections"][0] == {"class": "dog", "score": 0.9, "box": [1.0, 2.0, 30.5, 40.0]}
    assert (first["width"], second["frame"], second["detections"]) == (50, 2, [])


def test_coco_results_are_those_of_eval_s_writer(tmp_path: Path) -> None:
    detections = {"a": FOUND, "b": Detections.empty(), "c": FOUND}
    with TABLES["coco"](tmp_path / "one.json", CLASSES) as table:
        for name, found in detections.items():
            table.add(name, (50, 60), found)
    write_coco_json(tmp_path / "other.json", detections, CLASSES)
    assert (tmp_path / "one.json").read_text() == (tmp_path / "other.json").read_text()


def test_csv_holds_a_detection_a_line_and_quotes_names(tmp_path: Path) -> None:
    with CSVTable(tmp_path / "found.csv", CLASSES) as table:
        table.add('a, "b".jpg', (50, 60), FOUND)
    head, *lines = csv.reader((tmp_path / "found.csv").open(newline=""))
    assert tuple(head) == COLUMNS
    assert lines[0] == ['a, "b".jpg', "", "dog", "0.9", "1.0", "2.0", "30.5", "40.0"] and len(lines) == 2


def test_an_interrupted_table_keeps_its_lines_and_the_file_before_stays_until_then(tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), JSONLines(path, CLASSES) as table:
        table.add("a.jpg", (50, 60), FOUND)
        assert path.read_text() == "before"
        raise KeyboardInterrupt
    assert json.loads(path.read_text())["picture"] == "a.jpg"
    assert [p.name for p in tmp_path.iterdir()] == ["found.jsonl"]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_table_without_a_picture_leaves_the_file_before(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"found.{kind}"
    path.write_text("before")
    with TABLES[kind](path, CLASSES):
        pass
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_voc_xml_reads_back(tmp_path: Path) -> None:
    write_voc(tmp_path / "annotations" / "a.xml", "a.jpg", (50, 60), FOUND, CLASSES)
    read = read_annotation(tmp_path / "annotations" / "a.xml")
    assert (read.width, read.height) == (50, 60)
    assert [(thing.name, thing.box) for thing in read.things] == [("dog", (1, 2, 30.5, 40)), ("cat", (0, 0, 10, 60))]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_voc_xml_of_a_turned_picture_is_of_the_raster_that_is_trained_on(weights: Path, tmp_path: Path, orientation: int) -> None:
    stored, note = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8), Image.Exif()
    note[274] = orientation
    (tmp_path / "in").mkdir()
    Image.fromarray(stored).save(tmp_path / "in" / "a.png", exif=note)
    assert predict(weights, tmp_path / "in", tmp_path / "out", "--write", "voc") == 0
    read = read_annotation(tmp_path / "out" / "annotations" / "a.xml")
    assert (read.width, read.height) == (50, 40)
    found = Predictor.load(weights, confidence=0.0).predict(tmp_path / "in" / "a.png")
    # Where the detector saw a box, and where the file says it is, the same pixels lie.
    shown, (x1, y1, x2, y2) = read_image(tmp_path / "in" / "a.png"), found.boxes[0].round().int().tolist()
    a, b, c, d = (round(v) for v in read.things[0].box or ())
    wanted, there = shown[y1:y2, x1:x2], stored[b:d, a:c]
    assert sorted(map(tuple, wanted.reshape(-1, 3))) == sorted(map(tuple, there.reshape(-1, 3)))


@pytest.mark.parametrize("ending", [".webm", ".mp4"])
def test_a_video_of_odd_sides_is_written(tmp_path: Path, ending: str) -> None:
    with VideoFile(tmp_path / f"odd{ending}", 10) as video:
        for _ in range(3):
            video.add(np.full((49, 65, 3), 90, np.uint8))
    frames = list(video_frames(tmp_path / f"odd{ending}"))
    assert len(frames) == 3 and frames[0].shape == (48, 64, 3)


def test_a_video_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.gif.*\.webm"):
        VideoFile(tmp_path / "a.gif", 10)


def test_supervision_gets_the_same_boxes() -> None:
    pytest.importorskip("supervision")
    theirs = to_supervision(FOUND, CLASSES)
    assert theirs.xyxy.tolist() == FOUND.boxes.tolist()
    assert list(theirs.data["class_name"]) == ["dog", "cat"]


def test_steps_a_frame_from_rest_are_the_picture_shown_so_long(weights: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    predictor = Predictor.load(weights, timesteps=3, confidence=0.0)
    at_once, _ = predictor.step(image, steps=3)
    one_by_one = list(predictor.stream([image] * 3))[-1]
    assert torch.equal(at_once.boxes, predictor.predict(image).boxes)
    assert torch.equal(at_once.scores, one_by_one.scores)


def test_a_picture_may_be_given_as_a_file(weights: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    save_image(tmp_path / "a.png", image)
    predictor = Predictor.load(weights, confidence=0.0)
    assert torch.equal(predictor.predict(tmp_path / "a.png").boxes, predictor.predict(image).boxes)


def predict(weights: Path, source: object, out: Path, *more: str) -> int:
    return run("predict", ["--weights", str(weights), "--source", str(source), "--out", str(out), "--confidence", "0.0", *more])


def test_predict_writes_every_kind_for_a_folder(weights: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_image(tmp_path / "in" / name, np.full((40, 50, 3), 99, np.uint8))
    out = tmp_path / "out"
    assert predict(weights, tmp_path / "in", out, "--write", "pictures,coco,jsonl,csv,voc") == 0
    written = {str(p.relative_to(out)) for p in out.rglob("*.*")}
    wanted = {"a.jpg", "b.jpg", "predictions.json", "predictions.jsonl", "predictions.csv", "annotations/a.xml", "annotations/b.xml"}
    assert written == wanted


def test_predict_turns_a_video_into_an_annotated_one(weights: Path, film: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(weights, film, out, "--write", "pictures,jsonl") == 0
    assert len(list(video_frames(out / "film.webm"))) == 5
    assert [json.loads(line)["frame"] for line in (out / "predictions.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5]


def raising(number: int, name: str) -> Callable[..., Any]:
    """A Predictor's method of that name, a signal arriving in its call of that number."""
    inner, calls = getattr(Predictor, name), []

    def step(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(*args, **options)

    return step


@pytest.mark.parametrize(("number", "status", "kept"), [(1, 130, 0), (3, 0, 2)])
def test_sigterm_in_a_frame_keeps_the_frames_before_it(
    weights: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    number: int, status: int, kept: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(Predictor, "step", raising(number, "step"))
    out, before = tmp_path / "out", signal.getsignal(signal.SIGTERM)
    assert predict(weights, film, out, "--write", "pictures,coco,jsonl") == status
    said = capsys.readouterr()
    assert "stopped; what was written stays" in said.err and (f"{kept} frame(s)" in said.out) == bool(kept)
    assert signal.getsignal(signal.SIGTERM) is before
    if kept:
        assert len((out / "predictions.jsonl").read_text().splitlines()) == kept == len(list(video_frames(out / "film.webm")))
        assert {row["image_id"] for row in json.loads((out / "predictions.json").read_text())} == {"film-000001", "film-000002"}
    else:
        assert not list(out.iterdir())


def test_weights_of_one_step_see_every_frame_from_rest_unless_told_otherwise(
    weights: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    detector, info = load_detector(weights)
    save_weights(weights, detector, replace(info, timesteps=1))
    calls, inner = [], Predictor.step
    monkeypatch.setattr(Predictor, "step", lambda *args, **options: (calls.append(1), inner(*args, **options))[1])
    for more, carried, told in (((), 0, True), (("--fresh",), 0, False), (("--carry",), 5, False), (("--steps-per-frame", "2"), 5, False)):
        calls.clear()
        assert predict(weights, film, tmp_path / "out", "--write", "jsonl", *more) == 0 and len(calls) == carried
        assert ("every frame is seen from rest (--carry" in capsys.readouterr().err) == told


def test_steps_that_a_plain_network_does_not_take_are_told(tmp_path: Path, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twin = build_detector("yolov4_tiny", 2, width=0.05)
    save_weights(tmp_path / "twin.safetensors", twin, WeightsInfo(twin.spec, CLASSES, size=64, timesteps=2))
    save_image(tmp_path / "a.png", np.full((40, 50, 3), 99, np.uint8))
    assert predict(tmp_path / "twin.safetensors", tmp_path / "a.png", tmp_path / "out", "--timesteps", "7") == 0
    assert "--timesteps 7 is not read: a plain network takes one step" in capsys.readouterr().err
    assert predict(tmp_path / "twin.safetensors", film, tmp_path / "out", "--steps-per-frame", "2") == 0
    assert "--steps-per-frame 2 is not read" in capsys.readouterr().err


def test_state_is_carried_from_frame_to_frame_unless_fresh(weights: Path, film: Path, tmp_path: Path) -> None:
    def scores(*more: str) -> list[float]:
        assert predict(weights, film, tmp_path / "out", "--write", "jsonl", "--frames", "3", *more) == 0
        last = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[-1]
        return [d["score"] for d in json.loads(last)["detections"]]

    predictor, frames = Predictor.load(weights, confidence=0.0), list(video_frames(film))[:3]
    assert scores() == pytest.approx(list(predictor.stream(frames))[-1].scores.tolist(), abs=1e-4)
    assert scores("--fresh") == pytest.approx(predictor.predict(frames[-1]).scores.tolist(), abs=1e-4)


def test_two_folders_pictures_of_one_name_both_get_their_boxes(weights: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        save_image(tmp_path / "in" / folder / "a.png", np.full((40, 50, 3), 99, np.uint8))
    assert predict(weights, tmp_path / "in" / "*" / "a.png", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 2


def test_two_folders_pictures_of_one_name_are_told_apart_in_every_output(weights: Path, tmp_path: Path) -> None:
    for name in ("one/a.png", "two/a.png", "two/b.png"):
        save_image(tmp_path / "in" / name, np.full((40, 50, 3), 99, np.uint8))
    out = tmp_path / "out"
    assert predict(weights, tmp_path / "in" / "*" / "*.png", out, "--write", "coco,jsonl,csv,voc") == 0
    wanted = ["a.png", "a.png-2", "b.png"]
    assert [json.loads(line)["picture"] for line in (out / "predictions.jsonl").read_text().splitlines()] == wanted
    assert list(dict.fromkeys(row["picture"] for row in csv.DictReader((out / "predictions.csv").open(newline="")))) == wanted
    xml = [fromstring(path.read_bytes()).findtext("filename") for path in sorted((out / "annotations").iterdir())]
    assert sorted(filter(None, xml)) == wanted
    found = json.loads((out / "predictions.json").read_text())
    assert list(dict.fromkeys(row["image_id"] for row in found)) == ["a.png", "a.png-2", "b"]


def test_a_name_that_is_made_is_nobody_s_own() -> None:
    assert told_apart(["a", "a", "a-2", "b", "a"]) == ["a", "a-2", "a-2-2", "b", "a-3"]
    assert told_apart(["a-2", "a", "a"]) == ["a-2", "a", "a-3"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--write", "pictures,gif"), "gif"),
        (("--steps-per-frame", "0"), "--steps-per-frame"),
        (("--timesteps", "7", "--settle"), "--timesteps, --settle: for pictures, or frames with --fresh"),
        (("--fresh", "--steps-per-frame", "9"), "--steps-per-frame: not with --fresh"),
        (("--fresh", "--nonfinite", "restart"), "--nonfinite: not with --fresh"),
        (("--write", "csv", "--video-format", "mp4"), "--video-format: no video is written"),
    ],
)
def test_bad_options_are_one_line(
    weights: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], told: str
) -> None:
    assert predict(weights, film, tmp_path / "out", *more) == 2
    assert told in capsys.readouterr().err


def test_a_video_is_never_written_over_itself(weights: Path, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = film.read_bytes()
    assert predict(weights, film, film.parent) == 2
    assert "overwritten" in capsys.readouterr().err and film.read_bytes() == before


def test_an_empty_video_is_one_line(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert predict(weights, tmp_path / "empty.mp4", tmp_path / "out") == 2
    assert "the file is empty" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["empty.mp4", "broken.mp4", "7", "bad"])
def test_a_source_that_gives_nothing_leaves_the_results_of_the_run_before(weights: Path, tmp_path: Path, source: str) -> None:
    save_image(tmp_path / "in" / "a.png", np.full((40, 50, 3), 99, np.uint8))
    out, kinds = tmp_path / "out", ("--write", "pictures,coco,jsonl,csv,voc")
    assert predict(weights, tmp_path / "in", out, *kinds) == 0
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no picture at all")
    assert predict(weights, source if source == "7" else tmp_path / source, out, *kinds) == (1 if source == "bad" else 2)
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before


def test_fresh_frames_take_the_steps_of_pictures(weights: Path, film: Path, tmp_path: Path) -> None:
    assert predict(weights, film, tmp_path / "out", "--write", "jsonl", "--frames", "1", "--fresh", "--timesteps", "3", "--settle") == 0


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """Inside, no file grows beyond `most` bytes. Not longer: the report of the tests is a file too."""
    resource = pytest.importorskip("resource")
    before, told = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, told)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "coco"])
def test_on_a_full_disk_a_table_keeps_the_pictures_that_found_room(tmp_path: Path, kind: str) -> None:
    path, added = tmp_path / f"found.{kind}", 0
    told = pytest.raises(InputError, match=rf"found\.{kind} cannot be written")
    with full_disk(2000), told, TABLES[kind](path, CLASSES) as table:
        for k in range(100):
            table.add(f"{k}.jpg", (50, 60), FOUND)
            added += 1
    lines = path.read_text().splitlines()
    if kind == "coco":
        found = json.loads(path.read_text())
        assert added and len(found) in (2 * added, 2 * added + 1) and found[-1].keys() == found[0].keys()
    elif kind == "jsonl":
        assert [json.loads(line)["picture"] for line in lines] == [f"{k}.jpg" for k in range(added)] and added
    else:
        assert added and {len(row) for row in csv.reader(lines)} == {len(COLUMNS)} and len(lines) >= 1 + 2 * added
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_disk_without_room_for_one_detection_leaves_an_empty_list(tmp_path: Path) -> None:
    with full_disk(10), pytest.raises(InputError, match="cannot be written"), TABLES["coco"](tmp_path / "found.json", CLASSES) as table:
        table.pictures = 1  # as after a picture in which nothing was seen
        table.add("a", (50, 60), FOUND)
    assert json.loads((tmp_path / "found.json").read_text()) == []


@pytest.mark.parametrize("ending", ["webm", "mp4", "avi"])
@pytest.mark.parametrize("room", [3_000, 60_000])
def test_a_video_cut_off_by_a_full_disk_is_told_and_leaves_the_one_before(tmp_path: Path, ending: str, room: int) -> None:
    path, noise = tmp_path / f"film.{ending}", np.random.default_rng(0)
    path.write_text("before")
    with full_disk(room), pytest.raises(InputError, match="disk full"), VideoFile(path, 29.97) as video:
        for _ in range(30):
            video.add(noise.integers(0, 255, (96, 128, 3), dtype=np.uint8))
    assert path.read_text() == "before"


@pytest.mark.parametrize("ending", ["webm", "mp4", "avi"])
@pytest.mark.parametrize("frames", [1, 2, 75])
@pytest.mark.parametrize("fps", [0.5, 25, 29.97, 240])
def test_a_whole_video_is_known_for_one(tmp_path: Path, ending: str, frames: int, fps: float) -> None:
    with VideoFile(tmp_path / f"film.{ending}", fps) as video:
        for k in range(frames):
            video.add(np.full((32, 48, 3), 3 * k, np.uint8))
    assert len(list(video_frames(tmp_path / f"film.{ending}"))) == frames


def test_a_folder_with_the_name_of_a_table_is_told_before_anything_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "found.csv").mkdir()
    with pytest.raises(InputError, match="a folder has its name"):
        CSVTable(tmp_path / "found.csv", CLASSES)
