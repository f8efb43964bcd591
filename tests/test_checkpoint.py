"""Weights files: round trips, and a clear word about every file that is not one."""

from __future__ import annotations

import errno
import json
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from spyolo.checkpoint import (
    WeightsInfo,
    info_to_metadata,
    initialise,
    load_detector,
    load_tensors,
    other_classes,
    save_tensors,
    save_weights,
)
from spyolo.detection import SpikingYOLO, build_detector
from spyolo.errors import InputError
from spyolo.neurons import norms

CLASSES = ("bird", "cat", "dog")


def tiny(name: str = "spyv4_lite", classes: int = 3, seed: int = 0, **options: object) -> SpikingYOLO:
    """A narrow detector whose every tensor has values of its own, norm statistics too."""
    torch.manual_seed(seed)
    detector = build_detector(name, classes, width=options.pop("width", 0.05), **options)
    for m in norms(detector):
        m.running_mean.normal_()
        m.running_var.uniform_(0.5, 2)
    return detector


def info_of(detector: SpikingYOLO, **changes: object) -> WeightsInfo:
    return WeightsInfo(**{"spec": detector.spec, "classes": CLASSES, "size": 64, "timesteps": 2, **changes})


@pytest.fixture
def saved(tmp_path):
    detector = tiny()
    save_weights(tmp_path / "w.safetensors", detector, info_of(detector))
    return tmp_path / "w.safetensors"


def resave(path, tensors: dict[str, Tensor] | None = None, **changes: str | None) -> None:
    """Write the file again with some of its metadata changed (None: left out)."""
    before, metadata = load_tensors(path)
    save_file(before if tensors is None else tensors, path, {k: v for k, v in (metadata | changes).items() if v is not None})


# --- round trips ---


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("spyv4_lite", {}), ("spyv4", {"norm": "renorm", "detach_reset": True}), ("yolov4_tiny", {"depth": 2}),
        ("spyv4_lite", {"anchors": tuple((float(10 * k), float(7 * k)) for k in range(1, 7)), "readout": "mean", "gate": "static"}),
    ],
)  # fmt: skip
def test_a_detector_comes_back_as_it_was(tmp_path, name, options):
    detector = tiny(name, **options)
    info = info_of(detector, metrics={"voc10_ap50": 0.5}, notes={"epoch": 3}, vote_iou=0.5, nms_iou=0.45)
    save_weights(tmp_path / "w.safetensors", detector, info)
    loaded, told = load_detector(tmp_path / "w.safetensors")
    assert told == info and loaded.spec == detector.spec and not loaded.training
    state, again = detector.state_dict(), loaded.state_dict()
    assert list(state) == list(again) and all(torch.equal(state[k], again[k]) for k in state)
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(detector.eval()(picture)[0], loaded(picture)[0]):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    "changes",
    [{"size": 4128}, {"size": 100}, {"size": 0}, {"timesteps": 1025}, {"timesteps": 0}, {"vote_iou": 2.0}, {"nms_iou": 1.5}],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path, changes):
    detector, (name, value) = tiny(), *changes.items()
    with pytest.raises(InputError, match=rf"w\.safetensors: {name}: a .* is wanted, not {value}"):
        save_weights(tmp_path / "w.safetensors", detector, info_of(detector, **changes))
    assert not list(tmp_path.iterdir())
    save_weights(tmp_path / "w.safetensors", detector, info_of(detector, size=4096, timesteps=1024))
    load_detector(tmp_path / "w.safetensors")


def test_bf16_halves_the_file_and_loads_as_fp32(tmp_path):
    detector = tiny()
    for name, dtype in (("whole", None), ("half", torch.bfloat16)):
        save_weights(tmp_path / name, detector, info_of(detector), dtype)
    sizes = [(tmp_path / name).stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    loaded, _ = load_detector(tmp_path / "half")
    for k, v in detector.state_dict().items():
        assert loaded.state_dict()[k].dtype == v.dtype
        torch.testing.assert_close(loaded.state_dict()[k], v, rtol=2**-8, atol=0)
    assert next(load_detector(tmp_path / "half", dtype=torch.float64)[0].parameters()).dtype == torch.float64


@pytest.fixture
def checkpoint(tmp_path):
    """As the trainer writes it: W, its norm statistics, and averages of the trained tensors."""
    detector = tiny()
    tensors = {f"model.{k}": v for k, v in detector.state_dict().items()}
    for kind, factor in (("average", 2.0), ("ema", 3.0)):
        tensors |= {f"{kind}.{k}": factor * p.detach() for k, p in detector.named_parameters()}
    save_tensors(tmp_path / "last.safetensors", tensors, info_to_metadata(info_of(detector)) | {"position": {"epoch": 1}})
    return detector, tmp_path / "last.safetensors"


@pytest.mark.parametrize(("weights", "factor"), [("w", 1.0), ("average", 2.0), ("ema", 3.0)])
def test_a_training_checkpoint_is_a_weights_file_three_times_over(checkpoint, weights, factor):
    detector, path = checkpoint
    loaded, _ = load_detector(path, weights=weights)
    trained = dict(detector.named_parameters())
    for k, v in loaded.state_dict().items():
        assert torch.equal(v, factor * trained[k] if k in trained else detector.state_dict()[k]), k


def test_weights_that_a_file_does_not_hold_are_not_made_up(saved, checkpoint):
    with pytest.raises(InputError, match="holds one set of weights, not 'ema'"):
        load_detector(saved, weights="ema")
    with pytest.raises(InputError, match="weights must be one of w, average, ema; got 'best'"):
        load_detector(checkpoint[1], weights="best")


# --- files that are none ---


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def no_header(path):
    path.write_bytes(b"PK\x03\x04" + bytes(100))


def foreign(path):
    save_file({"a": torch.ones(1)}, path)


def empty(path):
    path.write_bytes(b"")


def huge_header(path):
    path.write_bytes((2**60).to_bytes(8, "little") + b"{}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "not a whole safetensors file"), (no_header, "not a whole safetensors file"), (empty, "not a whole safetensors file"),
        (huge_header, "not a whole safetensors file"), (foreign, "metadata has no spyolo description"), (os.unlink, "no such weights file"),
    ],
)  # fmt: skip
def test_files_that_are_no_weights(saved, damage, message):
    damage(saved)
    with pytest.raises(InputError, match=message) as caught:
        load_detector(saved)
    assert str(caught.value).startswith(f"{saved}: ") and "\n" not in str(caught.value)


def test_weights_of_a_sequence_network_are_called_that(saved):
    resave(saved, format="spyolo-sequence-1")
    with pytest.raises(InputError, match="the weights of a sequence network, not of a detector"):
        load_detector(saved)


def test_nothing_is_unpickled(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="only safetensors are read"):
        load_detector(tmp_path / "w.pt")


def test_files_that_do_not_say_how_they_are_read_are_read_as_before_there_was_a_choice(saved):
    resave(saved, vote_iou=None, nms_iou=None)
    info = load_detector(saved)[1]
    assert (info.vote_iou, info.nms_iou) == (0, 0.5)


@pytest.mark.parametrize("name", ["vote_iou", "nms_iou"])
@pytest.mark.parametrize("value", ["{", "1.5", "-0.1", "NaN", "true", "null", '"x"', "[]"])
def test_a_malformed_overlap_is_named(saved, name, value):
    resave(saved, **{name: value})
    with pytest.raises(InputError, match=f"field '{name}' of its metadata is malformed"):
        load_detector(saved)


@pytest.mark.parametrize("field", ["spec", "classes", "size", "timesteps", "metrics", "notes"])
@pytest.mark.parametrize("value", [None, "{", "3.5", "null", '"x"', '{"units": {"colour": 1}, "anchors": [], "masks": []}'])
def test_a_field_that_is_missing_or_malformed_is_named(saved, field, value):
    if field in ("metrics", "notes") and value and value.startswith('{"'):
        value = "[1]"  # there any object will do
    resave(saved, **{field: value})
    with pytest.raises(InputError, match=f"field '{field}' of its metadata is {'missing' if value is None else 'malformed'}"):
        load_detector(saved)


def test_a_description_that_cannot_be_built(saved):
    spec = json.loads(load_tensors(saved)[1]["spec"])
    resave(saved, spec=json.dumps(spec | {"readout": "loudest"}))
    with pytest.raises(InputError, match="its description cannot be built: readout must be one of"):
        load_detector(saved)


def test_class_names_and_heads_must_agree(saved):
    resave(saved, classes='["cat", "dog"]')
    with pytest.raises(InputError, match="its metadata names 2 classes, its detector has 3"):
        load_detector(saved)


def test_heads_of_another_class_count(saved):
    """The description says three, the tensors are for four."""
    resave(saved, tensors=dict(tiny(classes=4).state_dict()))
    with pytest.raises(InputError, match=r"tensor heads.0.leak has shape \(27,\), expected \(24,\)"):
        load_detector(saved)


def test_a_missing_tensor_is_named(saved):
    tensors, _ = load_tensors(saved)
    del tensors["heads.1.conv.bias"]
    resave(saved, tensors=tensors)
    with pytest.raises(InputError, match=r"tensor heads.1.conv.bias is missing"):
        load_detector(saved)


def test_a_disk_that_fails_costs_nothing_that_was_there(saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(InputError, match=r"w.safetensors cannot be written \(No space left on device\)"):
        save_weights(saved, tiny(seed=1), info_of(tiny()))
    assert saved.read_bytes() == before and [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_full_disk_in_the_library_s_words(saved, monkeypatch):
    from safetensors import SafetensorError

    before = saved.read_bytes()

    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("spyolo.tensors.save_file", full)
    with pytest.raises(InputError, match="No space left on device"):
        save_weights(saved, tiny(seed=1), info_of(tiny()))
    assert saved.read_bytes() == before


# --- warm starts ---


def test_the_ann_twin_fills_the_convolutions_and_norms_of_a_spiking_detector(tmp_path):
    twin, detector = tiny("yolov4_tiny", seed=1), tiny("spyv4_lite", seed=2)
    save_weights(tmp_path / "twin", twin, info_of(twin))
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    untouched = initialise(detector, tmp_path / "twin")
    after = detector.state_dict()
    for k, v in twin.state_dict().items():
        assert torch.equal(after[k], v), k
    assert {k for k in after if k.endswith(("conv.weight", "running_mean", "norm.weight")) and ".gate." not in k}.isdisjoint(untouched)
    # what the twin has none of: gates, biases of its convolutions, leaks of the readout
    assert untouched and all(".gate." in k or k.endswith(("synapse.conv.bias", ".leak")) for k in untouched)
    assert all(torch.equal(after[k], before[k]) for k in untouched)


def test_heads_of_other_classes_are_told(saved):
    assert other_classes(saved, CLASSES) == ""
    assert other_classes(saved, ("one more", *CLASSES)) == ""  # another number of them: `initialise` refuses it
    assert "its class 1 is 'bird', here it is 'cat' (2 of 3 differ); heads start" in other_classes(saved, ("cat", "bird", "dog"))


def test_a_training_checkpoint_warm_starts_with_its_ema(checkpoint):
    source, path = checkpoint
    detector = tiny(seed=2)
    assert initialise(detector, path) == []
    assert all(torch.equal(p, 3 * q) for p, q in zip(detector.parameters(), source.parameters()))


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        (lambda: tiny(classes=5), r"weights for 3 classes, the detector has 5 \(heads.0.leak differs\)"),
        (lambda: tiny(width=0.5), r"weights of another width \(heads.0.conv.weight has shape"),
    ],
)
def test_a_warm_start_that_does_not_fit_is_told(saved, detector, message):
    with pytest.raises(InputError, match=message):
        initialise(detector(), saved)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_warm_start_from_values_that_are_not_finite_is_refused(saved, value):
    tensors, _ = load_tensors(saved)
    tensors["backbone.conv1.synapse.norm.running_var"][0] = value
    resave(saved, tensors=tensors)
    detector = tiny(seed=1)
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    for load in (load_detector, lambda path: initialise(detector, path)):
        with pytest.raises(InputError, match=r"tensor backbone.conv1.synapse.norm.running_var holds values that are not finite"):
            load(saved)
    assert all(torch.equal(v, before[k]) for k, v in detector.state_dict().items())


def test_a_warm_start_from_something_else(tmp_path):
    foreign(tmp_path / "f")
    with pytest.raises(InputError, match="no tensor fits this detector"):
        initialise(tiny(), tmp_path / "f")
    save_file({"heads.0.conv.weight": torch.ones(7, 2, 1, 1)}, tmp_path / "g")
    with pytest.raises(InputError, match="weights for another number of classes"):
        initialise(tiny(), tmp_path / "g")
