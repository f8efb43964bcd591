"""Weights of sequence networks are measured again and published: the same figure from the file, by path and by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from official_files import refused, write_mnist

from spyolo.cli import eval_sequence, run
from spyolo.published import FOLDER_VARIABLE, read_manifest
from spyolo.sequence import load
from spyolo.sequence.config import SequenceConfig
from spyolo.sequence.published import card, resolve
from spyolo.sequence.published import shelf as published_shelf
from spyolo.sequence.trainer import SequenceTrainer
from spyolo.tensors import read_tensors

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_mnist(tmp_path / "mnist", train=24, test=10)


@pytest.fixture
def trainer(tmp_path: Path, data: Path) -> SequenceTrainer:
    tiny = {"task": "smnist", "hidden": "4", "batch": 8, "epochs": 2, "parts": 2, "readout": "gated", "reads": "membrane", "device": "cpu"}
    tiny |= {"threshold": 0.02}  # so that they fire
    run = SequenceTrainer(SequenceConfig().updated(tiny | {"data": str(data), "out": str(tmp_path / "run")}), quiet=True)
    assert run.fit()
    return run


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "weights"))
    return tmp_path / "weights" / "sequence"


def measured(tmp_path: Path, weights: Any, *more: str) -> dict[str, Any]:
    path = tmp_path / "measured.json"
    assert eval_sequence.main(["--weights", str(weights), "--device", "cpu", "--json", str(path), *more]) == 0
    told = json.loads(path.read_text())
    return told["metrics"] | told["protocol"]


def publish(weights: Path, *more: str, name: str = "tiny") -> int:
    return run("eval_sequence", ["--weights", str(weights), "--publish", name, "--device", "cpu", *more])


def test_the_last_weights_have_the_figure_of_the_log(tmp_path, trainer, capsys):
    found, row = measured(tmp_path, trainer.folder.last), trainer.history[-1]
    assert found["accuracy"] == row["accuracy"] and found["tests"] == "10 test sequences"
    assert found["test_loss"] == pytest.approx(row["test_loss"]) and found["test_rate"] == pytest.approx(row["test_rate"])
    said = capsys.readouterr().out
    assert "smnist: ltc network of" in said and f"accuracy {row['accuracy']:.4f} over 10 test sequences" in said
    assert measured(tmp_path, trainer.folder.last, "--test-limit", "4")["tests"] == "4 test sequences"


def test_a_run_judged_by_a_validation_part_is_measured_on_the_test(tmp_path, trainer):
    config = trainer.config.updated({"judge": "validation", "out": str(tmp_path / "judged")})
    judged = SequenceTrainer(config, quiet=True)
    assert judged.fit() and (judged.task.samples, judged.task.tests) == (22, 2)
    row = judged.history[-1]
    assert measured(tmp_path, judged.folder.last)["tests"] == "10 test sequences"
    found = measured(tmp_path, judged.folder.last, "--judge", "validation")
    assert found["tests"] == "2 validation sequences" and found["test_loss"] == pytest.approx(row["test_loss"])
    assert "began with judge 'validation', which stays" in refused(SequenceTrainer, config.updated({"judge": "test"}), resume=True)
    assert "began with limit 0, which stays" in refused(SequenceTrainer, config.updated({"limit": 20}), resume=True)
    assert "no --seed or --judge" in refused(eval_sequence.check_whole_test, "tiny", config, config)


def test_what_was_trained_on_is_no_validation(tmp_path, trainer):
    weights = str(trainer.folder.last)
    assert "--judge test; judge it by the test" in refused(eval_sequence.main, ["--weights", weights, "--judge", "validation"])
    start = trainer.config.updated({"judge": "validation", "out": str(tmp_path / "judged"), "epochs": 1})
    assert "has learned from training sequences that" in refused(SequenceTrainer, start.updated({"init": weights}))
    assert SequenceTrainer(start, quiet=True).fit()
    more = start.updated({"init": str(tmp_path / "judged" / "last.safetensors"), "out": str(tmp_path / "more")})
    assert "--judge validation and --limit 0" in refused(SequenceTrainer, more.updated({"limit": 20}))
    assert SequenceTrainer(more, quiet=True).fit()


def test_published_weights_say_by_what_their_runs_were_judged(tmp_path, trainer, shelf):
    config = trainer.config.updated({"judge": "validation", "out": str(tmp_path / "judged")})
    judged = SequenceTrainer(config, quiet=True)
    assert judged.fit() and publish(judged.folder.last) == 0
    entry = read_manifest(shelf)["tiny"]
    assert entry.protocol["tests"] == "10 test sequences" and "| validation |" in card(entry)
    data = ("--data", config.data)
    assert load("tiny")[1].judge == "validation" and measured(tmp_path, "tiny", *data)["tests"] == "10 test sequences"
    assert measured(tmp_path, "tiny", *data, "--judge", "validation")["tests"] == "2 validation sequences"


def test_the_firing_rate_does_not_depend_on_the_batches(tmp_path, trainer):
    rates = [measured(tmp_path, trainer.folder.last, "--eval-batch", size)["test_rate"] for size in ("10", "9", "3")]
    assert rates[0] > 0 and rates == pytest.approx([rates[0]] * 3, rel=1e-5)


def test_neurons_that_do_not_spike_have_no_firing_rate(tmp_path, capsys):
    tiny = {"cell": "lstm", "rule": "bptt", "hidden": "4", "batch": 4, "epochs": 1, "timesteps": 6, "parts": 1, "device": "cpu"}
    trainer = SequenceTrainer(SequenceConfig().updated(tiny | {"out": str(tmp_path / "run")}), quiet=True)
    assert trainer.fit()
    found = measured(tmp_path, trainer.folder.last, "--test-limit", "20")
    assert "test_rate" not in found and found["tests"] == "20 test sequences" and "firing rate" not in capsys.readouterr().out


def test_published_weights_are_measured_loaded_and_trained_on_by_name(tmp_path, trainer, data, shelf):
    assert publish(trainer.folder.last) == 0
    assert measured(tmp_path, "tiny", "--data", str(data))["accuracy"] == trainer.history[-1]["accuracy"]
    network, config = load("tiny")
    assert config == trainer.config.updated({"data": "", "out": "runs/tiny", "device": "auto"})
    assert all(v.equal(trainer.network.state_dict()[k]) for k, v in network.state_dict().items())
    more = trainer.config.updated({"init": "tiny", "out": str(tmp_path / "more")})
    assert SequenceTrainer(more, quiet=True).network.readout.gate.weight.equal(network.readout.gate.weight)


def test_the_entry_and_the_card_tell_what_was_measured_and_how_it_came_about(tmp_path, trainer, shelf):
    more = SequenceTrainer(
        trainer.config.updated({"init": str(trainer.folder.best), "out": str(tmp_path / "more"), "seed": 4, "epochs": 1}), quiet=True
    )
    assert more.fit()
    assert publish(more.folder.last) == 0
    entry, row = read_manifest(shelf)["tiny"], more.history[-1]
    assert entry.metrics["accuracy"] == row["accuracy"] and entry.firing_rate == pytest.approx(row["test_rate"])
    assert entry.protocol["tests"] == "10 test sequences"
    assert entry.config["parameters"] == sum(p.numel() for p in more.network.parameters())
    first, second = entry.training["pieces"]
    kept = trainer.config
    best = next(i for i, r in enumerate(trainer.history, 1) if r["accuracy"] == trainer.best)
    assert (first["from"], first["seed"], first["epochs"], first["accuracy"]) == ("scratch", kept.seed, best, trainer.best)
    assert (second["from"], second["seed"], second["epochs"]) == ("the piece before", 4, 1) and second["updates"] == row["updates"] == 6
    told = (shelf / "tiny.md").read_text()
    assert told == card(entry) and entry.sha256 in told and told.count("the piece before") == 1
    assert f"accuracy {row['accuracy']:.4f}" in told


def test_a_resumed_run_keeps_the_log_of_what_it_started_from(tmp_path, trainer):
    start = trainer.config.updated({"init": str(trainer.folder.best), "out": str(tmp_path / "more"), "epochs": 1})
    assert SequenceTrainer(start, quiet=True).fit()
    longer = SequenceTrainer(start.updated({"epochs": 2}), resume=True, quiet=True)
    assert longer.fit() and len(longer.pieces) == 1
    pieces = json.loads(read_tensors(longer.folder.last)[1]["notes"])["pieces"]
    assert [piece["epochs"] for piece in pieces] == [longer.pieces[0]["epochs"], 2]


def test_nothing_of_this_machine_is_published(tmp_path, trainer, shelf):
    more = SequenceTrainer(trainer.config.updated({"init": str(trainer.folder.best), "out": str(tmp_path / "more")}), quiet=True)
    assert more.fit()
    publish(more.folder.best)
    _, metadata = read_tensors(shelf / "tiny.safetensors")
    said = json.dumps(metadata) + (shelf / "manifest.json").read_text() + (shelf / "tiny.md").read_text()
    assert str(tmp_path) not in said and json.loads(metadata["config"])["network"]["init"] == "unpublished"


def test_weights_of_a_checkpoint_are_w_whatever_was_evaluated(tmp_path, trainer, shelf):
    judged = SequenceTrainer(trainer.config.updated({"weights_of": "average", "out": str(tmp_path / "average")}), quiet=True)
    assert judged.fit()
    for file, wanted in ((judged.folder.last, "w"), (judged.folder.best, "average")):
        assert load(file)[1].weights_of == wanted
        assert publish(file, "--replace") == 0 and read_manifest(shelf)["tiny"].training["weights_of"] == wanted


def test_only_a_better_file_replaces_a_published_one(trainer, shelf, capsys):
    assert publish(trainer.folder.last) == 0
    before = {path.name: path.read_bytes() for path in shelf.iterdir()}
    assert publish(trainer.folder.last) == 2
    figure = f"{trainer.history[-1]['accuracy']:.4f}"
    assert f"tiny: accuracy {figure} is no better than the published {figure}; nothing was replaced" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in shelf.iterdir()} == before
    assert publish(trainer.folder.last, "--replace") == 0


def test_weights_of_another_task_are_not_replaced_though_a_figure_is_better(tmp_path, trainer, shelf, monkeypatch, capsys):
    assert publish(trainer.folder.last) == 0
    tiny = {"task": "adding", "hidden": "4", "batch": 8, "epochs": 1, "parts": 2, "timesteps": 6, "out": str(tmp_path / "adding")}
    other = SequenceTrainer(SequenceConfig().updated(tiny), quiet=True)
    assert other.fit()
    before, inner = (shelf / "manifest.json").read_text(), eval_sequence.measure
    monkeypatch.setattr(eval_sequence, "measure", lambda *_, **__: pytest.fail("measured"))
    assert publish(other.folder.last) == 2 and (shelf / "manifest.json").read_text() == before
    assert "tiny is published weights of smnist, these are of adding; give another name" in capsys.readouterr().err
    monkeypatch.setattr(eval_sequence, "measure", inner)
    assert publish(other.folder.last, "--replace") == 0 and read_manifest(shelf)["tiny"].config["task"] == "adding"
    assert "--weights tiny\n" in (shelf / "tiny.md").read_text()


def test_what_another_process_published_meanwhile_is_not_replaced(trainer, shelf, monkeypatch, capsys):
    """It was judged by what was there before."""
    inner = eval_sequence.put

    def put(args, *rest):
        known = read_manifest(shelf).get("tiny")
        monkeypatch.setattr(eval_sequence, "put", inner)
        assert publish(trainer.folder.last) == 0
        monkeypatch.setattr(eval_sequence, "rival_of", lambda *_: known)
        return inner(args, *rest)

    monkeypatch.setattr(eval_sequence, "put", put)
    assert publish(trainer.folder.last) == 2
    assert "tiny was published by another process meanwhile; nothing was replaced: start again" in capsys.readouterr().err


def test_the_rule_that_trained_weights_does_not_matter_when_they_are_measured(tmp_path, capsys):
    tiny = {"rule": "eprop", "cell": "alif", "hidden": "4", "batch": 8, "epochs": 1, "parts": 1, "timesteps": 6}
    for dtype in ("float32", "float64"):
        trained = SequenceTrainer(SequenceConfig().updated(tiny | {"dtype": dtype, "out": str(tmp_path / dtype)}), quiet=True)
        assert trained.fit()
    assert measured(tmp_path, tmp_path / "float32" / "last.safetensors", "--amp", "bf16")["amp"] == "bf16"
    assert run("eval_sequence", ["--weights", str(tmp_path / "float64" / "last.safetensors"), "--amp", "bf16"]) == 2
    assert "--amp bf16 goes with float32, these weights are float64" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--publish", "a/b"], "a name is of letters, digits, _ and -"),
        (["--publish", "xavier"], "and not torch or xavier; got 'xavier'"),
        (["--publish", "a", "--test-limit", "4"], "--publish measures the whole test"),
        (["--publish", "a", "--seed", "4"], "--publish measures the whole test"),
        (["--to", "x"], "--to goes with --publish"),
        (["--replace"], "--replace goes with --publish"),
    ],
)
def test_what_cannot_be_published_is_told_before_anything_is_measured(trainer, shelf, monkeypatch, capsys, more, message):
    monkeypatch.setattr(eval_sequence, "measure", lambda *_, **__: pytest.fail("measured"))
    assert run("eval_sequence", ["--weights", str(trainer.folder.last), *more]) == 2
    assert message in capsys.readouterr().err and not shelf.exists()


def test_a_published_file_that_was_changed_is_refused(trainer, shelf, capsys):
    publish(trainer.folder.last)
    path = shelf / "tiny.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for name in ("tiny", str(path)):
        assert run("eval_sequence", ["--weights", name]) == 2
        assert f"{path}: its checksum is not that of tiny in manifest.json" in capsys.readouterr().err
    path.write_bytes(whole)
    assert resolve("tiny") == resolve(path) == path


def test_what_is_no_published_name_is_told(trainer, shelf):
    assert f"nobody: no such weights file, and no published weights of that name; {shelf} holds no" in refused(load, "nobody")
    publish(trainer.folder.last, name="b")
    publish(trainer.folder.last, name="a")
    assert list(read_manifest(published_shelf())) == ["a", "b"]
    assert "published are a, b" in refused(load, "nobody")
    assert "runs/x.safetensors: no such weights file" in refused(load, "runs/x.safetensors")


def test_data_of_another_kind_are_refused(tmp_path, capsys):
    texts = []
    for name, letters in (("a", "to be or not "), ("b", "to be or not to see "), ("c", "ta be ar nat ")):
        texts.append(tmp_path / f"{name}.txt")
        texts[-1].write_text(letters * 60)
    tiny = {"task": "char", "data": str(texts[0]), "hidden": "4", "batch": 2, "epochs": 1, "timesteps": 10, "device": "cpu"}
    trainer = SequenceTrainer(SequenceConfig().updated(tiny | {"out": str(tmp_path / "run")}), quiet=True)
    assert trainer.fit()
    assert measured(tmp_path, trainer.folder.last)["bits"] == trainer.history[-1]["bits"]
    said = ("does not fit these data: its inputs are (7,), theirs (8,)", "of other characters or words")
    for text, message in zip(texts[1:], said, strict=True):
        assert run("eval_sequence", ["--weights", str(trainer.folder.last), "--data", str(text)]) == 2
        assert message in capsys.readouterr().err
        longer = trainer.config.updated({"data": str(text), "epochs": 2})
        assert message in refused(SequenceTrainer, longer, resume=True)
    anew = trainer.config.updated({"data": str(texts[2]), "init": str(trainer.folder.last), "out": str(tmp_path / "more")})
    assert "of other characters or words" in refused(SequenceTrainer, anew)
