"""Pickled weights become safetensors by an explicit command, and nothing in them is run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spyolo.checkpoint import load_detector
from spyolo.cli import run
from spyolo.detection import SpikingYOLO, build_detector
from spyolo.detection.backbone import scaled
from spyolo.errors import InputError
from spyolo.legacy import _ORDER, REFERENCE_CELLS, REFERENCE_HEADS, REFERENCE_PARTS, read_pth, width_of
from spyolo.neurons import norms

CLASSES = "cat,dog"


def detector(name: str = "spyv4", **options: object) -> SpikingYOLO:
    torch.manual_seed(0)
    made = build_detector(name, 2, **{"width": 0.5} | options)
    for m in norms(made):
        m.running_mean.normal_()
        m.running_var.uniform_(0.5, 2)
    return made.eval()


def as_reference(ours: SpikingYOLO) -> dict[str, Tensor]:
    """Our tensors under the names that the reference's state dict has, aliases and dead numbers included."""
    cells = {our: theirs for theirs, our in REFERENCE_CELLS.items()}
    parts = {our: theirs for theirs, our in REFERENCE_PARTS.items()}
    heads = {our: theirs for theirs, our in REFERENCE_HEADS.items()}
    state: dict[str, Tensor] = {}
    for name, tensor in ours.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        if owner in heads:
            state[f"network.{heads[owner]}.{leaf}"] = tensor
            continue
        cell = next(c for c in cells if owner.startswith(c + "."))
        theirs = f"{parts[owner.removeprefix(cell + '.')]}.{leaf}"
        state[f"network.{cells[cell]}.{theirs}"] = tensor
        state[f"network.network.{_ORDER.index(cells[cell])}.{theirs}"] = tensor
    return state | {"network.yolo_tau1": torch.ones(1), "network.yolo_tau2": torch.ones(1)}


def convert(path: Path, out: Path, *options: str) -> int:
    return run("convert_weights", ["--from", str(path), "--out", str(out), "--classes", CLASSES, *options])


def refused(capsys, path: Path, *options: str) -> str:
    assert convert(path, path.with_suffix(".safetensors"), *options) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: ") and error.count("\n") == 1
    assert not path.with_suffix(".safetensors").exists()
    return error


def test_the_reference_s_names_become_ours_bit_for_bit(tmp_path, capsys):
    ours = detector(start="uniform")
    theirs = as_reference(ours)
    assert len(theirs) == 514 and sum(name.startswith("network.network.") for name in theirs) == 254  # as the released file has
    torch.save(theirs, tmp_path / "w.pth")
    assert convert(tmp_path / "w.pth", tmp_path / "w.safetensors") == 0
    assert "514 names" in capsys.readouterr().out
    loaded, info = load_detector(tmp_path / "w.safetensors")
    assert (info.spec.name, info.spec.width, info.classes) == ("spyv4", 0.5, ("cat", "dog"))
    assert info.spec.masks == ((1, 2, 3), (3, 4, 5)) and info.spec.units.start == "uniform" and info.spec.readout == "last"
    assert all(torch.equal(v, ours.state_dict()[k]) for k, v in loaded.state_dict().items())
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(ours(picture)[0], loaded(picture)[0]):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["spyv4_lite", "yolov4_tiny"])
def test_our_own_state_dicts_too_however_they_are_wrapped(tmp_path, name):
    ours = detector(name)
    wrapped = {"state_dict": {f"module.{k}": v for k, v in ours.state_dict().items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "w.pth")
    assert convert(tmp_path / "w.pth", tmp_path / "w.safetensors", "--detector", name) == 0
    loaded, _ = load_detector(tmp_path / "w.safetensors")
    assert all(torch.equal(v, ours.state_dict()[k]) for k, v in loaded.state_dict().items())


@pytest.mark.parametrize("width", [0.05, 0.1, 0.25, 1 / 3, 0.375, 0.65])
def test_narrow_detectors_whose_stem_stops_at_16_channels(tmp_path, width):
    ours = detector("spyv4_lite", width=width)
    torch.save(ours.state_dict(), tmp_path / "w.pth")
    assert convert(tmp_path / "w.pth", tmp_path / "w.safetensors") == 0
    loaded, _ = load_detector(tmp_path / "w.safetensors")
    assert all(torch.equal(v, ours.state_dict()[k]) for k, v in loaded.state_dict().items())


def test_every_width_is_found_again_by_its_channels():
    for width in (k / 97 for k in range(1, 800)):
        channels = scaled(32, width), scaled(64, width)
        assert tuple(scaled(c, width_of(*channels)) for c in (32, 64)) == channels, width
    assert [width_of(scaled(32, w), scaled(64, w)) for w in (0.5, 1.0, 1.25, 2.0)] == [0.5, 1.0, 1.25, 2.0]


@pytest.mark.parametrize("options", [("--size", "8192"), ("--size", "100"), ("--timesteps", "5000"), ("--timesteps", "0")])
def test_what_no_command_would_read_is_not_written(tmp_path, capsys, options):
    torch.save(detector("spyv4_lite").state_dict(), tmp_path / "w.pth")
    assert convert(tmp_path / "w.pth", tmp_path / "w.safetensors", *options) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {options[0]}: a ") and f"is wanted, not {options[1]}\n" in error
    assert not (tmp_path / "w.safetensors").exists()


def test_units_that_do_not_spike_take_one_step(tmp_path, capsys):
    for name, steps in (("spyv4_lite", 8), ("yolov4_tiny", 1)):
        torch.save(detector(name).state_dict(), tmp_path / f"{name}.pth")
        assert convert(tmp_path / f"{name}.pth", tmp_path / "w.safetensors", "--detector", name) == 0
        assert load_detector(tmp_path / "w.safetensors")[1].timesteps == steps
    assert convert(tmp_path / "yolov4_tiny.pth", tmp_path / "w.safetensors", "--detector", "yolov4_tiny", "--timesteps", "8") == 2
    assert "--timesteps 8: the units of yolov4_tiny do not spike" in capsys.readouterr().err


class Attack:
    """What a pickle may ask for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrap", [lambda attack: attack, lambda attack: {"a": torch.ones(1), "b": attack}])
def test_nothing_in_a_file_is_run(tmp_path, capsys, wrap):
    bad = tmp_path / "bad.pth"
    torch.save(wrap(Attack(tmp_path / "owned")), bad)
    assert "holds more than tensors, which is not read since it could run code" in refused(capsys, bad)
    bad.write_bytes(pickle.dumps(wrap(Attack(tmp_path / "owned"))))
    refused(capsys, bad)
    assert not (tmp_path / "owned").exists()


def test_a_whole_pickled_model_is_refused(tmp_path, capsys):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    assert "save model.state_dict()" in refused(capsys, tmp_path / "w.pth")


def test_files_that_are_none(tmp_path, capsys):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(3)}, path)
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(content)
        refused(capsys, path)
    for tree in ([torch.ones(1)], {"a": 1}, {}, {"a": torch.ones(1)}, torch.ones(1)):
        torch.save(tree, path)
        refused(capsys, path)
    with pytest.raises(InputError, match="no such file"):
        read_pth(tmp_path / "nowhere.pth")


def without(*names: str):
    return lambda theirs: [theirs.pop(name) for name in names]


def having(name: str, tensor: Tensor):
    return lambda theirs: theirs.update({f"network.{name}": tensor})


def test_a_width_of_nothing_is_one_line(tmp_path, capsys):
    tensors = detector().state_dict()
    for name, shape in (("backbone.conv1.synapse.conv.weight", (0, 3, 3, 3)), ("backbone.conv2.synapse.conv.weight", (0, 0, 3, 3))):
        tensors[name] = torch.ones(shape)
    torch.save(tensors, tmp_path / "w.pth")
    assert "width must be positive" in refused(capsys, tmp_path / "w.pth")


def test_the_detector_of_a_reference_s_file_cannot_be_chosen(tmp_path, capsys):
    torch.save(as_reference(detector()), tmp_path / "w.pth")
    assert convert(tmp_path / "w.pth", tmp_path / "w.safetensors", "--detector", "yolov4_tiny") == 2
    assert "--detector: the reference's weights are of spyv4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("network.conv_up.BN1.bias", "network.network.17.BN1.bias"), "tensor neck.up.unit.gate.norm.bias is missing"),
        (having("conv9.BN.bias", torch.ones(1)), "'conv9.BN.bias' is no tensor of the SPYv4 reference"),
        (having("network.0.BN.bias", torch.ones(16)), r"two names of one tensor (backbone.conv1.synapse.norm.bias) hold different"),
        (having("conv_P5_yolo_1.bias", torch.ones(5)), "tensor heads.1.conv.bias has shape (5,), expected (21,)"),
        (having("conv_P5_yolo_2.bias", torch.full((21,), torch.nan)), "heads.0.conv.bias holds values that are not finite"),
        (having("conv_P5_yolo_2.weight", torch.ones(24, 128, 1, 1)), "weights for 3 classes, --classes names 2"),
    ],
)
def test_reference_weights_that_do_not_fit(tmp_path, capsys, change, message):
    theirs = as_reference(detector())
    change(theirs)
    torch.save(theirs, tmp_path / "w.pth")
    assert message in refused(capsys, tmp_path / "w.pth")
