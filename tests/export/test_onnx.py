"""The ONNX file is the detector: layer by layer on the same spikes, end to end, in both forms, and its boxes are `postprocess`'s."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from spyolo.checkpoint import WeightsInfo, save_weights
from spyolo.cli import run as run_command
from spyolo.detection import Reading, build_detector, postprocess
from spyolo.errors import InputError
from spyolo.neurons import build_norm

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from spyolo.export import export_onnx  # noqa: E402
from spyolo.export.int8 import quantise  # noqa: E402
from spyolo.export.verify import equal_boxes, equal_spikes, largest, layer_by_layer, open_session, random_pictures, run_session  # noqa: E402
from spyolo.export.written import check_file, same_boxes  # noqa: E402

KINDS = [
    ("spyv4_lite", {}),
    ("spyv4", {"readout": "mean", "start": "uniform"}),
    ("spyv4_lite", {"gate": "pointwise", "readout": "last", "norm": "renorm", "depth": 2}),
    ("spyv4", {"kind": "lif"}),
    ("yolov4_tiny", {}),
]


@pytest.mark.parametrize(("name", "options"), KINDS, ids=lambda v: str(v))
def test_each_layer_equals_torch_on_the_same_spikes(live, soft_pictures: Tensor, name: str, options: dict):
    detector, info = live(name, **options)
    checks = layer_by_layer(detector, info, [soft_pictures, *random_pictures(1, 3, 64)])
    assert len(checks) == (21 + options.get("depth", 1) * 3 - 3 if detector.spiking else 2)
    assert all(check.equal for check in checks.values()), checks


def test_the_comparison_sees_a_wrong_weight(live, soft_pictures: Tensor, monkeypatch: pytest.MonkeyPatch):
    from spyolo.export import cells

    right = cells.folded
    monkeypatch.setattr(cells, "folded", lambda conv, norm: (right(conv, norm)[0] * 1.01, right(conv, norm)[1]))
    checks = layer_by_layer(*live(), [soft_pictures], timesteps=1)
    assert not any(check.equal for check in checks.values())


def test_what_is_no_number_differs():
    assert largest(0.0, torch.tensor([1.0, float("nan")])) == float("inf")
    assert largest(2.0, torch.tensor([-3.0])) == 3.0 and largest(2.0, torch.tensor([])) == 2.0


@pytest.mark.parametrize("form", ["step", "unrolled"])
@pytest.mark.parametrize(("name", "options"), KINDS, ids=lambda v: str(v))
def test_a_file_as_written_equals_torch(live, soft_pictures: Tensor, tmp_path: Path, name: str, options: dict, form: str):
    detector, info = live(name, **options)
    reading = Reading(nms_iou=0.4, max_detections=50)
    path = export_onnx(detector, info, tmp_path / "d.onnx", form=form, reading=reading)
    check = check_file(path, detector, info, [soft_pictures], reading=reading)
    assert check.layers_equal and check.boxes_equal, check
    assert check.pictures == 3 and len(check.layers) == len(layer_by_layer(detector, info, [soft_pictures], timesteps=1))
    assert check.decoded[1] > 50 and check.found[0] > 0.9 * check.found[1]


@pytest.mark.parametrize("form", ["step", "unrolled"])
def test_a_wrong_file_is_seen(live, soft_pictures: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str):
    from spyolo.export import boxes
    from spyolo.export import detector as drawing

    def check(**written: object) -> tuple[bool, bool]:
        seen = check_file(export_onnx(*live(), tmp_path / "d.onnx", form=form, **written), *live(), [soft_pictures])
        return seen.layers_equal, seen.boxes_equal

    assert check(int8=True) == (False, True)
    assert check(reading=Reading(nms_iou=0.05, one_class_per_box=True)) == (True, False)
    right = boxes.corners, drawing._Drawing.leak
    monkeypatch.setattr(boxes, "corners", lambda writer, centre, sides, *rest: right[0](writer, centre, centre, *rest))
    assert check() == (True, False)
    monkeypatch.setattr(boxes, "corners", right[0])
    monkeypatch.setattr(drawing._Drawing, "leak", lambda self, i, head: None)  # a running mean in place of the leak
    assert check() == (False, True)


def test_files_of_other_steps_and_no_pictures_are_refused(exported: dict[str, Path], live, soft_pictures: Tensor):
    with pytest.raises(InputError, match="not 5 steps of them"):
        check_file(exported["unrolled"], *live(), [soft_pictures], timesteps=5)
    for compare in (lambda: check_file(exported["step"], *live(), []), lambda: layer_by_layer(*live(), [])):
        with pytest.raises(InputError, match="no picture to show"):
            compare()


@pytest.mark.parametrize("name", ["spyv4_lite", "yolov4_tiny"])
@pytest.mark.parametrize("one_class, vote_iou", [(False, 0.0), (True, 0.0), (False, 0.4), (True, 0.6)])
def test_boxes_are_those_of_postprocess(
    live, soft_pictures: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, one_class: bool, vote_iou: float
):
    monkeypatch.setattr(Reading, "enter", 70)
    detector, info = live(name)
    reading = Reading(confidence=0.1, nms_iou=0.4, max_detections=30, one_class_per_box=one_class, vote_iou=vote_iou)
    session = open_session(export_onnx(detector, info, tmp_path / "d.onnx", reading=reading))
    out = run_session(session, {"images": soft_pictures.numpy()})
    *_, (predictions, _) = detector.run(soft_pictures, info.timesteps if detector.spiking else 1)
    wanted = postprocess(predictions, detector.anchors, detector.strides, reading)
    assert sum(map(len, wanted)) > 10
    for row, found in enumerate(wanted):
        mine = out["pictures"] == row
        torch.testing.assert_close(out["boxes"][mine], found.boxes, atol=1e-3, rtol=0)
        torch.testing.assert_close(out["scores"][mine], found.scores, atol=1e-5, rtol=0)
        assert out["labels"][mine].tolist() == found.labels.tolist()


def test_how_the_weights_are_read_goes_into_the_file_and_a_picture_without_boxes_through_it(live, tmp_path: Path):
    detector, info = live()
    path = export_onnx(detector, replace(info, vote_iou=0.5, nms_iou=0.4), tmp_path / "d.onnx")
    told = {p.key: p.value for p in onnx.load(path).metadata_props}
    reading = json.loads(told["reading"])
    assert (reading["vote_iou"], reading["nms_iou"]) == (0.5, 0.4)
    out = run_session(open_session(path), {"images": np.zeros((1, 3, 64, 64), np.uint8), "confidence": np.array([1.0], np.float32)})
    assert out["boxes"].shape == (0, 4)


def test_floor_and_overlap_are_inputs(exported: dict[str, Path], soft_pictures: Tensor):
    session = open_session(exported["unrolled"])

    def count(**given: float) -> int:
        options = {name: np.array([value], np.float32) for name, value in given.items()}
        return len(run_session(session, {"images": soft_pictures.numpy()} | options)["scores"])

    assert count(confidence=0.05, nms_iou=0.5) == count() > count(confidence=0.6) > 0
    assert count(confidence=0.6, nms_iou=0.1) < count(confidence=0.6)


def test_step_by_step_equals_unrolled_and_zeros_are_rest(exported: dict[str, Path], soft_pictures: Tensor):
    step, unrolled = open_session(exported["step"]), open_session(exported["unrolled"])
    state = {i.name: np.zeros([3 if n == "batch" else n for n in i.shape], np.float32) for i in step.get_inputs() if "state/" in i.name}
    for _ in range(3):
        out = run_session(step, {"images": soft_pictures.numpy()} | state)
        state = {name.replace("next/", "state/"): value.numpy() for name, value in out.items() if "next/" in name}
    whole = run_session(unrolled, {"images": soft_pictures.numpy()})
    torch.testing.assert_close(out["boxes"], whole["boxes"], atol=1e-3, rtol=0)
    assert state["state/seen"].tolist() == [3.0]


def test_end_to_end_the_spikes_are_equal(live, soft_pictures: Tensor, tmp_path: Path):
    detector, info = live()
    session = open_session(export_onnx(detector, info, tmp_path / "p.onnx", probes=True))
    same, total = equal_spikes(detector, [soft_pictures], session, 3)
    firing = [cell.s.mean() for _, state in detector.run(soft_pictures, 1) for cell in state.cells.values()]
    assert same / total > 0.999
    assert torch.stack(firing).mean() > 0.05  # they do fire


def test_int8_weights_are_a_quarter_and_half_a_scale_off(live, tmp_path: Path):
    weight = np.random.default_rng(0).normal(size=(8, 4, 3, 3)).astype(np.float32)
    weight[3] = 0
    values, scale = quantise(weight)
    assert values.dtype == np.int8
    off = np.abs(values * scale[:, None, None, None] - weight).max(axis=(1, 2, 3))
    assert (off <= scale / 2 + 1e-6).all() and off.max() > 0
    whole, small = (export_onnx(*live(width=0.5), tmp_path / f"{i}.onnx", int8=bool(i)) for i in (0, 1))
    assert small.stat().st_size < 0.3 * whole.stat().st_size
    kinds = [t.data_type == onnx.TensorProto.INT8 for t in onnx.load(small).graph.initializer if t.name.endswith("conv.weight.int8")]
    assert len(kinds) == 19 + 19 + 2 and all(kinds)  # synapses, gates, heads
    detector, info = live(width=0.5)
    session = open_session(export_onnx(detector, info, tmp_path / "p.onnx", int8=True, probes=True))
    pictures = list(random_pictures(2, 3, 64))
    before, total = equal_spikes(detector, pictures, session, 3)
    for conv in (m for m in detector.modules() if isinstance(m, torch.nn.Conv2d)):
        values, scale = quantise(conv.weight.detach().numpy())
        conv.weight.data = torch.from_numpy(values * scale[:, None, None, None])
    after, _ = equal_spikes(detector, pictures, session, 3)
    assert before < 0.999 * total < after  # torch with the rounded weights is what the file is


def test_equal_boxes_pair_one_to_one():
    from spyolo.boxes import Detections

    def boxes(*rows: tuple[float, ...]) -> Detections:
        return Detections(torch.tensor(rows)[:, :4], torch.ones(len(rows)), torch.tensor([int(r[4]) for r in rows]))

    one = boxes((0, 0, 100, 100, 0), (0, 0, 100, 100, 0), (0, 0, 50, 50, 1))
    other = boxes((0, 0, 100, 99, 0), (0, 0, 50, 50, 2))
    assert equal_boxes(one, one) == 3
    assert equal_boxes(one, other) == 1
    assert same_boxes(one, one) == 3
    assert same_boxes(one, other) == 0
    assert same_boxes(one, Detections.empty()) == 0
    assert equal_boxes(one, Detections.empty()) == 0


def test_untrained_is_refused(tmp_path: Path, live):
    _, info = live()
    with pytest.raises(InputError, match="never trained"):
        export_onnx(build_detector("spyv4_lite", 3, width=0.1), info, tmp_path / "d.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 100}, "size: a multiple of 32"),
        ({"size": 0}, "size: a multiple of 32 up to 4096"),
        ({"size": 100000000032}, "size: a multiple of 32 up to 4096"),
        ({"timesteps": -1}, "timesteps: a whole number from 1 to 1024"),
        ({"timesteps": 0}, "timesteps: a whole number from 1 to 1024"),
        ({"form": "loop"}, "step, unrolled"),
    ],
)
def test_bad_options_are_told(live, tmp_path: Path, given: dict, message: str):
    with pytest.raises(InputError, match=message):
        export_onnx(*live(), tmp_path / "d.onnx", **given)


@pytest.mark.parametrize(
    ("name", "value"),
    [("confidence", 2.0), ("nms_iou", -1.0), ("vote_iou", float("nan")), ("max_detections", 0)],
)
def test_a_reading_that_makes_no_sense_is_refused(name: str, value: float):
    with pytest.raises(InputError, match=f"{name}: a .*number from"):
        Reading(**{name: value})


def test_what_cannot_be_drawn_is_named(live, tmp_path: Path):
    detector, info = live()
    detector.backbone.conv2.synapse.norm = torch.nn.GroupNorm(2, 16)
    with pytest.raises(InputError, match="GroupNorm"):
        export_onnx(detector, info, tmp_path / "d.onnx")
    detector.backbone.conv2.synapse.norm = build_norm("batch", 16)
    detector.backbone.conv2.recurrent = torch.nn.Identity()
    with pytest.raises(InputError, match=r"recurrent cells such as backbone\.conv2"):
        export_onnx(detector, info, tmp_path / "d.onnx")


def test_without_onnx_it_says_what_to_install(live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match="export needs the package onnx: pip install onnx"):
        export_onnx(*live(), tmp_path / "d.onnx")


def test_command_line_exports_verifies_and_its_runner_runs(weights_file: Path, sample_root: Path, tmp_path: Path, capsys):
    given = ["--weights", str(weights_file), "--out", str(tmp_path), "--int8", "--verify", "--data", str(sample_root), "--pictures", "2"]
    assert run_command("export", given) == 0
    told = capsys.readouterr().out
    assert told.count("heads.1") == 2 and "onnxruntime equals torch but for its 8-bit weights" in told
    assert told.count("step.onnx, boxes over 0.001: ") == told.count("unrolled.onnx, boxes over 0.001: ") == 2
    picture = next((sample_root / "VOCdevkit/VOC2007/JPEGImages").glob("*.jpg"))
    done = subprocess.run([sys.executable, "runner.py", "unrolled.onnx", str(picture)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and '"found": [{' in done.stdout, done.stderr


def test_verify_counts_the_pictures_that_it_showed_and_fails_on_a_wrong_file(
    weights_file: Path, sample_root: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    from spyolo.export import boxes

    split = len((sample_root / "VOCdevkit/VOC2007/ImageSets/Main/val.txt").read_text().split())
    given = ["--weights", str(weights_file), "--out", str(tmp_path), "--form", "unrolled", "--verify"]
    assert run_command("export", [*given, "--data", str(sample_root), "--pictures", str(split + 1)]) == 0
    told = capsys.readouterr().out
    assert f"\n{split + 1} random pictures" in told and f"\n{split} pictures of 2007:val" in told
    right = boxes.decode
    monkeypatch.setattr("spyolo.export.detector.decode", lambda logits, *rest: right([logits[0], logits[1] + logits[1]], *rest))
    assert run_command("export", given) == 1
    assert "onnxruntime DIFFERS from torch" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["runner.py", "step.onnx"])
def test_a_folder_in_the_place_of_a_file_is_told(weights_file: Path, tmp_path: Path, capsys, name: str):
    (tmp_path / name).mkdir()
    assert run_command("export", ["--weights", str(weights_file), "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert f"{name} cannot be written" in told and len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--weights", "no_such_name"], "no published weights of that name"),
        (["--weights", "W", "--form", "loop"], "choose of step, unrolled"),
        (["--weights", "W", "--timesteps", "0"], "--timesteps: a whole number from 1 to 1024"),
        (["--weights", "W", "--size", "100000000032"], "--size: a multiple of 32 up to 4096"),
        (["--weights", "W", "--max-detections", str(10**30)], "--max-detections: a whole number from 1 to"),
        (["--weights", "W", "--format", "nir", "--verify", "--int8"], "--int8, --verify: for --format onnx"),
        (["--weights", "W", "--format", "nir", "--form", "step", "--timesteps", "2", "--data", "."], "--form, --timesteps, --data: for"),
        (["--weights", "W", "--data", ".", "--pictures", "2"], "--data, --pictures: of --verify"),
        (["--weights", "W", "--verify", "--split", "2007:train"], "--split: of --data"),
        (["--weights", "W", "--nms-iou", "2"], "between 0 and 1"),
        (["--weights", "W", "--format", "nir"], "NIR has no"),
    ],
)
def test_command_line_answers_bad_input_with_a_line(weights_file: Path, tmp_path: Path, capsys, given: list[str], message: str):
    given = [str(weights_file) if word == "W" else word for word in given]
    assert run_command("export", [*given, "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) == 1


def test_event_weights_are_not_verified_on_photographs(tmp_path: Path, capsys):
    detector = build_detector("spyv4_lite", 1, width=0.1, in_channels=2)
    save_weights(tmp_path / "events.safetensors", detector, WeightsInfo(detector.spec, ("a",), size=64, timesteps=3))
    given = ["--weights", str(tmp_path / "events.safetensors"), "--out", str(tmp_path / "out"), "--verify", "--data", str(tmp_path)]
    assert run_command("export", given) == 2
    assert "random input" in capsys.readouterr().err and not (tmp_path / "out").exists()
