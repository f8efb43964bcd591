"""Published weights: found by name, checked against their checksum, published with a manifest entry and a card."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import spyolo
from spyolo import published as published_weights
from spyolo.checkpoint import WeightsInfo, load_detector, load_tensors, save_tensors, save_weights
from spyolo.cli import publish
from spyolo.data import SAMPLE_CLASSES
from spyolo.detection import build_detector
from spyolo.errors import InputError
from spyolo.model_card import card
from spyolo.pieces import origin, pieces_of
from spyolo.predictor import Predictor
from spyolo.published import FOLDER_VARIABLE, check, folder, place, read_manifest, resolve, sha256_of, unplaced
from spyolo.trainer import Trainer


def publish_sample(weights: Path, data: Path, to: Path, *more: str) -> int:
    """Publish under the name `tiny`, measured on the sample set."""
    where = ["--data", str(data), "--split", "2007:val", "--to", str(to), "--out", str(to.parent / "out")]
    return publish.main(["--weights", str(weights), "--name", "tiny", *where, "--timesteps", "1..2", "--quiet", *more])


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, weights_file: Path, sample_root: Path) -> Path:
    """A folder with one published file. Do not change it: copy it."""
    to = tmp_path_factory.mktemp("published") / "weights"
    assert publish_sample(weights_file, sample_root, to, "--note", "drawn pictures") == 0
    return to


@pytest.fixture
def mine(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to spoil, in force as the folder of published weights."""
    copy = Path(shutil.copytree(published, tmp_path / "weights"))
    monkeypatch.setenv(FOLDER_VARIABLE, str(copy))
    return copy


def rewrite(manifest: Path, change: Any) -> None:
    tree = json.loads(manifest.read_text())
    change(tree)
    manifest.write_text(json.dumps(tree))


def test_a_published_file_is_loaded_by_its_name(mine: Path, weights_file: Path) -> None:
    detector, info = spyolo.load("tiny")
    original, _ = load_detector(weights_file)
    assert info.classes == read_manifest()["tiny"].classes
    for name, tensor in original.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(detector.state_dict()[name], tensor.bfloat16().float(), rtol=0, atol=0)
    assert Predictor.load("tiny").classes == info.classes
    assert resolve(mine / "tiny.safetensors") == resolve("tiny")


def test_the_entry_holds_what_eval_measured_and_no_path_of_this_machine(mine: Path, sample_root: Path) -> None:
    entry, metrics = read_manifest()["tiny"], json.loads((mine.parent / "weights" / "manifest.json").read_text())["models"][0]["metrics"]
    assert [row["timesteps"] for row in entry.metrics["anytime"]] == [1, 2]
    assert entry.metrics["voc10_ap50"] == metrics["anytime"][-1]["voc10_ap50"] == load_detector("tiny")[1].metrics["voc10_ap50"]
    assert entry.protocol["split"] == "2007:val" and entry.protocol["note"] == "drawn pictures"
    assert entry.energy["total_mj"] > entry.energy["synaptic_mj"] > 0 and 0 < entry.firing_rate < 1
    assert str(sample_root) not in (mine / "manifest.json").read_text() + (mine / "tiny.md").read_text()


def test_how_boxes_are_read_is_published_and_measured(mine: Path, weights_file: Path, sample_root: Path, tmp_path: Path) -> None:
    assert publish_sample(weights_file, sample_root, mine, "--replace", "--vote-iou", "0.5", "--nms-iou", "0.4") == 0
    entry = read_manifest()["tiny"]
    info = load_detector("tiny")[1]
    assert (entry.protocol["vote_iou"], entry.protocol["nms_iou"]) == (info.vote_iou, info.nms_iou) == (0.5, 0.4)
    assert "NMS 0.4, box voting from 0.5, at most" in (mine / "tiny.md").read_text()
    from spyolo.cli import eval as evaluation

    boxes = {}
    for more in ((), ("--vote-iou", "0"), ("--vote-iou", "0.5", "--nms", "0.4"), ("--nms", "0.6")):
        where = ["--out", str(tmp_path / "again"), "--save-predictions", str(tmp_path / "boxes.json")]
        evaluation.main(["--weights", "tiny", "--data", str(sample_root), "--quiet", *where, *more])
        boxes[more[1:]] = (tmp_path / "boxes.json").read_text()
    assert boxes[()] == boxes[("0.5", "--nms", "0.4")] and len(set(boxes.values())) == 3


def test_eval_by_name_repeats_the_published_figures(mine: Path, sample_root: Path, tmp_path: Path) -> None:
    from spyolo.cli import eval as evaluation

    evaluation.main(["--weights", "tiny", "--data", str(sample_root), "--out", str(tmp_path / "again"), "--quiet"])
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    entry = read_manifest()["tiny"]
    for name in ("voc07_ap50", "voc10_ap50", "voc10_ap50_95", "coco_ap"):
        assert again[name] == entry.metrics[name]
    assert again["energy"]["total_mj"] == entry.energy["total_mj"]


def test_the_card_tells_the_figures(mine: Path) -> None:
    told, entry = (mine / "tiny.md").read_text(), read_manifest()["tiny"]
    assert entry.sha256 in told and "drawn pictures" in told and f"{100 * entry.metrics['voc10_ap50']:.2f}" in told


def test_the_card_tells_what_times_were_taken_on_and_which_weights_they_are(mine: Path) -> None:
    entry = read_manifest()["tiny"]
    known = {"processor": "Abacus 9", "threads": 2, "torch": "2.14.0"}
    training = entry.training | {"origin": "scratch", "weights_of": "ema"}
    told = card(replace(entry, protocol=entry.protocol | known, training=training))
    assert "on cpu: Abacus 9, 2 thread(s), PyTorch 2.14.0." in told
    assert "`2007:train`; from scratch; the weights are the run's `ema`." in told.replace("`unknown`", "`2007:train`")


def test_cards_of_before_the_machine_was_recorded_are_still_written() -> None:
    for entry in read_manifest().values():
        protocol = {k: v for k, v in entry.protocol.items() if k not in ("processor", "threads", "torch")}
        told = card(replace(entry, protocol=protocol))
        assert entry.sha256 in told and f"on {protocol['device']}: not recorded which" in told


@pytest.mark.parametrize("name", ["tiny", "PATH"])
def test_a_tampered_file_fails_on_its_checksum(mine: Path, name: str) -> None:
    file = mine / "tiny.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="its checksum is not that of tiny"):
        spyolo.load(file if name == "PATH" else name)


def test_unknown_names_are_answered_with_the_nearest(mine: Path) -> None:
    with pytest.raises(InputError, match=r"tinny: .*did you mean tiny\? published are tiny"):
        spyolo.load("tinny")
    (mine / "tiny.safetensors").unlink()
    with pytest.raises(InputError, match=r"its file .* is missing"):
        spyolo.load("tiny")
    shutil.rmtree(mine)
    with pytest.raises(InputError, match="holds no published weights"):
        spyolo.load("tiny")


def test_files_that_cannot_be_seen_or_read_are_told(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x" * 300, f"{'x' * 300}.safetensors"):
        with pytest.raises(InputError, match=r"cannot be looked for \(File name too long\)"):
            spyolo.load(name)
    monkeypatch.setattr("builtins.open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(InputError, match=r"tiny.safetensors: cannot be read \(Permission denied\)"):
        sha256_of(mine / "tiny.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("models"), "not a manifest"),
        (lambda t: t.update(models=[3]), "model 1: expected fields"),
        (lambda t: t["models"][0].pop("sha256"), "field 'sha256' is missing or malformed"),
        (lambda t: t["models"][0].update(file="../tiny.safetensors"), "file must be a name in the manifest's folder"),
        (lambda t: t["models"][0].update(classes=[1]), "classes must be names"),
        (lambda t: t["models"].append(t["models"][0]), "the name 'tiny' is there twice"),
    ],
)
def test_bad_manifests(mine: Path, change: Any, message: str) -> None:
    rewrite(mine / "manifest.json", change)
    with pytest.raises(InputError, match=message):
        spyolo.load("tiny")


def test_a_worse_file_replaces_nothing(mine: Path, weights_file: Path, sample_root: Path, tmp_path: Path) -> None:
    tensors, metadata = load_tensors(weights_file)
    blind = {k: torch.zeros_like(v) if k.startswith("heads") else v for k, v in tensors.items()}
    save_tensors(tmp_path / "blind.safetensors", blind, metadata)
    before = (mine / "manifest.json").read_bytes(), (mine / "tiny.safetensors").read_bytes()
    with pytest.raises(InputError, match="no better than the published"):
        publish_sample(tmp_path / "blind.safetensors", sample_root, mine)
    assert ((mine / "manifest.json").read_bytes(), (mine / "tiny.safetensors").read_bytes()) == before
    assert publish_sample(tmp_path / "blind.safetensors", sample_root, mine, "--replace") == 0
    assert read_manifest()["tiny"].metrics["voc10_ap50"] == 0


def test_figures_of_another_split_replace_nothing(mine: Path, weights_file: Path, sample_root: Path) -> None:
    before = {path.name: path.read_bytes() for path in mine.iterdir()}
    with pytest.raises(InputError, match=r"tiny: the published AP50 is of 2007:val, .* one of 2007:train cannot be compared"):
        publish_sample(weights_file, sample_root, mine, "--split", "2007:train")
    args = publish.parser().parse_args(["--weights", "w", "--name", "tiny", "--data", "d", "--split", "2007:train"])
    with pytest.raises(InputError, match="--split 2007:val, or --replace"):
        publish.refuse_worse(args, {"voc10_ap50": 1.0}, read_manifest(), 8)
    args.replace = True
    publish.refuse_worse(args, {"voc10_ap50": 0.0}, read_manifest(), 8)
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == before


def test_a_published_file_is_not_replaced_by_a_better_figure_of_fewer_pictures(mine: Path, weights_file: Path, sample_root: Path) -> None:
    of_more = {"protocol": read_manifest()["tiny"].protocol | {"pictures": 2508}, "metrics": {"voc10_ap50": -1.0}}
    rewrite(mine / "manifest.json", lambda tree: tree["models"][0].update(of_more))
    with pytest.raises(InputError, match=r"tiny: the published AP50 is of 2508 pictures of 2007:val, which one of \d+ cannot be compared"):
        publish_sample(weights_file, sample_root, mine)


def test_a_plain_network_is_published_without_what_concerns_spikes(tmp_path: Path, sample_root: Path) -> None:
    detector = build_detector("yolov4_tiny", len(SAMPLE_CLASSES), width=0.05)
    notes = {"pieces": [{"from": "scratch", "detector": "yolov4_tiny", "rule": "bptt", "form": "feddyn"}]}
    save_weights(tmp_path / "plain.safetensors", detector, WeightsInfo(detector.spec, SAMPLE_CLASSES, 64, 3, notes=notes))
    assert publish_sample(tmp_path / "plain.safetensors", sample_root, tmp_path / "to", "--replace") == 0
    (entry,) = read_manifest(tmp_path / "to").values()
    assert entry.firing_rate is None and entry.config["timesteps"] == 1 and entry.energy["total_mj"] > 0
    told = card(entry)
    assert "A plain network: no spikes, every operand is a real number." in told and "of a plain network of this shape" not in told
    assert "| - | bptt |" not in told and "| scratch | yolov4_tiny | bptt | - |" in told and "| 0.000 |" not in told


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([{"from": "scratch", "detector": "yolov4_tiny", "rule": "bptt"},
          {"from": "yolov4_tiny", "detector": "spyv4_lite", "rule": "fptt"}],
         "w.safetensors is spyv4_lite, initialised from yolov4_tiny, fptt: give it another --name"),
        ([{"from": "scratch", "detector": "spyv4_lite", "rule": "bptt"}], "w.safetensors is spyv4_lite, scratch, bptt: give it another"),
    ],
)  # fmt: skip
def test_weights_of_another_origin_or_rule_have_a_name_of_their_own(
    mine: Path, weights_file: Path, sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: Any, message: str
) -> None:
    ours = [{"from": "scratch", "detector": "spyv4_lite", "rule": "fptt"}]
    rewrite(mine / "manifest.json", lambda t: t["models"][0]["training"].update(pieces=ours))
    tensors, metadata = load_tensors(weights_file)
    for log, told in ((pieces, message), (ours, "measured")):
        save_tensors(tmp_path / "w.safetensors", tensors, metadata | {"notes": json.dumps({"pieces": log})})
        monkeypatch.setattr(publish, "measured", lambda *_: (_ for _ in ()).throw(InputError("measured")))
        with pytest.raises(InputError, match=told):
            publish_sample(tmp_path / "w.safetensors", sample_root, mine)


def test_another_reading_does_not_pass_for_better_weights(
    mine: Path, weights_file: Path, sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = [{"from": "scratch", "detector": "spyv4_lite", "rule": "fptt", "epochs": 1}]
    rewrite(mine / "manifest.json", lambda t: t["models"][0]["training"].update(pieces=ours))
    monkeypatch.setattr(publish, "measured", lambda *_: (_ for _ in ()).throw(InputError("measured")))
    tensors, metadata = load_tensors(weights_file)
    more = [*ours, ours[0] | {"from": "spyv4_lite"}]
    message = r"is read with nms_iou 0.4, not 0.5, and a better reading would pass for better weights: .*\(--weights tiny\)"
    for log, options, told in ((more, ["--nms-iou", "0.4"], message), (more, [], "^measured"), (ours, ["--nms-iou", "0.4"], "^measured")):
        save_tensors(tmp_path / "w.safetensors", tensors, metadata | {"notes": json.dumps({"pieces": log})})
        with pytest.raises(InputError, match=told):
            publish_sample(tmp_path / "w.safetensors", sample_root, mine, *options)


@pytest.mark.parametrize("log", [None, [], [{}], [{"rule": "fptt"}]])
def test_a_manifest_without_a_whole_log_is_of_another_kind(
    mine: Path, weights_file: Path, sample_root: Path, tmp_path: Path, log: Any
) -> None:
    rewrite(mine / "manifest.json", lambda t: t["models"][0]["training"].update(pieces=log))
    tensors, metadata = load_tensors(weights_file)
    ours = [{"from": "scratch", "detector": "spyv4_lite", "rule": "fptt"}]
    save_tensors(tmp_path / "w.safetensors", tensors, metadata | {"notes": json.dumps({"pieces": ours})})
    with pytest.raises(InputError, match=r"tiny is spyv4_lite, unknown, unknown, .* is spyv4_lite, scratch, fptt: give it"):
        publish_sample(tmp_path / "w.safetensors", sample_root, mine)


def test_a_note_stays_with_the_data_that_it_is_of(mine: Path) -> None:
    def note(*more: str, pictures: int = 0, split: str = "2007:val") -> str:
        args, before = publish.parser().parse_args(["--weights", "w", "--name", "tiny", "--data", "d", *more]), read_manifest()["tiny"]
        return publish.note_of(args, before, {"split": split, "pictures": pictures or before.protocol["pictures"]})

    assert (note(), note("--note", "new"), note("--note", "")) == ("drawn pictures", "new", "")
    assert note(pictures=999) == note(split="2007:train") == ""


def test_figures_of_the_steps_in_use_are_whole_though_more_were_measured(mine: Path, weights_file: Path, sample_root: Path) -> None:
    last = read_manifest()["tiny"].metrics
    assert publish_sample(weights_file, sample_root, mine, "--replace", "--steps", "1") == 0
    first, told = read_manifest()["tiny"].metrics, (mine / "tiny.md").read_text()
    assert first.keys() == last.keys() and first["per_class"].keys() == last["per_class"].keys() and first["per_class"] != last["per_class"]
    assert "VOC10+ AP50 by class: " in told and "At T = 1: COCO AP50 " in told


def test_a_training_checkpoint_is_refused_before_anything_is_measured(
    mine: Path, weights_file: Path, sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors, metadata = load_tensors(weights_file)
    both = {f"{kind}.{name}": tensor.clone() for kind in ("model", "ema") for name, tensor in tensors.items()}
    save_tensors(tmp_path / "last.safetensors", both, metadata)
    monkeypatch.setattr(publish, "measured", lambda *_: pytest.fail("measured"))
    message = r"last.safetensors is a training checkpoint; publish the run's final.safetensors or best.safetensors$"
    with pytest.raises(InputError, match=message):
        publish_sample(tmp_path / "last.safetensors", sample_root, mine, "--replace")


def contents(where: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in where.iterdir()}


def place_another(mine: Path, tmp_path: Path) -> None:
    """Put a file that differs in place of the published one, as `publish` does when all is measured."""
    tensors, metadata = load_tensors(mine / "tiny.safetensors")
    save_tensors(tmp_path / "tiny.safetensors", tensors, metadata | {"notes": json.dumps({"of": "another run"})})
    entry = replace(read_manifest(mine)["tiny"], sha256=sha256_of(tmp_path / "tiny.safetensors"))
    place(tmp_path / "tiny.safetensors", entry, mine, read_manifest(mine)["tiny"])


def test_a_manifest_that_cannot_be_written_costs_nothing(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = contents(mine)
    monkeypatch.setattr("spyolo.published.write_manifest", full)
    with pytest.raises(OSError, match="No space left"):
        place_another(mine, tmp_path)
    assert contents(mine) == before
    assert "of" not in spyolo.load("tiny")[1].notes


@pytest.mark.parametrize("first", [False, True])
def test_publishing_that_was_killed_before_its_last_step_is_told_and_mended(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(published_weights.os, "replace", lambda a, b: killed() if str(a).endswith(".new") else shutil.move(a, b))
        place_another(mine, tmp_path)
    if first:  # there was no file of that name before
        (mine / "tiny.safetensors").unlink()
    new = unplaced(mine / "tiny.safetensors")
    with pytest.raises(InputError, match=rf"publishing it was cut off: rename {new} to tiny.safetensors$") as caught:
        spyolo.load("tiny")
    assert "\n" not in str(caught.value)
    new.rename(mine / "tiny.safetensors")
    assert spyolo.load("tiny")[1].notes == {"of": "another run"}


def test_a_file_in_place_of_another_leaves_nothing_beside_it(mine: Path, tmp_path: Path) -> None:
    before = contents(mine)
    place_another(mine, tmp_path)
    assert contents(mine).keys() == before.keys() and spyolo.load("tiny")[1].notes == {"of": "another run"}


@pytest.mark.parametrize("more", [(), ("--replace",)])
def test_a_split_without_objects_publishes_nothing(mine: Path, weights_file: Path, make_devkit, more: tuple[str, ...]) -> None:
    data, before = make_devkit({"000001": []}, split="val"), {path.name: path.read_bytes() for path in mine.iterdir()}
    with pytest.raises(InputError, match="2007:val has no objects of the file's classes"):
        publish_sample(weights_file, data, mine, *more)
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == before


def test_an_overlap_that_no_file_may_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--nms-iou must be between 0 and 1, got -1"):
        publish_sample(tmp_path / "nowhere", tmp_path, tmp_path, "--nms-iou", "-1")
    with pytest.raises(InputError, match="--vote-iou must be between 0 and 1, got 2"):
        publish_sample(tmp_path / "nowhere", tmp_path, tmp_path, "--vote-iou", "2")


@pytest.mark.parametrize(
    ("option", "value"), [("--steps", "0"), ("--steps", "-1"), ("--steps", "5000"), ("--size", "0"), ("--size", "100"), ("--size", "8192")]
)
def test_steps_and_sizes_that_no_file_may_say_are_refused(tmp_path: Path, option: str, value: str) -> None:
    with pytest.raises(InputError, match=f"{option}: a .* is wanted, not {value}"):
        publish_sample(tmp_path / "nowhere", tmp_path, tmp_path, option, value)


def test_a_warm_start_continues_the_log_of_pieces(tiny_config) -> None:
    twin = tiny_config(detector="yolov4_tiny", epochs=1)
    assert Trainer(twin, quiet=True).fit()
    first = pieces_of(f"{twin.out}/best.safetensors")
    assert [(p["from"], p["detector"], p["epochs"], p["size"]) for p in first] == [("scratch", "yolov4_tiny", 1, 64)]
    assert origin(first) == "scratch"

    lite = tiny_config(epochs=2, init=f"{twin.out}/best.safetensors", max_minutes=1e-9)  # stopped after its first batch
    assert not Trainer(lite, quiet=True).fit()
    assert Trainer(lite.updated({"max_minutes": 0}), resume=True, quiet=True).fit()
    second = pieces_of(f"{lite.out}/best.safetensors")
    assert second[0] == first[0] and [(p["from"], p["detector"]) for p in second[1:]] == [("yolov4_tiny", "spyv4_lite")]
    assert origin(second) == "initialised from yolov4_tiny"


def test_the_published_files_of_this_repository_are_whole() -> None:
    for name, entry in read_manifest().items():
        check(folder() / entry.file, entry)
        assert (folder() / f"{name}.md").read_text() == card(entry)
        assert load_detector(name)[1].classes == entry.classes
