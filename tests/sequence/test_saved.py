"""Weights of sequence networks: what a run wrote is read back without its data, and what is something else is told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from official_files import refused, write_mnist

from spyolo.sequence import load
from spyolo.sequence.config import SequenceConfig
from spyolo.sequence.trainer import SequenceTrainer
from spyolo.tensors import read_tensors, save_tensors

ADDING = {"timesteps": 6, "hidden": "5"}


pytestmark = pytest.mark.usefixtures("small")


def trained(out: Path, **changes: Any) -> SequenceTrainer:
    tiny = {"batch": 4, "epochs": 1, "parts": 2, "device": "cpu", "out": str(out)}
    trainer = SequenceTrainer(SequenceConfig().updated(tiny | changes), quiet=True)
    assert trainer.fit()
    return trainer


@pytest.mark.parametrize("file", ["best", "last"])
def test_a_network_comes_back_without_its_data(tmp_path, file):
    data = write_mnist(tmp_path / "mnist", train=8, test=4)
    trainer = trained(tmp_path / "run", task="mnist", data=str(data), conv="3c3-p4", hidden="6", timesteps=2)
    for path in data.iterdir():
        path.unlink()
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    network, config = load(tmp_path / "run" / f"{file}.safetensors")
    assert torch.rand(3).equal(wanted)  # the caller's random numbers are its own
    assert config == trainer.config and not network.training
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(network(x)[0], trainer.network.eval()(x)[0])


def test_the_random_numbers_of_every_gpu_go_on_as_they_were(tmp_path, monkeypatch):
    """Building a network seeds them all. None is here: two are made believe."""
    trained(tmp_path / "run", **ADDING)
    put_back: list[tuple[int, str]] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: f"as {device} was")
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: put_back.append((device, state)))
    load(tmp_path / "run" / "best.safetensors")
    assert put_back == [(0, "as 0 was"), (1, "as 1 was")]


def test_a_file_of_before_gate_bias_could_be_none_comes_back(tmp_path):
    """It says 0, which meant the gate's own."""
    trainer = trained(tmp_path / "run", **ADDING)
    tensors, metadata = read_tensors(tmp_path / "run" / "last.safetensors")
    told = json.loads(metadata["config"])
    told["network"]["gate_bias"] = 0.0
    save_tensors(tmp_path / "old.safetensors", tensors, metadata | {"config": json.dumps(told)})
    network, _ = load(tmp_path / "old.safetensors")
    bias = network.cells[0].unit.gate.linear.bias
    assert bias.count_nonzero() and bias.equal(trainer.network.cells[0].unit.gate.linear.bias)


def test_words_and_double_precision_come_back(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text(" ".join(f"w{i % 600}" for i in range(3000)))
    trained(tmp_path / "run", task="word", data=str(text), timesteps=8, embed=3, hidden="4", dtype="float64", limit=8, test_limit=2)
    network, _ = load(tmp_path / "run" / "best.safetensors")
    assert network(torch.tensor([0, 599]))[0].shape == (2, 601) and network.readout.linear.weight.dtype == torch.float64


def test_a_file_without_sizes_asks_its_task_for_them(tmp_path):
    """As earlier versions wrote them."""
    trained(tmp_path / "run", **ADDING)
    tensors, metadata = read_tensors(tmp_path / "run" / "best.safetensors")
    del metadata["sizes"]
    save_tensors(tmp_path / "old.safetensors", tensors, metadata)
    assert load(tmp_path / "old.safetensors")[0](torch.zeros(2, 2))[0].shape == (2, 1)


def test_what_is_no_sequence_network_is_told_in_one_line(tmp_path):
    trained(tmp_path / "run", **ADDING)
    best, other = tmp_path / "run" / "best.safetensors", tmp_path / "other.safetensors"
    tensors, metadata = read_tensors(best)

    def said(tensors: dict[str, torch.Tensor] = tensors, **changes: Any) -> str:
        save_tensors(other, tensors, metadata | changes)
        return refused(load, other)

    assert "no such weights file" in refused(load, tmp_path / "none.safetensors")
    assert "a detector, not a sequence network" in said(format="spyolo-1")
    assert "of format 'else', not a sequence network" in said(format="else")
    assert "without a description" in said(format="")
    assert "metadata is malformed" in said(config="{")
    assert "unknown field 'hiden'" in said(config=json.dumps({"hiden": 3}))
    assert "metadata is malformed (sizes must be positive)" in said(sizes=json.dumps({"inputs": [0], "outputs": 1, "vocabulary": 0}))
    assert "expected (60000, 2)" in said(config=json.dumps({"hidden": [60000, 60000]}))  # and nothing of that size is made
    name = "readout.linear.weight"
    assert f"tensor {name} is missing, expected (1, 5)" in said({k: v for k, v in tensors.items() if k != name})
    assert "not finite" in said(tensors | {name: tensors[name] * float("nan")})
    other.write_bytes(best.read_bytes()[:-100])
    assert "not a whole safetensors file" in refused(load, other)


def test_a_warm_start_takes_the_weights_and_nothing_else(tmp_path):
    first = trained(tmp_path / "first", **ADDING)
    path = tmp_path / "first" / "last.safetensors"
    tiny = {"batch": 4, "epochs": 1, "parts": 2, "device": "cpu", "out": str(tmp_path / "second"), "seed": 1, "init": str(path)}
    config = SequenceConfig().updated(tiny | ADDING)
    second = SequenceTrainer(config, quiet=True)
    for name, tensor in first.network.state_dict().items():
        assert second.network.state_dict()[name].equal(tensor)
    update = second.rule.update
    assert all(w.equal(mean) for w, mean in zip(update.weights, update.average, strict=True))  # the average starts from them
    assert not second.optimizer.state and second.epoch == 0
    assert second.fit()
    path.unlink()
    assert SequenceTrainer(config, resume=True, quiet=True).epoch == 1  # what a run needs lies in its folder


def test_a_warm_start_from_another_network_is_refused(tmp_path):
    path = trained(tmp_path / "first", **ADDING).folder.best
    base = SequenceConfig().updated({"out": str(tmp_path / "second"), "init": str(path)} | ADDING)

    def said_of(**changes: Any) -> str:
        return refused(SequenceTrainer, base.updated(changes))

    said = said_of(hidden="7")
    assert "is of another network: of tensor cells.0.synapse.weight it has shape (5, 2), this run shape (7, 2)" in said
    assert "tensor readout.gate.weight it has none, this run" in said_of(readout="gated")
    assert "tensor cells.0.recurrent.weight it has shape (5, 5), this run none" in said_of(recurrent=False)
    assert "no such" in said_of(init=str(tmp_path / "nowhere.safetensors"))
    assert "glorot: no such weights file, and no published weights" in said_of(init="glorot")
