"""Runs on sequences: they learn, resume bit for bit, and refuse what makes no sense."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from official_files import refused, write_mnist, write_wav

from spyolo.cli import run
from spyolo.errors import InputError
from spyolo.sequence.config import SequenceConfig, load_sequence_config, load_sequence_preset
from spyolo.sequence.tasks import adding
from spyolo.sequence.trainer import SequenceTrainer
from spyolo.tensors import read_tensors

pytestmark = pytest.mark.usefixtures("small")


def config(out: Path, **changes) -> SequenceConfig:
    tiny = {"timesteps": 8, "hidden": "6", "batch": 4, "epochs": 2, "parts": 4, "device": "cpu", "out": str(out)}
    return load_sequence_preset("adding").updated(tiny | changes)


def text(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("to be or not to be " * 40)
    return path


def stop_after(trainer: SequenceTrainer, batches: int) -> None:
    """Let it be told to stop in the middle of an epoch."""
    learn, seen = trainer.learn, []

    def learn_and_stop(batch):
        seen.append(1)
        trainer.stopping = len(seen) >= batches
        return learn(batch)

    trainer.learn = learn_and_stop  # type: ignore[method-assign]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(folder / "last.safetensors")[0]


CASES = [
    {"rule": "fptt"},
    {"rule": "bptt", "parts": 1, "cell": "lstm", "optimizer": "adamax"},
    {"rule": "eprop", "cell": "alif", "parts": 1, "feedback": "adaptive", "readout": "leaky", "reads": "output"},
    {"rule": "ostl", "cell": "ssnu", "parts": 2, "reads": "output", "optimizer": "sgd"},
    {"rule": "ottt", "cell": "lif", "parts": 2, "recurrent": False, "reads": "output"},
    {"rule": "sltt", "cell": "gru", "sltt_steps": 3, "parts": 2},
    {"task": "char", "rule": "fptt", "timesteps": 20, "parts": 2},
]


@pytest.mark.parametrize("changes", CASES, ids=lambda c: f"{c.get('task', 'adding')}-{c['rule']}")
def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(tmp_path, changes):
    changes = changes | ({"data": str(text(tmp_path))} if changes.get("task") == "char" else {})
    assert SequenceTrainer(config(tmp_path / "whole", **changes), quiet=True).fit()
    cut = SequenceTrainer(config(tmp_path / "cut", **changes), quiet=True)
    stop_after(cut, 2)
    assert not cut.fit()
    resumed = SequenceTrainer(load_sequence_config(tmp_path / "cut" / "config.yaml"), resume=True, quiet=True)
    assert (resumed.epoch, resumed.batch) == (0, 2) and resumed.fit()
    whole, cut_tensors = tensors(tmp_path / "whole"), tensors(tmp_path / "cut")
    assert whole.keys() == cut_tensors.keys() and all(v.equal(cut_tensors[k]) for k, v in whole.items())
    logs = [list(csv.DictReader((tmp_path / name / "log.csv").open())) for name in ("whole", "cut")]
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in logs[0]] == [
        {k: v for k, v in row.items() if k != "seconds"} for row in logs[1]
    ]


def test_updates_are_counted_and_the_best_weights_kept(tmp_path):
    trainer = SequenceTrainer(config(tmp_path / "run"), quiet=True)
    assert trainer.fit()
    assert [row["updates"] for row in trainer.history] == [12, 24]  # 3 batches of 4 parts
    kept, told = read_tensors(tmp_path / "run" / "best.safetensors")
    assert kept.keys() == trainer.network.state_dict().keys()
    assert json.loads(told["notes"])["metrics"]["mse"] == trainer.best == min(row["mse"] for row in trainer.history)


def test_the_average_is_what_is_evaluated_when_asked_for(tmp_path):
    w = SequenceTrainer(config(tmp_path / "w"), quiet=True)
    average = SequenceTrainer(config(tmp_path / "average", weights_of="average"), quiet=True)
    assert w.fit() and average.fit()
    assert w.history[0]["loss"] == average.history[0]["loss"] and w.history[0]["mse"] != average.history[0]["mse"]
    with average.evaluated_weights():
        assert all(p.equal(a) for p, a in zip(average.rule.update.weights, average.rule.update.average))
    assert not all(p.equal(a) for p, a in zip(average.rule.update.weights, average.rule.update.average))


def test_a_short_adding_problem_is_learned(tmp_path, monkeypatch):
    monkeypatch.setattr(adding, "EPOCH", 60)
    monkeypatch.setattr(adding, "TESTS", 200)
    trainer = SequenceTrainer(config(tmp_path / "run", hidden="32", batch=32, parts=2, timesteps=4, epochs=2, lr=1e-2), quiet=True)
    assert trainer.fit()
    assert trainer.history[-1]["mse"] < 0.03  # always answering 1: 0.167


def test_pictures_learn_with_the_auxiliary_loss_and_norms_are_recalibrated(tmp_path):
    folder = write_mnist(tmp_path / "mnist", train=20, test=10)
    changes = {
        "task": "mnist", "data": str(folder), "conv": "4c3-p4", "hidden": "12", "conv_gate": "depthwise", "reads": "output", "timesteps": 4,
        "supervise": "auxiliary", "weights_of": "average", "recalibrate": 2, "batch": 10, "epochs": 1,
    }  # fmt: skip
    trainer = SequenceTrainer(config(tmp_path / "run", **changes), quiet=True)
    assert trainer.fit() and 0 <= trainer.history[-1]["accuracy"] <= 1
    assert any(k == "auxiliary.Q" for k in tensors(tmp_path / "run"))
    assert not trainer.auxiliary.Q.allclose(torch.full_like(trainer.auxiliary.Q, 0.1))


def test_double_precision(tmp_path):
    trainer = SequenceTrainer(config(tmp_path / "run", dtype="float64", epochs=1), quiet=True)
    assert trainer.fit() and trainer.network.readout.linear.weight.dtype == torch.float64


# --- what makes no sense ---


@pytest.mark.parametrize("option", ["--resume", "--out"])
def test_names_that_are_too_long_are_told(tmp_path, capsys, option):
    assert run("train_sequence", [option, str(tmp_path / ("x" * 300)), "--quiet"]) == 2
    assert capsys.readouterr().err.endswith("cannot be looked for (File name too long)\n")


def test_runs_that_are_refused(tmp_path):
    assert "parts (9) cannot exceed the steps" in refused(SequenceTrainer, config(tmp_path / "a", parts=9))
    assert "supervise auxiliary needs classes" in refused(SequenceTrainer, config(tmp_path / "a", supervise="auxiliary"))
    with pytest.raises(InputError, match="supervise auxiliary goes with fptt"):
        config(tmp_path / "a", supervise="auxiliary", rule="eprop")
    with pytest.raises(InputError, match="eprop"):
        SequenceTrainer(config(tmp_path / "a", rule="eprop", cell="ltc", readout="gated", reads="output"))


@pytest.mark.parametrize("supervise", ["last", "parts", "auxiliary"])
def test_sequences_of_unequal_length_are_asked_at_every_step(tmp_path, supervise):
    """The last step of a batch, or the end of its parts, is one that shorter sequences do not have."""
    for name, samples in (("0_ann_0", 400), ("1_ann_0", 800), ("0_bob_0", 400)):
        write_wav(tmp_path / f"{name}.wav", 1000 * np.sin(np.arange(samples)))
    changes = {"task": "digits", "data": str(tmp_path), "test_speakers": "bob", "timesteps": 0, "parts": 1, "reads": "output"}
    said = refused(SequenceTrainer, config(tmp_path / "a", supervise=supervise, **changes))
    assert f"supervise {supervise} asks at steps that all sequences have" in said and "use --supervise every" in said
    assert SequenceTrainer(config(tmp_path / "a", supervise="every", epochs=1, **changes), quiet=True).fit()


def test_a_run_that_ends_earlier_than_it_was_meant_to_is_evaluated(tmp_path):
    whole = SequenceTrainer(config(tmp_path / "run", epochs=3, eval_every=3), quiet=True)
    stop_after(whole, 4)
    assert not whole.fit() and whole.epoch == 1
    short = load_sequence_config(tmp_path / "run" / "config.yaml").updated({"epochs": 1})
    trainer = SequenceTrainer(short, resume=True, quiet=True)
    assert trainer.fit() and trainer.history[-1]["mse"] == trainer.best
    assert SequenceTrainer(short, resume=True, quiet=True).history == trainer.history


def test_a_run_goes_on_with_its_own_lambda_only(tmp_path):
    """In the form `paper` it is a gradient."""
    assert SequenceTrainer(config(tmp_path / "run", epochs=1), quiet=True).fit()
    assert SequenceTrainer(config(tmp_path / "run", form="reference"), resume=True, quiet=True).epoch == 1
    said = refused(SequenceTrainer, config(tmp_path / "run", form="paper"), resume=True)
    assert "is of form feddyn, whose lambda means another thing than that of paper" in said


def test_a_run_goes_on_with_its_own_rule_only(tmp_path):
    assert SequenceTrainer(config(tmp_path / "run", epochs=1), quiet=True).fit()
    assert "already holds a run" in refused(SequenceTrainer, config(tmp_path / "run"))
    assert "is of rule fptt" in refused(SequenceTrainer, config(tmp_path / "run", rule="bptt"), resume=True)
    assert "not a checkpoint of this run" in refused(SequenceTrainer, config(tmp_path / "run", hidden="7"), resume=True)


def test_a_run_goes_on_with_its_own_order_task_and_measure(tmp_path):
    cut = SequenceTrainer(config(tmp_path / "run"), quiet=True)
    stop_after(cut, 2)
    assert not cut.fit()
    said = refused(SequenceTrainer, config(tmp_path / "run", seed=1), resume=True)
    assert "stands at batch 2 of 3 in its epoch; seed, batch, limit and test_speakers can be changed between two epochs only" in said
    other = config(tmp_path / "run", task="char", data=str(text(tmp_path)))
    assert "is of task adding; to learn another, start a new run" in refused(SequenceTrainer, other, resume=True)

    trainer = SequenceTrainer(config(tmp_path / "run"), resume=True, quiet=True)
    assert trainer.fit() and trainer.best is not None
    with pytest.warns(UserWarning, match=r"test_limit: not as before, so best.safetensors is chosen anew"):
        again = SequenceTrainer(config(tmp_path / "run", test_limit=3), resume=True, quiet=True)
    assert again.best is None and again.fit() and again.best == again.history[-1]["mse"] != trainer.best


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    trainer = SequenceTrainer(config(tmp_path / "run"), quiet=True)
    with torch.no_grad():
        trainer.network.readout.linear.weight.fill_(float("inf"))
    assert "the loss is not finite in epoch 1" in refused(trainer.fit)
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_a_membrane_that_is_not_a_number_ends_the_run_though_the_loss_is_finite(tmp_path):
    """Only spikes are read, and such a neuron has none."""
    trainer = SequenceTrainer(config(tmp_path / "run", reads="output", readout="leaky"), quiet=True)
    learn = trainer.learn

    def learn_and_spoil(batch):
        log = learn(batch)
        trainer.rule.state.cells[0].u[0, 0] = float("nan")
        return log

    trainer.learn = learn_and_spoil  # type: ignore[method-assign]
    assert "the state of cells.0 is not finite in epoch 1" in refused(trainer.fit)
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_a_weight_that_is_not_finite_is_named():
    from spyolo.sequence.engine import not_finite

    net = torch.nn.Linear(2, 2)
    assert not_finite(net, None) == ""
    net.bias.data[1] = float("inf")
    assert not_finite(net, None) == "the weight bias"


# --- the command line ---


def test_the_command_line_trains_and_resumes(tmp_path, capsys):
    out = str(tmp_path / "run")
    tiny = ["--timesteps", "8", "--hidden", "6", "--batch", "4", "--epochs", "1", "--parts", "2", "--quiet", "--out", out]
    assert run("train_sequence", ["--task", "adding", "--rule", "fptt", "--cell", "ltc", "--device", "cpu", *tiny]) == 0
    told = capsys.readouterr().out
    assert "adding: 12 training sequences of 8 steps, judged by mse" in told and "after 6 updates" in told
    for more, said in (("--preset smnist", "--preset smnist starts a new run"), ("--out other", "--out other: --resume goes on in")):
        assert run("train_sequence", ["--resume", out, *more.split()]) == 2 and said in capsys.readouterr().err
    assert run("train_sequence", ["--resume", out, "--epochs", "2", "--quiet", "--out", out + "/"]) == 0
    assert "after 12 updates" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "spelling"], "task must be one of adding"),
        (["--rule", "magic"], "rule must be one of"),
        (["--cell", "ltx"], "cell must be one of"),
        (["--lr", "fast"], "lr must be a number"),
        (["--leraning-rate", "1"], "unrecognized arguments"),
        (["--resume", "nowhere"], "no run to resume here"),
        (["--preset", "none"], "no such config file; presets are adding"),
    ],
)
def test_bad_command_lines_are_answered_in_one_line(arguments, said, capsys, monkeypatch):
    monkeypatch.delenv("SPYOLO_DATA", raising=False)
    assert run("train_sequence", arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
