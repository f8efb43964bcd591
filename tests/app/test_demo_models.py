"""The models on offer: found or given, in what order, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.models import Models, about
from spyolo.checkpoint import WeightsInfo, save_weights
from spyolo.data import SAMPLE_CLASSES
from spyolo.detection import build_detector
from spyolo.errors import InputError

VOC_LIKE = ("cat", "dog")


def make(path: Path, classes: tuple[str, ...] = VOC_LIKE, arch: str = "spyv4_lite", **info: Any) -> Path:
    detector = build_detector(arch, len(classes), width=0.05)
    save_weights(path, detector, WeightsInfo(detector.spec, classes, size=64, timesteps=2, **info))
    return path


def test_a_model_of_drawn_shapes_says_so(models: Models, name: str) -> None:
    assert "not on photographs" in about(models.load(name), photographs=True)
    assert "No model trained on photographs is here yet" in about(models.load(name), models.photographs)


def test_names_in_a_file_are_shown_letter_by_letter(tmp_path: Path) -> None:
    make(tmp_path / "a.safetensors", ("![](http://x/a.png)", "potted plant"))
    assert r"Finds **\!\[\]\(http:\/\/x\/a.png\), potted plant**" in about(Models([tmp_path]).load("a"))


def test_those_trained_on_photographs_come_first_and_of_these_the_most_accurate(tmp_path: Path) -> None:
    make(tmp_path / "a-drawn.safetensors", SAMPLE_CLASSES, metrics={"voc10_ap50": 0.9})
    make(tmp_path / "b-good.safetensors", metrics={"voc10_ap50": 0.4})
    make(tmp_path / "c-better.safetensors", metrics={"voc10_ap50": 0.5})
    make(tmp_path / "d-twin.safetensors", arch="yolov4_tiny", metrics={"voc10_ap50": 0.6})
    make(tmp_path / "e-learned.safetensors", notes={"adapted_with": "FPTT"})
    models = Models([tmp_path])
    assert models.names() == ["c-better", "b-good", "e-learned", "d-twin", "a-drawn"] and models.first == "c-better" and models.photographs
    labels = [label for label, _ in models.choices()]
    assert labels[0] == "c-better (photographs, AP50 0.50)" and labels[3] == "d-twin (ordinary network, photographs, AP50 0.60)"
    assert "An ordinary network, for comparison" in about(models.load("d-twin"))
    assert "drawn" not in about(models.load("c-better"), models.photographs)


def test_a_file_that_can_be_reached_in_two_ways_is_offered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "m.safetensors")
    monkeypatch.chdir(tmp_path)
    assert Models([tmp_path], found=[Path("m.safetensors")]).names() == ["m"]
    assert Models([tmp_path], [Path("m.safetensors")]).names() == Models([Path()], [path]).names() == ["m"]


def test_files_given_come_before_all(tmp_path: Path) -> None:
    make(tmp_path / "photo.safetensors")
    given = make(tmp_path / "elsewhere" / "drawn.safetensors", SAMPLE_CLASSES)
    assert Models([tmp_path], [given]).first == "drawn"


def test_names_are_short_tell_runs_apart_and_show_no_folder(tmp_path: Path) -> None:
    runs = [make(tmp_path / "runs" / run / "best.safetensors") for run in ("one", "two")]
    others = [make(tmp_path / folder / "same.safetensors") for folder in ("x", "y")]
    names = Models([], runs, found=others).names()
    assert names == ["one", "two", "same", "same-2"] and not any(str(tmp_path) in name for name in names)


@pytest.mark.parametrize("broken", ["no safetensors", "cut off", "not ours", "empty"])
def test_a_broken_file_beside_good_ones_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: str) -> None:
    good = make(tmp_path / "good.safetensors", SAMPLE_CLASSES)
    bad = make(tmp_path / "bad.safetensors")  # trained on photographs: it would come first
    if broken == "not ours":
        from safetensors.torch import save_file

        save_file({}, bad)
    else:
        whole = bad.read_bytes()
        bad.write_bytes({"no safetensors": b"version https://example", "cut off": whole[: len(whole) // 2], "empty": b""}[broken])
    models = Models([tmp_path])
    assert models.first == "good" and models.names() == ["good"]
    assert "left out" in capsys.readouterr().err
    assert models.load("good").info.classes == load(good)


def test_detectors_for_event_cameras_are_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "photo.safetensors")
    detector = build_detector("spyv4_lite", 2, width=0.05, in_channels=2)
    events = tmp_path / "gen1" / "best.safetensors"
    save_weights(events, detector, WeightsInfo(detector.spec, ("car", "pedestrian"), size=64, metrics={"voc10_ap50": 0.9}))
    models = Models([tmp_path], found=[events])
    assert models.names() == ["photo"] and models.first == "photo"
    assert f"left out: {events}: takes 2 channels (an event camera has 2)" in capsys.readouterr().err
    with pytest.raises(InputError, match="takes 2 channels"):
        Models([tmp_path], [events])


def load(path: Path) -> tuple[str, ...]:
    from spyolo.checkpoint import load_detector

    return load_detector(path)[1].classes


def test_a_file_whose_tensors_do_not_fit_its_head_is_not_the_first_choice(tmp_path: Path) -> None:
    from spyolo.checkpoint import info_to_metadata, save_tensors

    detector = build_detector("spyv4_lite", 2, width=0.05)
    save_tensors(tmp_path / "a.safetensors", {}, info_to_metadata(WeightsInfo(detector.spec, VOC_LIKE, size=64)))
    make(tmp_path / "b.safetensors", SAMPLE_CLASSES)
    models = Models([tmp_path])
    assert models.first == "b"
    with pytest.raises(InputError, match="missing"):
        models.load("a")


def test_a_given_file_that_is_not_ours_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"text")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        Models([tmp_path], [tmp_path / "bad.safetensors"])


def test_only_what_is_offered_is_loaded(models: Models) -> None:
    for name in ("/etc/passwd", "", None, "../tiny"):
        with pytest.raises(InputError, match="no longer there"):
            models.load(name)


def test_nothing_to_offer_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make train"):
        Models([tmp_path])


def test_a_file_saved_meanwhile_is_offered_and_one_replaced_is_read_anew(weights: Path, tmp_path: Path) -> None:
    models = Models([weights.parent, tmp_path])
    make(tmp_path / "new.safetensors")
    assert models.load("new").classes == VOC_LIKE
    make(tmp_path / "new.safetensors", ("tree", "house", "car"))
    assert models.load("new").classes == ("tree", "house", "car")
    (tmp_path / "new.safetensors").unlink()
    with pytest.raises(InputError, match="no longer there"):
        models.load("new")
