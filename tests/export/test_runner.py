"""The runner: numpy and onnxruntime alone, the same boxes as the Predictor's, state carried from frame to frame."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spyolo import runner
from spyolo.boxes import Detections
from spyolo.data import images, letterbox, read_image
from spyolo.detection import Reading, postprocess
from spyolo.predictor import Predictor

pytest.importorskip("onnxruntime")


@pytest.fixture
def picture() -> np.ndarray:
    coarse = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC))


def test_a_machine_without_onnxruntime_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert runner.main([str(tmp_path / "model.onnx"), str(tmp_path / "a.jpg")]) == 2
    assert "running a model needs onnxruntime: pip install onnxruntime" in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (40, 30), (20, 300), (64, 64), (3, 700)])
def test_letterbox_is_the_one_of_training(shape: tuple[int, int]):
    coarse = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))
    (ours, place), (theirs, at) = runner.letterbox(image, 128), letterbox(image, 128)
    assert place == (at.scale, at.left, at.top)
    assert np.abs(ours.astype(int) - theirs).max() <= 1  # grey levels


def odd_pictures(folder: Path) -> dict[str, Path]:
    """A picture file of every odd kind."""
    numbers = np.random.default_rng(0)
    rgb, alpha = numbers.integers(0, 256, (20, 30, 3), dtype=np.uint8), numbers.integers(0, 256, (20, 30), dtype=np.uint8)
    plain, clear = Image.fromarray(rgb), Image.fromarray(alpha)
    opaque_grey, see_through = plain.convert("L"), plain.convert("RGBA")
    see_through.putalpha(clear)
    turned = Image.Exif()
    turned[274] = 6  # orientation: a quarter turn
    kinds = {
        "grey16.png": Image.fromarray(numbers.integers(0, 65536, (20, 30), dtype=np.uint16)),
        "grey32.tiff": Image.fromarray(numbers.integers(0, 65536, (20, 30), dtype=np.int32)),
        "float.tiff": Image.fromarray(numbers.random((20, 30), dtype=np.float32)),
        "rgba.png": see_through, "la.png": Image.merge("LA", (opaque_grey, clear)), "bits.png": opaque_grey.convert("1"),
        "cmyk.jpg": plain.convert("CMYK"), "plain.png": plain,
    }  # fmt: skip
    for name, picture in kinds.items():
        picture.save(folder / name)
    plain.quantize(16).save(folder / "palette.png", transparency=3)
    plain.quantize(16).save(folder / "palette.gif", transparency=3)
    plain.save(folder / "trns.png", transparency=tuple(int(v) for v in rgb[4, 5]))
    opaque_grey.save(folder / "grey_trns.png", transparency=opaque_grey.getpixel((5, 4)))
    plain.save(folder / "turned.jpg", exif=turned)
    plain.save(folder / "film.gif", save_all=True, append_images=[see_through.convert("RGB")])
    return {path.name: path for path in folder.iterdir()}


def test_every_odd_kind_of_picture_is_read_as_in_training(tmp_path: Path):
    for name, path in odd_pictures(tmp_path).items():
        np.testing.assert_array_equal(runner.read_picture(path), read_image(path), err_msg=name)
    assert runner.read_picture(tmp_path / "turned.jpg").shape == (30, 20, 3)


def test_pictures_that_are_too_large_or_too_small_are_refused_as_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert (runner.MAX_PIXELS, runner.MIN_SIDE) == (images.MAX_PIXELS, images.MIN_SIDE)
    Image.new("RGB", (1, 9)).save(tmp_path / "thin.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "large.png")
    monkeypatch.setattr(runner, "MAX_PIXELS", 399)
    for name in ("thin.png", "large.png"):
        with pytest.raises(runner.BadInput, match=f"{name}: not a picture that can be read .* are taken"):
            runner.read_picture(tmp_path / name)


def same(found: runner.Found, wanted: Detections) -> None:
    """All boxes, their scores and their labels."""
    assert len(found.labels) == len(wanted) > 3 and len(set(found.labels.tolist())) > 1
    np.testing.assert_array_equal(found.labels, wanted.labels)
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=5e-3)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)


@pytest.mark.parametrize("form", ["step", "unrolled"])
@pytest.mark.parametrize("shape", [(64, 64), (32, 64), (64, 48)])
@pytest.mark.parametrize("times", [1, 2])  # as large as the canvas, or twice: no grey level depends on how one resizes
def test_same_boxes_scores_and_labels_as_the_predictor(
    exported_best: dict[str, Path], live, picture: np.ndarray, form: str, shape: tuple[int, int], times: int
):
    picture = picture[: shape[0], : shape[1]].repeat(times, 0).repeat(times, 1)
    same(runner.Runner(exported_best[form]).predict(picture), Predictor(*live()).predict(picture))


@torch.inference_mode()
def test_the_labels_of_every_class_of_a_box_are_those_of_torch(exported: dict[str, Path], live, picture: np.ndarray):
    detector, info = live()
    canvas = picture[:64, :64]
    *_, (predictions, _) = detector.run(torch.from_numpy(canvas.copy()).permute(2, 0, 1)[None], info.timesteps)
    (wanted,) = postprocess(predictions, detector.anchors, detector.strides, Reading(0.3))
    same(runner.Runner(exported["unrolled"], confidence=0.3).predict(canvas), wanted)


def test_a_stream_has_the_boxes_of_the_predictors(exported_best: dict[str, Path], live, picture: np.ndarray):
    frames = [picture[:64, :64], picture[40:104, 60:124], picture[:64, :64]]
    for steps in (1, 2):
        for found, wanted in zip(
            runner.Runner(exported_best["step"], confidence=0.2).stream(frames, steps),
            Predictor(*live(), confidence=0.2).stream(frames, steps),
            strict=True,
        ):
            same(found, wanted)


def test_the_command_line_shows_a_frame_of_a_stream_as_many_steps_as_it_says(
    exported_best: dict[str, Path], picture: np.ndarray, tmp_path: Path, capsys
):
    path = str(tmp_path / "a.png")
    Image.fromarray(picture[:64, :64]).save(path)
    run = runner.Runner(exported_best["step"])
    for given, steps in (([], 1), (["--timesteps", "2"], 2)):
        assert runner.main([str(exported_best["step"]), path, path, "--stream", *given]) == 0
        lines = [json.loads(line)["found"] for line in capsys.readouterr().out.splitlines()]
        for line, found in zip(lines, run.stream([picture[:64, :64]] * 2, steps), strict=True):
            assert [box["label"] for box in line] == [run.classes[label] for label in found.labels]
            np.testing.assert_allclose([box["score"] for box in line], found.scores, atol=1e-4)


def test_a_stream_carries_the_state_and_keeps_nothing(exported: dict[str, Path], live, picture: np.ndarray):
    run = runner.Runner(exported["step"], confidence=0.2)
    frames = [picture, picture[:, ::-1].copy(), picture]
    first, again = list(run.stream(frames)), list(run.stream(frames))
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a.boxes, b.boxes)
    assert not np.array_equal(first[0].scores, first[2].scores)  # the same frame, another past
    wanted = list(Predictor(*live(), confidence=0.2).stream(frames))
    for mine, theirs in zip(first, wanted):
        assert mine.scores[0] == pytest.approx(float(theirs.scores[0]), abs=0.01)


def test_needs_neither_torch_nor_opencv_nor_the_rest_of_spyolo(exported: dict[str, Path], tmp_path: Path, picture: np.ndarray):
    copy = tmp_path / "runner.py"
    copy.write_bytes(Path(runner.__file__).read_bytes())
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    banned = "import sys\nfor name in ('torch', 'torchvision', 'cv2', 'spyolo', 'onnx'): sys.modules[name] = None\n"
    script = banned + f"import runner\nsys.exit(runner.main([{str(exported['step'])!r}, 'a.png', 'broken.png', 'a.png', '--stream']))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2  # one picture of three could not be read
    assert "broken.png: not a picture" in done.stderr and len(done.stderr.splitlines()) == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["picture"] for line in lines] == ["a.png", "a.png"]
    assert lines[0]["found"] and lines[0]["found"][0].keys() == {"label", "score", "box"}


def test_bad_input_is_told_in_a_line(exported: dict[str, Path], tmp_path: Path, capsys):
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(runner.BadInput, match="no such file"):
        runner.Runner(tmp_path / "none.onnx")
    with pytest.raises(runner.BadInput, match="cannot open"):
        runner.Runner(tmp_path / "x.onnx")
    with pytest.raises(runner.BadInput, match="exported for 3 steps"):
        runner.Runner(exported["unrolled"], timesteps=5)
    with pytest.raises(runner.BadInput, match="--form step"):
        runner.Runner(exported["unrolled"]).step(np.zeros((8, 8, 3), np.uint8))
    for wrong, message in (
        ({"confidence": 7}, "confidence must be between 0 and 1, got 7"),
        ({"nms_iou": float("nan")}, "nms_iou must be between 0 and 1"),
        ({"timesteps": 0}, "timesteps must be a whole number from 1 to 1024"),
        ({"timesteps": 10**9}, "timesteps must be a whole number from 1 to 1024"),
        ({"timesteps": 2.5}, "timesteps must be a whole number from 1 to 1024, got 2.5"),
    ):
        with pytest.raises(runner.BadInput, match=message):
            runner.Runner(exported["step"], **wrong)
    with pytest.raises(runner.BadInput, match="steps must be a whole number from 1 to 1024, got 0"):
        runner.Runner(exported["step"]).step(np.zeros((8, 8, 3), np.uint8), steps=0)
    with pytest.raises(runner.BadInput, match="uint8 RGB"):
        runner.Runner(exported["step"]).predict(np.zeros((8, 8)))
    assert runner.main([str(exported["step"]), "a.png", "--confidence", "7"]) == 2
    assert capsys.readouterr().err == "error: confidence must be between 0 and 1, got 7.0\n"
    assert runner.main([str(tmp_path / "none.onnx"), "a.png"]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none.onnx'}: no such file\n"


def test_other_onnx_files_are_refused(tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    info = onnx.helper.make_tensor_value_info("x", 1, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [info], [onnx.ValueInfoProto(name="y")])
    onnx.save(onnx.helper.make_model(graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 18)]), tmp_path / "other.onnx")
    with pytest.raises(runner.BadInput, match="not one that"):
        runner.Runner(tmp_path / "other.onnx")
