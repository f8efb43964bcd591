"""The command: any detector's file judged without model or pictures, a detector measured after every step, the same numbers twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from spyolo.boxes import Detections
from spyolo.checkpoint import WeightsInfo, save_weights
from spyolo.cli import run
from spyolo.cli.eval_model import parse_timesteps
from spyolo.data import SAMPLE_CLASSES, VOCSet
from spyolo.data.annotation import Thing
from spyolo.detection import build_detector
from spyolo.errors import InputError
from spyolo.evaluation.coco_json import write_coco_json
from spyolo.neurons import native

SCENE = {
    "000001": [Thing("cat", (5, 5, 40, 40)), Thing("dog", (20, 10, 60, 44))],
    "000002": [Thing("cat", (10, 8, 50, 40))],
    "000003": [],
}
CLASSES = ("bird", "cat", "dog")


@pytest.fixture
def devkit(make_devkit):
    """Annotations and image sets only."""
    root = make_devkit(SCENE, split="val")
    shutil.rmtree(root / "VOCdevkit" / "VOC2007" / "JPEGImages")
    return root


@pytest.fixture
def preds(devkit):
    """Both cats exactly, no dog."""
    voc = VOCSet(devkit, "2007:val", CLASSES)
    said = {}
    for place, name in enumerate(voc.ids):
        objects = voc.objects(place)
        cats = objects[objects.labels == 1]
        said[name] = Detections(cats.boxes, torch.linspace(0.9, 0.8, len(cats)), cats.labels)
    path = devkit / "preds.json"
    write_coco_json(path, said, CLASSES)
    return path


def evaluate(devkit, *options, classes="bird,cat,dog"):
    named = ["--classes", classes] if classes else []
    return run("eval", ["--data", str(devkit), "--split", "2007:val", "--quiet", *named, *map(str, options)])


def test_a_file_is_judged_with_no_model_and_no_pictures(devkit, preds, capsys):
    assert evaluate(devkit, "--predictions", preds, "--json", devkit / "m.json") == 0
    shown = capsys.readouterr()
    assert "VOC10+ AP50 (area)        50.00" in shown.out and "VOC07 AP50 (11-point)     50.00" in shown.out
    assert "no objects of bird" in shown.out and "split: 2007:val" in shown.out and "voc difficult: not counted" in shown.out
    assert shown.err == ""
    metrics = json.loads((devkit / "m.json").read_text())
    assert metrics["per_class"]["cat"]["voc10_ap50"] == 1.0 and metrics["per_class"]["dog"]["voc10_ap50"] == 0.0
    assert metrics["protocol"]["pictures"] == 3 and metrics["protocol"]["predictions"] == str(preds)


def test_two_evaluations_write_the_same_bytes_and_voc_text_judges_alike(devkit, preds):
    assert evaluate(devkit, "--predictions", preds, "--json", devkit / "a.json", "--voc-text", devkit / "text") == 0
    assert evaluate(devkit, "--predictions", preds, "--json", devkit / "b.json") == 0
    assert (devkit / "a.json").read_bytes() == (devkit / "b.json").read_bytes()
    assert evaluate(devkit, "--predictions", devkit / "text", "--json", devkit / "c.json") == 0
    first, second = (json.loads((devkit / name).read_text()) for name in ("a.json", "c.json"))
    del first["protocol"]["predictions"], second["protocol"]["predictions"]
    assert first == second


def test_a_report_without_pictures_has_its_plots(devkit, preds, capsys):
    assert evaluate(devkit, "--predictions", preds, "--out", devkit / "out", "--report") == 0
    written = {path.name for path in (devkit / "out").rglob("*") if path.is_file()}
    assert {"metrics.json", "report.html", "precision_recall.png", "confusion.csv", "f1_curve.json"} <= written
    assert not any(name.startswith("pictures_") for name in written)
    assert "the report has no sheets of them" in capsys.readouterr().err


def test_a_floor_that_drops_everything_is_warned_about(devkit, preds, capsys):
    assert evaluate(devkit, "--predictions", preds, "--confidence", 0.95) == 0
    assert "warning: there are no detections at or above the confidence floor 0.95" in capsys.readouterr().err


def test_a_wrong_class_list_is_warned_about(devkit, preds, capsys):
    preds.write_text(preds.read_text().replace('"category_id": 2, "category": "cat"', '"category_id": 1'))
    assert evaluate(devkit, "--predictions", preds) == 0
    assert "warning: no class is both in the truth (cat, dog) and among the detections (bird)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--predictions", "nowhere.json"], "no such predictions file"),
        (["--predictions", "PREDS", "--at-confidence", "1.5"], "--at-confidence must be between 0 and 1"),
        (["--predictions", "PREDS", "--timesteps", "1..4"], "--timesteps: a file of predictions is judged as it is; goes with --weights"),
        (["--predictions", "PREDS", "--coco-backend", "excel"], "unknown COCO backend"),
        (["--predictions", "PREDS", "--split", "2007:nothing"], "nothing.txt does not exist"),
        (["--predictions", "PREDS", "--classes", "bird,dog,cat"], "category_id 2 is 'dog' in the class list, but the entry calls it 'cat'"),
        (["--weights", "nowhere.safetensors"], "--classes: goes with --predictions"),
        (["--predictions", "PREDS", "--stream"], "--stream needs a detector: --weights"),
        (["--predictions", "PREDS", "--twin", "nowhere.safetensors"], "--twin: goes with --stream"),
        (["--weights", ""], "eval: --weights is empty; give a value or leave it out"),
        (["--predictions", ""], "eval: --predictions is empty; give a value or leave it out"),
        (["--predictions", "PREDS", "--compare", ""], "eval: --compare is empty; give a value or leave it out"),
    ],
)
def test_bad_input_is_one_line_and_status_2(devkit, preds, capsys, options, message):
    assert evaluate(devkit, *(str(preds) if word == "PREDS" else word for word in options)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize("options", [
    ["--nms", 0], ["--max-detections", 1], ["--fast", "int8"], ["--amp", "bf16"], ["--weights-of", "ema"], ["--energy-pictures", 5],
    ["--batch", 3], ["--workers", 0], ["--device", "cpu"], ["--limit", 1], ["--size", 64], ["--recalibrate", "2007:train"], ["--latency"],
    ["--compare", "m.json"], ["--vote-iou", 0.5],
])  # fmt: skip
def test_what_a_file_of_predictions_has_no_use_for_is_refused(devkit, preds, capsys, options):
    assert evaluate(devkit, "--predictions", preds, *options) == 2
    assert capsys.readouterr().err == f"error: {options[0]}: a file of predictions is judged as it is; goes with --weights\n"


def test_what_a_detector_has_no_use_for_is_refused(devkit, capsys):
    assert evaluate(devkit, "--weights", "nowhere.safetensors", "--allow-duplicates", classes=None) == 2
    assert capsys.readouterr().err.startswith("error: --allow-duplicates: goes with --predictions")


def test_files_are_written_even_if_nobody_reads_the_figures(devkit, preds, monkeypatch):
    def closed(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", closed)
    assert evaluate(devkit, "--predictions", preds, "--json", devkit / "m.json") == 141
    assert (devkit / "m.json").exists()


def test_timesteps_are_ranges_or_lists():
    assert parse_timesteps("1..4") == (1, 2, 3, 4) and parse_timesteps("4,1,2,2") == (1, 2, 4) and parse_timesteps("3") == (3,)
    for text in ("", "0", "4..1", "1...3", "x", "-1", "1..9999", f"1..{10**15}", f"{10**15}..4"):  # 10**15 steps would be petabytes
        with pytest.raises(InputError, match="--timesteps"):
            parse_timesteps(text)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A narrow detector, untrained."""
    torch.manual_seed(0)
    detector = build_detector("spyv4_lite", len(SAMPLE_CLASSES), width=0.125)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, detector, WeightsInfo(detector.spec, SAMPLE_CLASSES, size=64, timesteps=2))
    return path


def test_a_detector_is_measured_after_every_step(sample_root, weights, tmp_path, capsys):
    options = ["--weights", weights, "--timesteps", "1..3", "--confidence", 0, "--workers", 0, "--out", tmp_path, "--report"]
    assert evaluate(sample_root, *options, "--save-predictions", tmp_path / "p.json", classes=None) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for key in ("voc07_ap50", "voc10_ap50", "voc10_ap50_95", "coco_ap", "coco_ap50", "coco_ap75", "per_class", "firing_rate", "protocol"):
        assert metrics[key] is not None, key
    assert metrics["timesteps"] == metrics["protocol"]["timesteps"] == 3
    assert [row["timesteps"] for row in metrics["anytime"]] == [1, 2, 3]
    assert metrics["anytime"][2]["voc10_ap50"] == metrics["voc10_ap50"]
    assert metrics["anytime"][0]["energy_mj"] < metrics["anytime"][2]["energy_mj"] == metrics["energy"]["total_mj"]
    assert metrics["energy"]["synaptic_mj"] < metrics["energy"]["total_mj"] and metrics["energy"]["ann_twin_mj"] > 0
    assert metrics["energy"]["pictures"] == metrics["protocol"]["pictures"]
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"anytime.png", "firing_rates.csv", "energy_by_layer.json", "pictures_worst.png"} <= names
    assert "latency" in capsys.readouterr().out

    assert evaluate(sample_root, "--predictions", tmp_path / "p.json", "--json", tmp_path / "j.json", classes="sample") == 0
    again = json.loads((tmp_path / "j.json").read_text())
    for key in ("voc07_ap50", "voc10_ap50", "voc10_ap50_95", "coco_ap", "per_class", "precision", "recall"):
        assert again[key] == metrics[key], key


def test_a_detector_measured_twice_gives_the_same_bytes(sample_root, weights, tmp_path, capsys):
    for name in ("a", "b"):
        options = ["--weights", weights, "--confidence", 0, "--json", tmp_path / f"{name}.json", "--workers", 0, "--limit", 3, "--size", 96]
        assert evaluate(sample_root, *options, "--energy-pictures", 2, classes=None) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    metrics = json.loads((tmp_path / "a.json").read_text())
    assert metrics["protocol"]["pictures"] == 3 and metrics["protocol"]["input"] == "96 x 96, letterboxed"
    assert "the letterbox disagrees: the detector was trained at 64 pixels and is measured at 96" in capsys.readouterr().err


def other_metrics(path, energy, detector="yolov4_tiny", **protocol):
    """metrics.json of another detector, as far as --compare reads it."""
    row = {"timesteps": 1, "latency_ms": None} | ({} if energy is None else {"energy_mj": energy})
    protocol = {"detector": detector, "split": "2007:val" if protocol else "2007:test", **protocol}
    path.write_text(json.dumps({"voc10_ap50": 0.5, "protocol": protocol, "anytime": [row]}))


def plain_weights(path, width):
    detector = build_detector("yolov4_tiny", len(SAMPLE_CLASSES), width=width)
    save_weights(path, detector, WeightsInfo(detector.spec, SAMPLE_CLASSES, size=64, timesteps=1))
    return path


def test_rows_of_a_picture_that_is_left_out_are_not_in_the_way(devkit, preds, capsys):
    """Its annotation is broken, which is told; the rest of the file is judged."""
    (next(devkit.rglob("Annotations")) / "000002.xml").write_text("<annotation>")
    assert evaluate(devkit, "--predictions", preds, "--json", devkit / "m.json") == 0
    metrics = json.loads((devkit / "m.json").read_text())
    assert metrics["protocol"]["pictures"] == 2 and metrics["per_class"]["cat"]["voc10_ap50"] == 1
    assert "1 x picture left out; first: " in capsys.readouterr().err


def test_a_comparison_over_other_pictures_is_told(sample_root, weights, tmp_path, capsys):
    other_metrics(tmp_path / "other.json", 1.0, pictures=2_508)
    options = ["--weights", weights, "--workers", 0, "--limit", 1, "--json", tmp_path / "m.json", "--compare", tmp_path / "other.json"]
    assert evaluate(sample_root, *options, classes=None) == 0
    assert "other.json was measured on 2,508 pictures, not on these 1" in capsys.readouterr().err
    other_metrics(tmp_path / "other.json", "much")
    assert evaluate(sample_root, *options, classes=None) == 2
    assert "other.json is no metrics.json of a detector (ValueError: could not convert" in capsys.readouterr().err


def test_what_train_wrote_cannot_be_compared_with(sample_root, weights, tmp_path, capsys):
    (tmp_path / "train.json").write_text(json.dumps({"voc10_ap50": 0.5, "per_class": {}, "protocol": {}}))
    assert evaluate(sample_root, "--weights", weights, "--compare", tmp_path / "train.json", classes=None) == 2
    assert "as train writes it; measure it with eval --weights" in capsys.readouterr().err


def test_the_stream_score_is_of_one_process(sample_root, weights, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert evaluate(sample_root, "--weights", weights, "--stream", classes=None) == 2
    assert "start it without torchrun" in capsys.readouterr().err


@pytest.mark.parametrize(("width", "size", "known"), [(0.125, 64, True), (0.5, 64, False), (0.125, 96, False)])
def test_a_plain_network_is_the_twin_only_where_it_costs_what_the_twin_does(sample_root, weights, tmp_path, capsys, width, size, known):
    plain = plain_weights(tmp_path / "plain.safetensors", width)
    options = ["--workers", 0, "--limit", 1, "--out", tmp_path]
    assert evaluate(sample_root, "--weights", plain, "--size", size, *options, classes=None) == 0
    shutil.move(tmp_path / "metrics.json", tmp_path / "plain.json")
    capsys.readouterr()
    assert evaluate(sample_root, "--weights", weights, *options, "--compare", tmp_path / "plain.json", classes=None) == 0
    metrics, compared = (json.loads((tmp_path / name).read_text()) for name in ("metrics.json", "plain.json"))
    assert (metrics["energy"]["twins"]["ann_twin"]["ap50"] == compared["voc10_ap50"]) == known
    told = "the AP50 compared with does not stand beside the ANN twin's energy: at "
    assert (told in capsys.readouterr().err) != known and any(told in note for note in metrics["warnings"]) != known


@pytest.mark.parametrize(("detector", "told"), [("yolov4_tiny", True), ("spyv4", False)])
def test_a_file_that_tells_no_energy_is_not_taken_for_the_twin(sample_root, weights, tmp_path, capsys, detector, told):
    other_metrics(tmp_path / "other.json", None, detector)
    options = ["--weights", weights, "--workers", 0, "--limit", 1, "--json", tmp_path / "m.json", "--compare", tmp_path / "other.json"]
    assert evaluate(sample_root, *options, classes=None) == 0
    assert json.loads((tmp_path / "m.json").read_text())["energy"]["twins"]["ann_twin"]["ap50"] is None
    assert ("its file tells no energy to know it by" in capsys.readouterr().err) == told


def test_steps_asked_of_a_plain_network_are_read_and_said_to_be_one(sample_root, tmp_path, capsys):
    plain = plain_weights(tmp_path / "plain.safetensors", 0.125)
    options = ["--weights", plain, "--workers", 0, "--limit", 1, "--json", tmp_path / "m.json"]
    assert evaluate(sample_root, *options, "--timesteps", "banana", classes=None) == 2
    assert "--timesteps 'banana' is not understood" in capsys.readouterr().err and not (tmp_path / "m.json").exists()
    for steps, told in (("1..8", True), ("1", False)):
        assert evaluate(sample_root, *options, "--timesteps", steps, classes=None) == 0
        assert [row["timesteps"] for row in json.loads((tmp_path / "m.json").read_text())["anytime"]] == [1]
        assert (f"warning: --timesteps {steps} is not read: a plain network takes one step" in capsys.readouterr().err) == told


def test_another_detector_is_shown_beside_this_one(sample_root, weights, tmp_path, capsys):
    other_metrics(tmp_path / "twin.json", 15.67)
    options = ["--weights", weights, "--workers", 0, "--limit", 2, "--out", tmp_path, "--report", "--timesteps", "1,2"]
    assert evaluate(sample_root, *options, "--compare", tmp_path / "twin.json", classes=None) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["compared_with"]["energy_mj"] == 15.67
    assert "was measured on 2007:test, not on 2007:val" in capsys.readouterr().err
    assert "yolov4_tiny" in json.loads((tmp_path / "plots" / "anytime.json").read_text())["caption"]

    (tmp_path / "other.json").write_text("{}")
    assert evaluate(sample_root, *options, "--compare", tmp_path / "other.json", classes=None) == 2
    assert "is no metrics.json of a detector" in capsys.readouterr().err


def test_latency_is_told_when_asked_for(sample_root, weights, tmp_path):
    options = ["--weights", weights, "--json", tmp_path / "m.json", "--workers", 0, "--limit", 1, "--latency", "--energy-pictures", 0]
    assert evaluate(sample_root, *options, "--recalibrate", "2007:train", classes=None) == 0
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["anytime"][0]["latency_ms"] > 0 and "energy" not in metrics
    assert metrics["protocol"]["recalibrated_on"] == "2007:train"
    assert metrics["protocol"]["threads"] >= 1 and metrics["protocol"]["torch"] == torch.__version__ and metrics["protocol"]["processor"]


def test_what_was_tolerated_in_the_pictures_of_recalibration_is_told(sample_root, tmp_path, capsys):
    detector = build_detector("spyv4_lite", 2, width=0.125)
    save_weights(tmp_path / "w.safetensors", detector, WeightsInfo(detector.spec, ("disc", "ring"), size=64, timesteps=1))
    options = ["--weights", tmp_path / "w.safetensors", "--recalibrate", "2007:train", "--limit", 1, "--workers", 0]
    assert evaluate(sample_root, *options, "--json", tmp_path / "m.json", classes=None) == 0
    error = capsys.readouterr().err
    assert "warning: 2007:train: " in error and error.count("object of unknown class left out") == 2  # of both splits


@pytest.mark.parametrize("name", ["yolov4_tiny", "spyv4_lite"])
def test_a_fast_path_that_was_not_taken_is_not_claimed(sample_root, tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr(native, "why_not", lambda: "no C++ compiler")
    detector = build_detector(name, len(SAMPLE_CLASSES), width=0.125)
    save_weights(tmp_path / "w.safetensors", detector, WeightsInfo(detector.spec, SAMPLE_CLASSES, size=64, timesteps=1))
    options = ["--weights", tmp_path / "w.safetensors", "--fast", "int8", "--json", tmp_path / "m.json", "--workers", 0, "--limit", 2]
    assert evaluate(sample_root, *options, classes=None) == 0
    metrics, error = json.loads((tmp_path / "m.json").read_text()), capsys.readouterr().err
    reason = "no C++ compiler" if name == "spyv4_lite" else "its units do not spike"
    assert metrics["protocol"]["precision_of_convolutions"] == "none" and metrics["energy"]["pictures"] == 2
    assert f"no fast path here ({reason}): norms are folded, the rest runs as it is" in metrics["warnings"]
    assert f"warning: no fast path here ({reason})" in error and "taken by the fast path" not in error


@pytest.mark.skipif(bool(native.why_not()), reason=native.why_not())
def test_a_fast_path_that_was_taken_is_told(sample_root, weights, tmp_path):
    options = ["--weights", weights, "--fast", "fp32", "--amp", "bf16", "--json", tmp_path / "m.json", "--workers", 0, "--limit", 2]
    assert evaluate(sample_root, *options, classes=None) == 0
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["protocol"]["precision_of_convolutions"] == "fp32" and "energy" not in metrics
    assert "taken by the fast path at fp32; operations are not counted there" in metrics["warnings"]
    assert "--amp bf16 is not read: the fast path has its precision from --fast" in metrics["warnings"]


# --- pictures that cannot be read ---


@pytest.fixture
def spoilt(sample_root, tmp_path):
    """The sample set with a measured picture that is an empty file."""
    root = Path(shutil.copytree(sample_root, tmp_path / "sample"))
    VOCSet(root, "2007:val", SAMPLE_CLASSES).image_path(0).write_bytes(b"")
    return root


@pytest.mark.parametrize("strict", [[], ["--strict"]])
def test_a_report_shows_grey_for_a_picture_that_cannot_be_read(spoilt, tmp_path, capsys, strict):
    (tmp_path / "p.json").write_text("[]")
    options = ["--predictions", tmp_path / "p.json", "--out", tmp_path / "out", "--report", *strict]
    assert evaluate(spoilt, *options, classes="sample") == (2 if strict else 0)
    error = capsys.readouterr().err
    assert "(the file is empty)" in error
    if not strict:
        assert error.count("(the file is empty); grey stands in") == 1  # though it is on several sheets
        assert (tmp_path / "out" / "plots" / "pictures_worst.png").is_file()
        assert "grey stands in" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.filterwarnings("ignore:.*cannot be read as a picture")
def test_a_detector_s_figures_tell_of_pictures_that_cannot_be_read(spoilt, weights, tmp_path, capsys):
    options = ["--weights", weights, "--workers", 0, "--energy-pictures", 0, "--json", tmp_path / "m.json", "--timesteps", 1]
    count = len(VOCSet(spoilt, "2007:val", SAMPLE_CLASSES))
    assert evaluate(spoilt, *options, classes=None) == 0
    told = f"pictures that could not be read: 1 of {count}; their objects count as missed"
    assert told in json.loads((tmp_path / "m.json").read_text())["warnings"] and f"warning: {told}" in capsys.readouterr().err
    (tmp_path / "m.json").unlink()
    assert evaluate(spoilt, *options, "--limit", 1, classes=None) == 2
    assert "none of the 1 pictures can be read, so nothing was measured" in capsys.readouterr().err and not (tmp_path / "m.json").exists()


@pytest.mark.parametrize("strict", [[], ["--strict"]])
def test_a_stream_shows_grey_for_a_picture_that_cannot_be_read(spoilt, weights, tmp_path, capsys, strict):
    options = ["--weights", weights, "--stream", "--stream-clips", 2, "--timesteps", 1, "--out", tmp_path, *strict]
    assert evaluate(spoilt, *options, classes=None) == (2 if strict else 0)
    error = capsys.readouterr().err
    assert "(the file is empty)" in error
    if not strict:
        assert error.count("(the file is empty); grey stands in") == 1
        assert ["grey stands in" in note for note in json.loads((tmp_path / "stream.json").read_text())["warnings"]] == [True]


# --- the stream score ---


def test_the_stream_score_tells_what_was_tolerated_and_what_it_depends_on(sample_root, tmp_path, capsys):
    detector = build_detector("spyv4_lite", 2, width=0.125)
    save_weights(tmp_path / "w.safetensors", detector, WeightsInfo(detector.spec, ("disc", "ring"), size=64, timesteps=1))
    options = ["--weights", tmp_path / "w.safetensors", "--stream", "--stream-clips", 1, "--out", tmp_path]
    assert evaluate(sample_root, *options, "--nms", 0.9, "--confidence", 0.2, "--max-detections", 7, "--vote-iou", 0.6, classes=None) == 0
    result = json.loads((tmp_path / "stream.json").read_text())
    named = {"weights_of": "w", "nms_iou": 0.9, "confidence_floor": 0.2, "max_detections": 7, "vote_iou": 0.6}
    assert named.items() <= result["protocol"].items()
    [told] = result["warnings"]
    assert "object of unknown class left out" in told and capsys.readouterr().err == f"warning: {told}\n"


def test_the_stream_score_of_a_plain_network_takes_one_step_and_tells_what_its_figures_are_of(sample_root, tmp_path):
    plain = plain_weights(tmp_path / "plain.safetensors", 0.125)
    options = ["--weights", plain, "--stream", "--stream-clips", 1, "--timesteps", 4, "--size", 96, "--out", tmp_path]
    assert evaluate(sample_root, *options, classes=None) == 0
    result = json.loads((tmp_path / "stream.json").read_text())
    assert [mode for mode in result["modes"] if mode.startswith("fresh")] == ["fresh, 1 step"]
    assert "--timesteps 4 is not read: a plain network takes one step" in result["warnings"]
    assert "the letterbox disagrees: the detector was trained at 64 pixels and is measured at 96" in result["warnings"]


def test_the_stream_score_is_printed_and_written(sample_root, weights, tmp_path, capsys):
    options = ["--weights", weights, "--stream", "--stream-clips", 1, "--timesteps", 2, "--size", 96, "--out", tmp_path]
    options += ["--json", tmp_path / "also" / "here.json"]
    assert evaluate(sample_root, *options, classes=None) == 0
    result = json.loads((tmp_path / "stream.json").read_text())
    assert list(result["modes"]) == ["carried, 1 step", "fresh, 1 step", "fresh, 2 steps"]
    assert result["protocol"]["size"] == 96 and result["protocol"]["clips"] == 1 and "flicker" in capsys.readouterr().out


@pytest.mark.parametrize("options", [
    ["--fast", "int8"], ["--limit", 1], ["--latency"], ["--report"], ["--compare", "m.json"], ["--recalibrate", "2007:train"],
    ["--amp", "bf16"], ["--save-predictions", "p.json"], ["--voc-text", "text"], ["--batch", 2], ["--workers", 0], ["--energy-pictures", 1],
    ["--at-confidence", 0.4], ["--coco-backend", "pycocotools"], ["--allow-duplicates"],
])  # fmt: skip
def test_what_the_stream_score_does_not_read_is_refused(devkit, capsys, options):
    assert evaluate(devkit, "--weights", "nowhere.safetensors", "--stream", *options, classes=None) == 2
    assert capsys.readouterr().err == f"error: {options[0]}: the stream score does not read that; leave it out\n"


@pytest.mark.parametrize("stream", [[], ["--stream"]])
@pytest.mark.parametrize("size", [100, 0, -32, 40960])
def test_a_size_that_is_no_multiple_of_32_or_too_large_is_refused(devkit, capsys, stream, size):
    assert evaluate(devkit, "--weights", "nowhere.safetensors", "--size", size, *stream, classes=None) == 2
    assert capsys.readouterr().err == f"error: --size: a multiple of 32 up to 4096 is wanted, not {size}\n"


@pytest.mark.parametrize("steps", ["0", "-1", "1..4", "1,2", "\u00b2", " ", "4096"])
def test_the_stream_score_takes_one_number_of_steps(devkit, capsys, steps):
    assert evaluate(devkit, "--weights", "nowhere.safetensors", "--stream", f"--timesteps={steps}", classes=None) == 2
    assert "--stream takes one number from 1 to 1024 as --timesteps" in capsys.readouterr().err
