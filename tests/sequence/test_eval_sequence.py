"""Weights of sequence networks are measured again and published: the same figure from the file, by path and by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from official_files import refused, write_mnist

from spyolo.cli import eval_sequence, run
from spyolo.published import FOLDER_VARIABLE
from spyolo.sequence import load
from spyolo.sequence.config import SequenceConfig
from spyolo.sequence.published import SUMS, publish, read_sums, resolve
from spyolo.sequence.trainer import SequenceTrainer
from spyolo.tensors import read_tensors

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_mnist(tmp_path / "mnist", train=24, test=10)


@pytest.fixture
def trainer(tmp_path: Path, data: Path) -> SequenceTrainer:
    tiny = {"task": "smnist", "hidden": "4", "batch": 8, "epochs": 2, "parts": 2, "readout": "gated", "reads": "membrane", "device": "cpu"}
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
    return json.loads(path.read_text())["metrics"]


def test_the_last_weights_have_the_figure_of_the_log(tmp_path, trainer, capsys):
    found, row = measured(tmp_path, trainer.folder.last), trainer.history[-1]
    assert found["accuracy"] == row["accuracy"] and found["sequences"] == 10
    assert found["test_loss"] == pytest.approx(row["test_loss"]) and found["test_rate"] == pytest.approx(row["test_rate"])
    said = capsys.readouterr().out
    assert "smnist: ltc network of" in said and f"accuracy {row['accuracy']:.4f} over 10 test sequences" in said
    assert measured(tmp_path, trainer.folder.last, "--test-limit", "4")["sequences"] == 4


def test_neurons_that_do_not_spike_have_no_firing_rate(tmp_path, capsys):
    tiny = {"cell": "lstm", "rule": "bptt", "hidden": "4", "batch": 4, "epochs": 1, "timesteps": 6, "parts": 1, "device": "cpu"}
    trainer = SequenceTrainer(SequenceConfig().updated(tiny | {"out": str(tmp_path / "run")}), quiet=True)
    assert trainer.fit()
    found = measured(tmp_path, trainer.folder.last, "--test-limit", "20")
    assert "test_rate" not in found and found["sequences"] == 20 and "firing rate" not in capsys.readouterr().out


def test_published_weights_are_measured_loaded_and_trained_on_by_name(tmp_path, trainer, data, shelf):
    assert eval_sequence.main(["--weights", str(trainer.folder.last), "--publish", "tiny", "--device", "cpu"]) == 0
    assert measured(tmp_path, "tiny", "--data", str(data))["accuracy"] == trainer.history[-1]["accuracy"]
    network, config = load("tiny")
    assert config == trainer.config.updated({"data": "", "out": "runs/tiny", "device": "auto"})
    assert all(v.equal(trainer.network.state_dict()[k]) for k, v in network.state_dict().items())
    more = trainer.config.updated({"init": "tiny", "out": str(tmp_path / "more")})
    assert SequenceTrainer(more, quiet=True).network.readout.gate.weight.equal(network.readout.gate.weight)


def test_nothing_of_this_machine_is_published(tmp_path, trainer, shelf):
    more = SequenceTrainer(trainer.config.updated({"init": str(trainer.folder.best), "out": str(tmp_path / "more")}), quiet=True)
    assert more.fit()
    eval_sequence.main(["--weights", str(more.folder.best), "--publish", "tiny", "--device", "cpu"])
    _, metadata = read_tensors(shelf / "tiny.safetensors")
    assert str(tmp_path) not in json.dumps(metadata) and json.loads(metadata["config"])["network"]["init"] == "run"
    assert set(json.loads(metadata["notes"])["metrics"]) == {"accuracy", "test_loss", "test_rate", "sequences"}


def test_a_published_file_that_was_changed_is_refused(trainer, shelf, capsys):
    eval_sequence.main(["--weights", str(trainer.folder.last), "--publish", "tiny", "--device", "cpu"])
    path = shelf / "tiny.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for name in ("tiny", str(path)):
        assert run("eval_sequence", ["--weights", name]) == 2
        assert f"{path}: its checksum is not the one in SHA256SUMS" in capsys.readouterr().err
    path.write_bytes(whole)
    assert resolve("tiny") == resolve(path) == path


def test_what_is_no_published_name_is_told(shelf):
    assert "nobody: no such weights file, and no published weights of a sequence network of that name; published: none" in refused(
        load, "nobody"
    )
    publish("b", {"w": torch.zeros(1)}, {"format": "x"}, shelf)
    publish("a", {"w": torch.zeros(1)}, {"format": "x"}, shelf)
    assert list(read_sums(shelf)) == ["a.safetensors", "b.safetensors"]
    assert "published: a, b" in refused(load, "nobody")
    assert "runs/x.safetensors: no such weights file" in refused(load, "runs/x.safetensors")
    assert "a name is of letters" in refused(publish, "../a", {}, {}, shelf)
    (shelf / SUMS).write_text("0123  a.safetensors\n")
    assert f"{shelf / SUMS}, line 1: expected a checksum" in refused(load, "a")


def test_data_of_another_kind_and_options_that_do_nothing_are_refused(tmp_path, capsys):
    texts = []
    for name, letters in (("a", "to be or not "), ("b", "to be or not to see ")):
        texts.append(tmp_path / f"{name}.txt")
        texts[-1].write_text(letters * 60)
    tiny = {"task": "char", "data": str(texts[0]), "hidden": "4", "batch": 2, "epochs": 1, "timesteps": 10, "device": "cpu"}
    trainer = SequenceTrainer(SequenceConfig().updated(tiny | {"out": str(tmp_path / "run")}), quiet=True)
    assert trainer.fit()
    assert measured(tmp_path, trainer.folder.last)["bits"] == trainer.history[-1]["bits"]
    assert run("eval_sequence", ["--weights", str(trainer.folder.last), "--data", str(texts[1])]) == 2
    assert "does not fit these data: tensor cells.0.synapse.weight has shape (4, 7), they ask for (4, 8)" in capsys.readouterr().err
    assert run("eval_sequence", ["--weights", str(trainer.folder.last), "--to", "x"]) == 2
    assert "--to goes with --publish" in capsys.readouterr().err
