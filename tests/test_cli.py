"""The command lines: what they write, and one line with exit status 2 for whatever is wrong."""

from __future__ import annotations

import errno
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from spyolo.checkpoint import WeightsInfo, load_tensors, save_weights
from spyolo.cli import COMMANDS, guarded, main, run
from spyolo.config import FIELDS
from spyolo.data import SAMPLE_CLASSES
from spyolo.data.annotation import Thing
from spyolo.detection import build_detector
from spyolo.errors import InputError

ROOT = Path(__file__).parent.parent
TINY = [
    "--width", "0.05", "--size", "64", "--timesteps", "2", "--batch", "4", "--epochs", "1", "--limit", "4", "--val-limit", "2",
    "--recalibrate", "0", "--workers", "0", "--amp", "none", "--device", "cpu",
]  # fmt: skip


def bad(capsys, command: str, *arguments: object) -> str:
    """Run a command that must be refused: exit status 2 and one line on stderr, which is returned."""
    assert run(command, [str(a) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "Traceback" not in error
    return error


# --- the frame ---


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_what_a_command_does_and_takes(command, capsys):
    with pytest.raises(SystemExit) as left:
        run(command, ["--help"])
    told = capsys.readouterr().out
    assert left.value.code == 0 and "usage: " + command in told and len(told) > 400
    assert f"tools/{command}.py" in told or f"app/{command}.py" in told  # examples of its use
    shim = next(p for p in (ROOT / "tools" / f"{command}.py", ROOT / "app" / f"{command}.py") if p.exists())
    assert f"/{command}.py --help" in shim.read_text() and "from spyolo.cli" in shim.read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_misspelt_option_is_one_line_with_the_nearest_there_is(command, capsys):
    options = importlib.import_module(f"spyolo.cli.{command}").parser()._option_string_actions
    known = max((o for o in options if o.startswith("--") and o != "--help"), key=len)
    told = bad(capsys, command, known[:-1] + "x", "5")
    assert told.startswith(f"error: {command}: ") and "usage" not in told
    required = [a for a in importlib.import_module(f"spyolo.cli.{command}").parser()._actions if a.required]
    if not required:  # else what is missing is told first
        assert f"did you mean {known}?" in told


def test_help_of_train_names_every_field_with_its_limits(capsys):
    with pytest.raises(SystemExit):
        run("train", ["--help"])
    told = capsys.readouterr().out
    for name in FIELDS:
        assert f"--{name.replace('_', '-')} " in told, name
    assert "{feddyn, paper, reference}" in " ".join(told.split()) and "(between 0 and 0.5)" in " ".join(told.split())


def test_spyolo_without_or_with_an_unknown_command_shows_what_there_is(capsys):
    for argv, status in ([], 2), (["fly"], 2), (["--help"], 0):
        assert main(argv) == status
        shown = capsys.readouterr()
        assert all(name in (shown.out if status == 0 else shown.err) for name in COMMANDS)


def test_what_there_is_may_be_cut_short_by_its_reader(monkeypatch):
    def gone(text):
        raise BrokenPipeError

    monkeypatch.setattr("sys.stdout.write", gone)
    assert main(["--help"]) == 141


def test_commands_may_be_written_with_a_dash(capsys):
    with pytest.raises(SystemExit):
        main(["make-sample", "--help"])
    assert "usage: make_sample" in capsys.readouterr().out


@pytest.mark.parametrize(("error", "status"), [(InputError("no"), 2), (KeyboardInterrupt(), 130), (BrokenPipeError(), 141)])
def test_how_a_command_ends(error, status, capsys):
    def command(_: object) -> int:
        raise error

    assert guarded(command) == status
    assert capsys.readouterr().err == {2: "error: no\n", 130: "interrupted\n", 141: ""}[status]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "data/a.jpg"), "error: data/a.jpg: Permission denied\n"),
        (OSError(errno.ENAMETOOLONG, "File name too long", Path("a" * 300)), f"error: {'a' * 200}...: File name too long\n"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device\n"),
    ],
)
def test_files_that_the_system_refuses_are_one_line(error, told, capsys):
    def command(_: object) -> int:
        raise error

    assert guarded(command) == 2 and capsys.readouterr().err == told


@pytest.mark.parametrize(
    "error",
    [
        OSError("of our own making"),
        OSError(errno.EBADF, "Bad file descriptor"),
        FileExistsError(errno.EEXIST, "File exists", "a"),
        PermissionError(errno.EACCES, "Permission denied"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    ],
)
def test_errors_of_the_system_that_are_a_program_s_keep_their_traceback(error):
    def command(_: object) -> int:
        raise error

    with pytest.raises(type(error)):
        guarded(command)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("predict", ["--weights", "WEIGHTS", "--source", "LONG"]),
        ("eval", ["--predictions", "LONG", "--data", "LONG"]),
        ("check_data", ["--data", "LONG"]),
        ("convert", ["--from", "coco", "--to", "voc", "--data", "LONG", "--out", "OUT"]),
        ("train", ["--data", "LONG", "--out", "OUT"]),
    ],
)
def test_names_that_are_too_long_are_one_line(weights_file, tmp_path, capsys, command, options):
    places = {"WEIGHTS": weights_file, "LONG": tmp_path / ("x" * 300), "OUT": tmp_path / "out"}
    assert "xxx" in bad(capsys, command, *(places.get(word, word) for word in options))


# --- predict ---


@pytest.fixture
def photos(tmp_path):
    """A folder of two pictures of one stem, a bad one and something else."""
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "a.png")
    Image.fromarray(noise[:, ::-1]).save(folder / "a.jpg")
    Image.fromarray(noise[::-1]).save(folder / "b.PNG")
    (folder / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:300])
    (folder / "empty.png").touch()
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_predict_on_a_picture(weights_file, photos, tmp_path, capsys):
    out = tmp_path / "seen"
    options = ["--weights", str(weights_file), "--source", str(photos / "b.PNG"), "--out", str(out), "--confidence", "0.05"]
    assert run("predict", options) == 0
    told = capsys.readouterr().out.splitlines()
    found = json.loads((out / "predictions.json").read_text())
    assert found and {row["image_id"] for row in found} == {"b"} and all(row["score"] > 0.05 for row in found)
    assert told[-1] == f"1 picture(s), {len(found)} box(es) -> {out}" and len(told) == len(found) + 1
    drawn, original = (np.asarray(Image.open(p).convert("RGB")) for p in (out / "b.jpg", photos / "b.PNG"))
    assert drawn.shape == original.shape
    for row in found:
        x, y, width, height = row["bbox"]
        assert x >= 0 and y >= 0 and x + width <= 80.01 and y + height <= 48.01


def test_a_stream_whose_state_goes_bad_stops_or_starts_anew(weights_file, tmp_path, capsys, monkeypatch):
    import math

    import cv2
    import torch

    from spyolo.predictor import Predictor

    film = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    for k in range(6):
        film.write(np.full((48, 64, 3), 40 * k, np.uint8))
    film.release()
    inner, count = Predictor.step, [0]

    def step(self, image, state=None, steps=1, check=True):
        count[0] += 1
        found, state = inner(self, image, state, steps, check)
        if count[0] == 3:
            with torch.inference_mode():
                next(iter(state.cells.values())).u[..., 0] = math.nan
        return found, state

    monkeypatch.setattr(Predictor, "step", step)
    options = ["--weights", weights_file, "--source", tmp_path / "film.avi", "--out", tmp_path / "out", "--write", "jsonl"]
    assert run("predict", [str(o) for o in options]) == 2
    assert "error: frame 4: the state of backbone.conv1 is not finite" in (told := capsys.readouterr().err) and "Traceback" not in told
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 3  # what was found stays
    count[0] = 0
    assert run("predict", [str(o) for o in (*options, "--nonfinite", "restart")]) == 0
    assert "6 frame(s)" in (told := capsys.readouterr().out) and "started anew from rest 1 time(s)" in told


def test_predict_by_the_fast_path_finds_the_same(weights_file, photos, tmp_path):
    """fp32: only the order of operations differs, so the boxes are those of the plain path to a rounding."""
    found = {}
    for name, more in (("plain", []), ("fast", ["--fast", "fp32"]), ("settled", ["--settle", "--timesteps", "4"])):
        options = ["--weights", weights_file, "--source", photos / "b.PNG", "--out", tmp_path / name, "--confidence", "0.05", *more]
        assert run("predict", [str(o) for o in options]) == 0
        found[name] = json.loads((tmp_path / name / "predictions.json").read_text())
    assert found["plain"] and len(found["fast"]) == len(found["plain"]) and found["settled"]
    for one, other in zip(found["plain"], found["fast"]):
        assert one["category"] == other["category"] and other["score"] == pytest.approx(one["score"], abs=1e-3)
        assert other["bbox"] == pytest.approx(one["bbox"], abs=0.1)


def test_eval_by_the_fast_path_says_so_and_finds_the_same(weights_file, sample_root, tmp_path, capsys):
    found = {}
    for fast in ("none", "fp32", "int8"):
        options = ["--weights", weights_file, "--data", sample_root, "--split", "2007:val", "--workers", "0", "--quiet", "--limit", "4",
                   "--fast", fast, "--json", tmp_path / f"{fast}.json", "--save-predictions", tmp_path / "p.json"]  # fmt: skip
        assert run("eval", [str(o) for o in options]) == 0
        assert ("taken by the fast path at" in capsys.readouterr().err) == (fast != "none")
        assert json.loads((tmp_path / f"{fast}.json").read_text())["protocol"]["precision_of_convolutions"] == fast
        found[fast] = sorted(row["score"] for row in json.loads((tmp_path / "p.json").read_text()))
    assert len(found["none"]) > 20 and found["fp32"] == pytest.approx(found["none"], abs=1e-3) and found["int8"]


def test_nothing_seen_is_said(weights_file, photos, tmp_path, capsys):
    options = ["--weights", str(weights_file), "--source", str(photos / "a.png"), "--out", str(tmp_path), "--confidence", "1"]
    assert run("predict", options) == 0
    assert capsys.readouterr().out.startswith("nothing seen\n1 picture(s), 0 box(es)")
    assert json.loads((tmp_path / "predictions.json").read_text()) == [] and (tmp_path / "a.jpg").exists()


def test_bad_pictures_in_a_folder_are_told_and_the_others_done(weights_file, photos, tmp_path, capsys):
    out = tmp_path / "seen"
    options = ["--timesteps", "1", "--size", "96", "--confidence", "0.05", "--amp", "bf16"]
    assert run("predict", ["--weights", str(weights_file), "--source", str(photos), "--out", str(out), *options]) == 1
    shown = capsys.readouterr()
    assert "3 picture(s)" in shown.out and "; 2 left out" in shown.out
    told = [line for line in shown.err.splitlines() if line.startswith("left out: ")]
    assert len(told) == 2 and "broken.jpg" in told[0] and "empty.png" in told[1] and "Traceback" not in shown.err
    # a.jpg and a.png share a stem: neither takes the other's place
    assert {p.name for p in out.iterdir()} == {"a.jpg.jpg", "a.png.jpg", "b.jpg", "predictions.json"}
    assert {row["image_id"] for row in json.loads((out / "predictions.json").read_text())} == {"a.jpg", "a.png", "b"}


def test_predict_never_writes_over_its_source(weights_file, photos, capsys):
    before = {p: p.read_bytes() for p in photos.iterdir()}
    for source in (photos, photos / "a.jpg"):
        assert "they would be overwritten" in bad(capsys, "predict", "--weights", weights_file, "--source", source, "--out", photos / ".")
    assert {p: p.read_bytes() for p in photos.iterdir()} == before


def test_tables_may_lie_beside_the_pictures(weights_file, photos):
    before = {p: p.read_bytes() for p in photos.iterdir()}
    asked = ("--weights", weights_file, "--source", photos, "--out", photos, "--write", "csv")
    assert run("predict", [str(a) for a in asked]) == 1  # two are bad
    assert {p: p.read_bytes() for p in photos.iterdir() if p.name != "predictions.csv"} == before and (photos / "predictions.csv").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "nowhere.jpg"], "nowhere.jpg: no such picture or folder"),
        (["--source", "99999999999"], "'99999999999': cameras are numbered from 0 to 9999"),
        (["--fresh", "--frames", "3"], "--frames, --fresh: for a video, camera or stream; pictures are shown --timesteps steps"),
        (["--nonfinite", "restart"], "--nonfinite: for a video, camera or stream"),
        (["--steps-per-frame", "2"], "--steps-per-frame: for a video, camera or stream"),
        (["--video-format", "mp4"], "--video-format: for a video, camera or stream"),
        (["--source", "EMPTY"], "no pictures here (looked for .avif, .bmp, .gif, .jpeg"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors: no such weights file"),
        (["--weights", "PHOTO"], "not a whole safetensors file"),
        (["--size", "100"], "--size: a multiple of 32 up to 4096 is wanted, not 100"),
        (["--size", "0"], "--size: a multiple of 32 up to 4096 is wanted, not 0"),
        (["--size", "40960"], "--size: a multiple of 32 up to 4096 is wanted, not 40960"),
        (["--timesteps", "0"], "--timesteps: a whole number from 1 to 1024 is wanted, not 0"),
        (["--timesteps", "5000"], "--timesteps: a whole number from 1 to 1024 is wanted, not 5000"),
        (["--steps-per-frame", "5000"], "--steps-per-frame: a whole number from 1 to 1024 is wanted, not 5000"),
        (["--frames", "0"], "--frames must be at least 1, got 0"),
        (["--write", ""], "predict: --write is empty; give a value or leave it out"),
        (["--write", " ,"], "--write ' ,' names nothing to write; choose of pictures, coco"),
        (["--confidence", "1.5"], "--confidence must be between 0 and 1, got 1.5"),
        (["--nms-iou", "-1"], "--nms-iou must be between 0 and 1, got -1"),
        (["--vote-iou", "nan"], "--vote-iou must be between 0 and 1, got nan"),
        (["--confidence", "high"], "argument --confidence: invalid float value: 'high'"),
        (["--device", "abacus"], "device 'abacus' is not to be had here"),
        (["--out", "PHOTO"], "cannot be written"),
        (["--confidance", "0.5"], "unrecognized arguments: --confidance 0.5; did you mean --confidence?"),
    ],
)
def test_what_predict_refuses(weights_file, photos, tmp_path, capsys, options, message):
    (tmp_path / "empty").mkdir()
    places = {"PHOTO": str(photos / "a.png"), "EMPTY": str(tmp_path / "empty")}
    usual = ["--weights", weights_file, "--source", photos / "b.PNG", "--out", tmp_path / "out"]
    assert message in bad(capsys, "predict", *usual, *(places.get(word, word) for word in options))
    assert not (tmp_path / "out").exists()


def test_predict_needs_weights_and_a_source(capsys):
    assert "the following arguments are required: --weights, --source" in bad(capsys, "predict")


# --- tools for data ---


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("make_sample", ["--pictures", "5"]),
        ("make_shards", ["--data", "DATA", "--split", "2007:val", "--classes", "sample"]),
        *(("convert", ["--from", "voc", "--to", to, "--data", "DATA", "--split", "2007:val", *more])
          for to in ("voc", "coco", "yolo") for more in ([], ["--pictures", "none"])),
    ],
)  # fmt: skip
@pytest.mark.parametrize("out", ["FILE", "FILE/below", "LONG"])
def test_a_folder_that_cannot_be_made_is_told(sample_root, tmp_path, capsys, command, options, out):
    (tmp_path / "file").write_text("mine")
    places = {"DATA": sample_root, "FILE": tmp_path / "file", "FILE/below": tmp_path / "file" / "x", "LONG": tmp_path / ("x" * 300)}
    assert "cannot be made (" in bad(capsys, command, *(places.get(word, word) for word in options), "--out", places[out])
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize(("command", "options"), [("make_sample", ["--out", "OUT"]), ("anchors", ["--data", "DATA"])])
def test_seeds_have_limits(sample_root, tmp_path, capsys, command, options, seed):
    places = {"DATA": sample_root, "OUT": tmp_path / "out"}
    told = bad(capsys, command, *(places.get(word, word) for word in options), "--seed", seed)
    assert told == f"error: --seed must be between 0 and 4294967295, got {seed}\n" and not (tmp_path / "out").exists()


# --- train ---


def test_train_tells_the_result_and_goes_on_when_asked(sample_root, tmp_path, capsys):
    out = tmp_path / "run"
    options = [*TINY, "--batch", "2", "--data", str(sample_root), "--classes", "sample", "--out", str(out), "--quiet"]
    assert run("train", [*options, "--max-minutes", "1e-9"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3 and told[-1] == f"stopped after epoch 0 and 1 batches; go on with --resume {out}"
    assert "already holds a run; --resume it, or give another --out" in bad(capsys, "train", *options)
    assert run("train", ["--resume", str(out), "--epochs", "2", "--max-minutes", "0", "--quiet"]) == 0
    told = capsys.readouterr().out
    assert "mAP@0.5" in told and f"best weights     {out}/best.safetensors" in told and "2 epochs" in told
    assert (out / "predictions.png").exists() and "epochs: 2\n" in (out / "config.yaml").read_text()

    # what it left is what the other commands take
    picture = next((sample_root / "VOCdevkit" / "VOC2007" / "JPEGImages").iterdir())
    for weights in ("best", "last"):
        options = ["--weights", str(out / f"{weights}.safetensors"), "--source", str(picture), "--out", str(tmp_path / weights)]
        assert run("predict", options) == 0
    ema = ["--weights", str(out / "last.safetensors"), "--weights-of", "ema", "--data", str(sample_root), "--split", "2007:val"]
    assert run("eval", [*ema, "--limit", "1", "--workers", "0", "--quiet", "--json", str(tmp_path / "m.json")]) == 0


def test_without_data_the_sample_set_is_drawn(monkeypatch):
    from spyolo import trainer
    from spyolo.cli import train
    from spyolo.data import sample

    drawn = []
    monkeypatch.setattr(sample, "make_sample", lambda folder, **_: drawn.append(folder))
    monkeypatch.setattr(trainer, "Trainer", lambda config, **_: drawn.append(config) or exec("raise SystemExit"))
    with pytest.raises(SystemExit):
        train.main(["--lr", "0.5"])
    folder, config = drawn
    assert folder == train.SAMPLE_FOLDER and config.data == str(train.SAMPLE_FOLDER)
    assert config.classes == SAMPLE_CLASSES and config.lr == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ephocs", "3"], "train: unrecognized arguments: --ephocs 3; did you mean --epochs?"),
        (["--epoch", "3"], "did you mean --epochs?"),
        (["surplus"], "unrecognized arguments: surplus"),
        (["--lr"], "argument --lr: expected one argument"),
        (["--lr", "fast"], "command line: lr must be a number, got 'fast'"),
        (["--size", "100"], "size must be a multiple of 32, got 100"),
        (["--classes", "cat,cat"], "names cat more than once"),
        (["--preset", "coco"], "coco.yaml: no such config file; presets are"),
        (["--preset", "PRESET"], "mine.yaml: unknown field 'learning_rte'"),
        (["--preset", "voc"], "--data is missing: the folder that holds VOCdevkit"),
        (["--data", "nowhere"], "no VOC devkit in nowhere: looked for"),
        (["--data", "DATA", "--train", "2007:tarin"], "tarin.txt does not exist; image sets there:"),
        (["--data", "DATA", "--train", "2007:"], "split '2007:' in '2007:' is not understood"),
        (["--data", "DATA", "--out", "FILE"], "cannot be written"),
        (["--data", "DATA", "--device", "abacus"], "device 'abacus' is not to be had here"),
        (["--data", "DATA", "--init", "nowhere.safetensors"], "nowhere.safetensors: no such weights file"),
        (["--resume", ""], "train: --resume is empty; give a value or leave it out"),
        (["--preset", ""], "train: --preset is empty; give a value or leave it out"),
        (["--data", ""], "--data is empty; give the folder that holds VOCdevkit, or leave it out"),
        (["--resume", "nowhere"], "nowhere: no run to resume here"),
        (["--resume", "x" * 300], "cannot be looked for (File name too long)"),
        (["--data", "DATA", "--out", "x" * 300], "cannot be looked for (File name too long)"),
    ],
)
def test_what_train_refuses(sample_root, tmp_path, capsys, options, message):
    (tmp_path / "mine.yaml").write_text("learning: {learning_rte: 1}\n")
    (tmp_path / "file").touch()
    places = {"PRESET": str(tmp_path / "mine.yaml"), "DATA": str(sample_root), "FILE": str(tmp_path / "file")}
    usual = [*TINY, "--classes", "sample", "--out", tmp_path / "run", "--quiet"]
    assert message in bad(capsys, "train", *usual, *(places.get(word, word) for word in options))
    assert not (tmp_path / "run").exists() and (tmp_path / "file").read_bytes() == b""


def test_init_belongs_to_a_new_run(sample_root, tmp_path, capsys, weights_file):
    (tmp_path / "config.yaml").write_text("")
    assert "--init starts a new run" in bad(capsys, "train", "--resume", tmp_path, "--init", weights_file)


def test_a_resumed_run_has_its_own_preset_and_folder(tmp_path, capsys):
    from spyolo.cli import train

    (tmp_path / "config.yaml").write_text("epochs: 7\n")
    assert "--preset voc starts a new run" in bad(capsys, "train", "--resume", tmp_path, "--preset", "voc")
    said = bad(capsys, "train", "--resume", tmp_path, "--out", tmp_path / "other")
    assert f"--resume goes on in {tmp_path} itself; leave --out out, or copy the folder" in said
    same = train.parser().parse_args(["--resume", str(tmp_path), "--out", f"{tmp_path}/x/..", "--lr", "0.5"])
    config = train.resolve(same)
    assert (config.out, config.epochs, config.lr) == (str(tmp_path), 7, 0.5)


# --- weights of another class count ---


@pytest.fixture
def two_classes(tmp_path):
    detector = build_detector("spyv4_lite", 2, width=0.05)
    save_weights(tmp_path / "two.safetensors", detector, WeightsInfo(detector.spec, ("cat", "dog"), 64, 1))
    return tmp_path / "two.safetensors"


@pytest.fixture
def contradictory(two_classes):
    """Its description says three classes, its heads have two."""
    tensors, metadata = load_tensors(two_classes)
    spec = json.loads(metadata["spec"]) | {"num_classes": 3}
    save_file(tensors, two_classes, metadata | {"spec": json.dumps(spec), "classes": '["cat", "dog", "elf"]'})
    return two_classes


def test_a_warm_start_from_another_class_count(two_classes, sample_root, tmp_path, capsys):
    options = [*TINY, "--classes", "sample", "--data", sample_root, "--out", tmp_path / "run", "--init", two_classes]
    assert f"two.safetensors: weights for 2 classes, the detector has {len(SAMPLE_CLASSES)}" in bad(capsys, "train", *options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["eval", "predict"])
def test_heads_that_contradict_their_description(command, contradictory, sample_root, photos, tmp_path, capsys):
    rest = {"eval": ["--data", sample_root, "--json", tmp_path / "m.json"], "predict": ["--source", photos, "--out", tmp_path / "out"]}
    error = bad(capsys, command, "--weights", contradictory, *rest[command])
    assert "two.safetensors: tensor heads.0." in error and "expected (24," in error
    assert not (tmp_path / "m.json").exists() and not (tmp_path / "out").exists()


def test_eval_says_so_when_detector_and_data_share_no_class(two_classes, sample_root, tmp_path, capsys):
    options = ["--weights", two_classes, "--data", sample_root, "--split", "2007:val", "--workers", "0", "--quiet", "--limit", "2"]
    assert run("eval", [str(o) for o in [*options, "--json", tmp_path / "m.json"]]) == 0
    error = capsys.readouterr().err
    assert "object of unknown class left out: " in error and "Traceback" not in error
    assert "is none of the 2 classes in use" in bad(capsys, "eval", *options, "--strict", "--json", tmp_path / "n.json")


# --- bad samples: a warning with a count, or --strict ---


@pytest.fixture
def spoilt(make_devkit):
    """Four pictures: one empty, one of another size than its XML says, two good."""
    cat = [Thing("cat", (5, 5, 40, 40))]
    make_devkit({"a": cat, "b": cat, "c": cat, "d": cat})
    root = make_devkit({"c": cat}, split="val")
    pictures = root / "VOCdevkit" / "VOC2007" / "JPEGImages"
    (pictures / "a.jpg").write_bytes(b"")
    shutil.copy(pictures / "c.jpg", pictures / "b.jpg")
    Image.new("RGB", (32, 24)).save(pictures / "b.jpg")
    return root


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_pictures_are_warned_of_and_counted_or_refused(spoilt, tmp_path, capsys, recwarn, workers):
    options = [*TINY, "--classes", "cat", "--data", spoilt, "--augment", "eval", "--batch", 1, "--workers", workers, "--quiet"]
    error = bad(capsys, "train", *options, "--strict", "yes", "--out", tmp_path / "strict")
    assert "a.jpg" in error or "b.jpg is 32 x 24 pixels, but field <size>" in error
    if workers == 0:
        assert run("train", [str(o) for o in [*options, "--out", tmp_path / "run"]]) == 0
        told = [str(w.message) for w in recwarn if "so far" in str(w.message)]
        assert any("a.jpg" in t for t in told) and any("b.jpg is 32 x 24" in t for t in told) and any("(2 so far)" in t for t in told)
        assert (tmp_path / "run" / "metrics.json").exists()


def test_torch_is_not_loaded_to_say_that_an_option_is_wrong():
    """A misspelt option is answered at once."""
    program = "import sys; from spyolo.cli import run; s = run('train', ['--ephocs', '3']); sys.exit(s + 10 * ('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2 and "did you mean --epochs?" in done.stderr
