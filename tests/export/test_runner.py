"""The runner: numpy and onnxruntime alone, the same boxes as the Predictor's, state carried from frame to frame."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spyolo import runner
from spyolo.data import letterbox
from spyolo.predictor import Predictor

pytest.importorskip("onnxruntime")


@pytest.fixture
def picture() -> np.ndarray:
    coarse = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (40, 30), (20, 300), (64, 64), (3, 700)])
def test_letterbox_is_the_one_of_training(shape: tuple[int, int]):
    coarse = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))
    (ours, place), (theirs, at) = runner.letterbox(image, 128), letterbox(image, 128)
    assert place == (at.scale, at.left, at.top)
    assert np.abs(ours.astype(int) - theirs).max() <= 1  # grey levels


@pytest.mark.parametrize("form", ["step", "unrolled"])
def test_same_boxes_as_the_predictor(exported: dict[str, Path], live, picture: np.ndarray, form: str):
    detector, info = live()
    wanted = Predictor(detector, info, confidence=0.3)
    found = runner.Runner(exported[form], confidence=0.3).predict(picture)
    best = wanted.predict(picture)  # one class a box: the runner's file gives every class over the floor
    assert len(found.scores) >= len(best) > 3
    np.testing.assert_allclose(found.boxes[0], best.boxes[0], atol=0.5)
    assert found.scores[0] == pytest.approx(float(best.scores[0]), abs=0.01)


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
    with pytest.raises(runner.BadInput, match="uint8 RGB"):
        runner.Runner(exported["step"]).predict(np.zeros((8, 8)))
    assert runner.main([str(tmp_path / "none.onnx"), "a.png"]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none.onnx'}: no such file\n"


def test_other_onnx_files_are_refused(tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    info = onnx.helper.make_tensor_value_info("x", 1, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [info], [onnx.ValueInfoProto(name="y")])
    onnx.save(onnx.helper.make_model(graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 18)]), tmp_path / "other.onnx")
    with pytest.raises(runner.BadInput, match="not one that"):
        runner.Runner(tmp_path / "other.onnx")
