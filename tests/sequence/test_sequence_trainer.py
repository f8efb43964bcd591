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
from spyolo.learning.window import WindowRule
from spyolo.resuming import holds_this_run
from spyolo.sequence.config import SequenceConfig, load_sequence_config, load_sequence_preset
from spyolo.sequence.networks import build_network
from spyolo.sequence.objectives import MSE
from spyolo.sequence.tasks import TASKS, adding, build_task
from spyolo.sequence.tasks.base import Sizes
from spyolo.sequence.trainer import SequenceTrainer
from spyolo.tensors import read_tensors, save_tensors

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
    {"rule": "fptt", "form": "paper"},
    {"task": "mnist", "rule": "fptt", "supervise": "auxiliary", "reads": "output", "conv": "2c3-p7", "timesteps": 4},
    {"task": "mnist", "rule": "fptt", "weights_of": "average", "recalibrate": 1, "conv": "2c3-p7", "timesteps": 4},
]


def named(changes: dict) -> str:
    return "-".join(str(changes[k]) for k in ("task", "rule", "form", "supervise", "weights_of") if k in changes)


@pytest.mark.parametrize("changes", CASES, ids=named)
def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(tmp_path, changes):
    if "task" in changes:
        data = text(tmp_path) if changes["task"] == "char" else write_mnist(tmp_path / "mnist", train=12, test=6)
        changes = changes | {"data": str(data)}
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
    best, _ = read_tensors(tmp_path / "run" / "best.safetensors")
    pictures = trainer.task.train_batch(list(range(20)), 0).input(0)  # two batches of ten are all of them, and they stand still
    shown = torch.nn.functional.conv2d(pictures, best["cells.0.synapse.0.weight"], padding=1)
    assert torch.allclose(best["cells.0.synapse.1.running_mean"], shown.mean((0, 2, 3)), atol=1e-6)
    assert not torch.allclose(trainer.network.cells[0].synapse[1].running_mean, shown.mean((0, 2, 3)), atol=1e-6)  # W has its own
    assert any(k == "auxiliary.Q" for k in tensors(tmp_path / "run"))
    assert not trainer.auxiliary.Q.allclose(torch.full_like(trainer.auxiliary.Q, 0.1))


def test_double_precision(tmp_path):
    trainer = SequenceTrainer(config(tmp_path / "run", dtype="float64", epochs=1), quiet=True)
    assert trainer.fit() and trainer.network.readout.linear.weight.dtype == torch.float64


@pytest.mark.parametrize(
    "changes", [{}, {"supervise": "last", "rule": "bptt", "parts": 1}, {"task": "smnist", "readout": "gated", "parts": 28}]
)
def test_steps_without_a_question_are_taken_in_one_go(tmp_path, monkeypatch, changes):
    """All steps but those of the questions, and what is learned is what is learned step by step."""
    write_mnist(tmp_path / "mnist", 8)
    found, calls = [], []
    for skims in (True, False):
        c = config(tmp_path / f"run-{skims}", dtype="float64", epochs=1, data=str(tmp_path / "mnist"), **changes)
        trainer = SequenceTrainer(c, quiet=True)
        span = trainer.network.span
        trainer.network.span = lambda x, state, span=span: calls.append(len(x)) or span(x, state)
        if not skims:
            monkeypatch.setattr(WindowRule, "skims", False)
        batch = next(iter(trainer.batches()))
        calls.clear()
        trainer.learn(batch)
        questions = 1 if changes.get("supervise") == "last" else c.parts
        assert sum(calls) == (batch.timesteps - questions if skims else 0)
        found.append(torch.cat([w.detach().flatten() for w in trainer.network.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)


# --- what makes no sense ---


@pytest.mark.parametrize("option", ["--resume", "--out"])
def test_names_that_are_too_long_are_told(tmp_path, capsys, option):
    assert run("train_sequence", [option, str(tmp_path / ("x" * 300)), "--quiet"]) == 2
    assert capsys.readouterr().err.endswith("cannot be looked for (File name too long)\n")


def test_runs_that_are_refused(tmp_path):
    assert "parts (9) cannot exceed the steps of a batch" in refused(SequenceTrainer, config(tmp_path / "a", parts=9))
    assert "supervise auxiliary needs classes" in refused(SequenceTrainer, config(tmp_path / "a", supervise="auxiliary"))
    with pytest.raises(InputError, match="supervise auxiliary goes with fptt"):
        config(tmp_path / "a", supervise="auxiliary", rule="eprop")
    with pytest.raises(InputError, match="eprop"):
        SequenceTrainer(config(tmp_path / "a", rule="eprop", cell="ltc", readout="gated", reads="output"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights_of": "average", "rule": "bptt"}, "weights_of average goes with fptt, bptt keeps no average: use --weights-of w"),
        ({"supervise": "auxiliary", "rule": "bptt", "parts": 0}, "supervise auxiliary asks nothing of its own in one part"),
        ({"supervise": "auxiliary", "parts": 1}, "give --parts of 2 or more, or --supervise last"),
        ({"supervise": "last"}, "supervise last leaves all parts but the last without a target, so fptt makes one update"),
        ({"supervise": "last", "parts": 0}, "use --parts 1, or --supervise parts"),
    ],
)
def test_settings_that_do_not_do_together_what_they_say(tmp_path, changes, said):
    assert said in refused(SequenceTrainer, config(tmp_path / "a", **changes))


def test_settings_that_do_what_they_say(tmp_path):
    SequenceTrainer(config(tmp_path / "a", supervise="last", parts=1))
    SequenceTrainer(config(tmp_path / "b", supervise="last", rule="bptt", parts=0))
    SequenceTrainer(config(tmp_path / "c", supervise="last", task="char", data=str(text(tmp_path))))  # asked at each step whatever it says


def write_digits(folder: Path) -> Path:
    """Sounds of 3 and 8 steps to train on, and one of 3 for the test."""
    for name, samples in (("0_ann_0", 416), ("1_ann_0", 816), ("0_bob_0", 416)):
        write_wav(folder / f"{name}.wav", 1000 * np.sin(np.arange(samples)))
    return folder


def test_parts_that_a_batch_could_be_too_short_for_are_refused_before_any_work(tmp_path):
    data = str(write_digits(tmp_path))
    changes = {"task": "digits", "data": data, "test_speakers": "bob", "timesteps": 0, "supervise": "every", "reads": "output"}
    said = refused(SequenceTrainer, config(tmp_path / "a", parts=4, batch=1, **changes))
    assert said == "parts (4) cannot exceed the steps of a batch, and one of digits may have no more than 3: use --parts 3 or fewer"
    assert SequenceTrainer(config(tmp_path / "b", parts=3, batch=1, **changes), quiet=True).fit()
    assert SequenceTrainer(config(tmp_path / "c", parts=8, batch=2, **changes), quiet=True).fit()  # the longer one is in every batch
    assert "no more than 8" in refused(SequenceTrainer, config(tmp_path / "d", parts=9, limit=1, **changes))  # the longer one is taken


@pytest.mark.parametrize("supervise", ["last", "parts", "auxiliary"])
def test_sequences_of_unequal_length_are_asked_at_every_step(tmp_path, supervise):
    """The last step of a batch, or the end of its parts, is one that shorter sequences do not have."""
    changes = {"task": "digits", "data": str(write_digits(tmp_path)), "test_speakers": "bob", "timesteps": 0, "parts": 1, "reads": "output"}
    said = refused(SequenceTrainer, config(tmp_path / "a", supervise=supervise, **changes))
    assert f"supervise {supervise} asks at steps that all sequences have" in said and "use --supervise every" in said
    assert SequenceTrainer(config(tmp_path / "a", supervise="every", epochs=1, **changes), quiet=True).fit()


def test_a_run_that_ends_earlier_than_it_was_meant_to_is_evaluated(tmp_path):
    whole = SequenceTrainer(config(tmp_path / "run", epochs=3, eval_every=3), quiet=True)
    stop_after(whole, 3)
    assert not whole.fit() and (whole.epoch, whole.batch) == (1, 0)
    short = load_sequence_config(tmp_path / "run" / "config.yaml").updated({"epochs": 1})
    trainer = SequenceTrainer(short, resume=True, quiet=True)
    assert trainer.fit() and trainer.history[-1]["mse"] == trainer.best
    assert SequenceTrainer(short, resume=True, quiet=True).history == trainer.history


def test_a_run_does_not_end_in_the_middle_of_an_epoch(tmp_path):
    cut = SequenceTrainer(config(tmp_path / "run", epochs=3), quiet=True)
    stop_after(cut, 4)
    assert not cut.fit() and (cut.epoch, cut.batch) == (1, 1)
    said = refused(SequenceTrainer, config(tmp_path / "run", epochs=1), resume=True)
    assert "stands in the middle of epoch 2, so a run of 1 has no end here: give --epochs 2 or more" in said


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


@pytest.mark.parametrize(
    ("name", "value"),
    [("init", "xavier"), ("slowest", 9), ("gate_bias", 0.5), ("threshold", 0.9), ("reads", "output"), ("readout_decay", 0.1)],
)
def test_a_run_goes_on_with_its_own_neurons_and_start_only(tmp_path, name, value):
    """Their tensors would fit, so nothing else would tell."""
    start = {"init": "torch", "readout": "leaky"}
    assert SequenceTrainer(config(tmp_path / "run", epochs=1, **start), quiet=True).fit()
    said = refused(SequenceTrainer, config(tmp_path / "run", **start | {name: value}), resume=True)
    assert said.startswith(f"{tmp_path / 'run' / 'last.safetensors'} began with {name} ") and said.endswith("for another, start a new run")


def test_who_was_learned_from_never_becomes_the_test(tmp_path):
    changes = {"task": "digits", "data": str(write_digits(tmp_path)), "timesteps": 0, "parts": 1, "reads": "output", "supervise": "every"}
    assert SequenceTrainer(config(tmp_path / "run", epochs=1, test_speakers="bob", **changes), quiet=True).fit()
    said = refused(SequenceTrainer, config(tmp_path / "run", epochs=2, test_speakers="ann", **changes), resume=True)
    assert "began with test_speakers ['bob'], which stays" in said
    start = {"init": str(tmp_path / "run" / "last.safetensors")} | changes
    said = refused(SequenceTrainer, config(tmp_path / "more", test_speakers="ann", **start))
    assert "has learned from all speakers but bob; they stay the test: give --test-speakers bob" in said
    assert SequenceTrainer(config(tmp_path / "more", test_speakers="bob", **start), quiet=True).config.init == start["init"]


def test_a_warm_start_tells_what_its_weights_were_trained_with(tmp_path):
    assert SequenceTrainer(config(tmp_path / "run", epochs=1), quiet=True).fit()
    start = {"init": str(tmp_path / "run" / "last.safetensors")}
    with pytest.warns(UserWarning, match=r"were trained with threshold 0.5, reads membrane; this run has others"):
        SequenceTrainer(config(tmp_path / "more", threshold=0.4, reads="output", **start), quiet=True)
    assert "slowest chooses first weights, which" in refused(config, tmp_path / "more", slowest=9, **start)
    assert "slowest is for LTC neurons" in refused(SequenceTrainer, config(tmp_path / "more", slowest=9, cell="lstm"))


def test_the_auxiliary_loss_is_the_one_that_is_asked_for(tmp_path):
    """The first epoch of two leaves its distributions uniform; scaling and policy reach it."""
    data = write_mnist(tmp_path / "mnist", train=8, test=4)
    changes = {"task": "smnist", "data": str(data), "timesteps": 0, "parts": 2, "supervise": "auxiliary", "readout": "gated"}
    changes |= {"aux_policy": "misclassified", "aux_scaling": "reference", "aux_warm_up": 1}
    trainer = SequenceTrainer(config(tmp_path / "run", epochs=1, **changes), quiet=True)
    assert (trainer.auxiliary.policy, trainer.auxiliary.scaling) == ("misclassified", "reference")
    assert trainer.fit() and (trainer.auxiliary.Q == 0.1).all()
    longer = SequenceTrainer(config(tmp_path / "run", epochs=2, **changes), resume=True, quiet=True)
    assert longer.fit() and not (longer.auxiliary.Q == 0.1).all()
    for name in ("aux_policy", "aux_scaling", "aux_warm_up"):
        assert f"{name} goes with supervise auxiliary, not with parts" in refused(config, tmp_path / "a", **{name: changes[name]})


@pytest.mark.parametrize("rule", ["fptt", "bptt", "eprop"])
def test_updates_without_a_target_are_refused(tmp_path, rule):
    said = refused(SequenceTrainer, config(tmp_path / "run", rule=rule, supervise="last", parts=4, readout="linear", reads="output"))
    assert f"so {rule} makes one update a sequence: use --parts 1, or --supervise parts" in said


def test_feedback_is_drawn_from_the_run_s_seed(tmp_path):
    drawn = [
        SequenceTrainer(
            config(tmp_path / str(seed), rule="eprop", cell="lif", feedback="random", seed=seed, readout="linear", reads="output", parts=1),
            quiet=True,
        ).rule.feedback[0]
        for seed in (0, 1)
    ]
    assert not drawn[0].equal(drawn[1])


def test_statistics_are_taken_anew_for_an_average_and_only_for_one(tmp_path):
    assert SequenceConfig().recalibrate > 0
    data = write_mnist(tmp_path / "mnist", train=8, test=4)
    changes = {"task": "mnist", "data": str(data), "conv": "2c3-p7", "timesteps": 2, "supervise": "every", "parts": 2, "epochs": 1}
    changes |= {"batch": 4, "reads": "output", "recalibrate": 2}
    for of, form, taken in (("w", "feddyn", False), ("average", "feddyn", True), ("w", "reference", True)):
        trainer = SequenceTrainer(config(tmp_path / f"{of}-{form}", weights_of=of, form=form, **changes), quiet=True)
        assert trainer.fit()
        kept = trainer.network.cells[0].synapse[1].running_mean
        best = read_tensors(trainer.folder.best)[0]["cells.0.synapse.1.running_mean"]
        assert best.equal(kept) != taken


def test_a_run_goes_on_with_its_own_order_task_and_measure(tmp_path):
    cut = SequenceTrainer(config(tmp_path / "run"), quiet=True)
    stop_after(cut, 2)
    assert not cut.fit()
    said = refused(SequenceTrainer, config(tmp_path / "run", seed=1), resume=True)
    assert "stands at batch 2 of 3 in its epoch; seed, batch, limit and timesteps can be changed between two" in said
    assert "stands at batch 2 of 3" in refused(SequenceTrainer, config(tmp_path / "run", timesteps=9), resume=True)
    other = config(tmp_path / "run", task="char", data=str(text(tmp_path)))
    assert "is of task adding; to learn another, start a new run" in refused(SequenceTrainer, other, resume=True)

    trainer = SequenceTrainer(config(tmp_path / "run"), resume=True, quiet=True)
    assert trainer.fit() and trainer.best is not None
    with pytest.warns(UserWarning, match=r"test_limit: not as before, so best.safetensors is chosen anew"):
        again = SequenceTrainer(config(tmp_path / "run", test_limit=3), resume=True, quiet=True)
    assert again.best is None and again.fit() and again.best == again.history[-1]["mse"] != trainer.best
    with pytest.warns(UserWarning, match="timesteps: not as before, so best.safetensors is chosen anew"):
        assert SequenceTrainer(config(tmp_path / "run", test_limit=3, timesteps=9), resume=True, quiet=True).best is None


@pytest.mark.parametrize(("first", "then", "said"), [
    ({"rule": "eprop", "cell": "alif"}, {"feedback": "random"}, "began with feedback 'symmetric', which stays"),
    ({"task": "smnist"}, {"supervise": "auxiliary"}, "began with supervise 'parts', which stays"),
    ({"task": "smnist", "supervise": "auxiliary"}, {"supervise": "parts"}, "began with supervise 'auxiliary', which stays"),
    ({"task": "smnist", "supervise": "auxiliary"}, {"parts": 7}, "began with parts 4, which stays"),
])  # fmt: skip
def test_what_a_checkpoint_has_no_state_for_stays(tmp_path, first, then, said):
    data = {"data": str(write_mnist(tmp_path / "mnist", train=8, test=4)), "batch": 4} if "task" in first else {}
    start = config(tmp_path / "run", **({"parts": 4 if data else 1, "epochs": 1, "hidden": "4"} | data | first))
    assert SequenceTrainer(start, quiet=True).fit()
    assert said in refused(SequenceTrainer, start.updated(then), resume=True)
    assert SequenceTrainer(start.updated({"parts": 2} if "auxiliary" not in first.values() else {}), resume=True).epoch == 1


def test_a_first_figure_that_is_no_number_is_beaten_by_any():
    assert MSE.better(0.1, float("nan")) and not MSE.better(float("nan"), 0.1) and MSE.better(float("nan"), None)


def test_a_run_of_before_gate_bias_could_be_none_goes_on_with_its_network(tmp_path):
    """Its config says 0, which meant the gate's own."""
    trainer = SequenceTrainer(config(tmp_path / "run", gate_bias="none", init="torch", epochs=1), quiet=True)
    assert trainer.fit() and trainer.network.cells[0].unit.gate.linear.bias.count_nonzero()
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("gate_bias: null", "gate_bias: 0.0"))
    tensors, metadata = read_tensors(trainer.folder.last)
    save_tensors(trainer.folder.last, tensors, metadata | {"config": metadata["config"].replace('"gate_bias": null', '"gate_bias": 0.0')})
    resumed = SequenceTrainer(load_sequence_config(path), resume=True, quiet=True)
    assert resumed.config.gate_bias == 0 and resumed.epoch == 1
    assert all(v.equal(resumed.network.state_dict()[k]) for k, v in trainer.network.state_dict().items())


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    trainer = SequenceTrainer(config(tmp_path / "run"), quiet=True)
    with torch.no_grad():
        trainer.network.readout.linear.weight.fill_(float("inf"))
    said = refused(trainer.fit)
    assert "the loss is not finite in epoch 1" in said and "near batch 1; there is no checkpoint yet; a lower --lr" in said
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


@pytest.mark.parametrize("at", [2, 3])
def test_no_checkpoint_is_made_of_an_average_that_is_not_finite(tmp_path, at):
    """The form `paper` can spoil it in the last part before a save, the weights still being whole; in an epoch, and at its end."""
    trainer = SequenceTrainer(config(tmp_path / "run", form="paper", save_seconds=0 if at == 2 else 1000), quiet=True)
    learn = trainer.learn

    def learn_and_spoil(batch):
        log = learn(batch)
        if trainer.batch == at - 1:
            trainer.rule.update.average[0].view(-1)[0] = float("nan")
        return log

    trainer.learn = learn_and_spoil  # type: ignore[method-assign]
    said = refused(trainer.fit)
    assert f"the average of cells.0.synapse.weight is not finite in epoch 1 near batch {at}; " in said
    good = tmp_path / "run" / "last.safetensors"
    assert ("the last good checkpoint is" in said) == good.exists() == (at == 2) and not (tmp_path / "run" / "best.safetensors").exists()
    assert not good.exists() or all(v.isfinite().all() for v in tensors(tmp_path / "run").values())


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
    assert "adding: 12 training sequences of 8 steps, judged by mse on the test" in told and "after 6 updates" in told
    for more, said in (("--preset smnist", "--preset smnist starts a new run"), ("--out other", "--out other: --resume goes on in")):
        assert run("train_sequence", ["--resume", out, *more.split()]) == 2 and said in capsys.readouterr().err
    assert run("train_sequence", ["--resume", out, "--epochs", "2", "--quiet", "--out", out + "/"]) == 0
    assert "after 12 updates" in capsys.readouterr().out


IDLE = [
    ("rule=bptt", "alpha", 0.5), ("rule=bptt", "form", "paper"), ("rule=fptt", "sltt_steps", 1), ("rule=bptt", "with_h", False),
    ("rule=bptt", "feedback", "random"), ("cell=alif", "gate", "static"), ("cell=lif", "gate_bias", -1.0),
    ("cell=alif", "adaptive", True), ("cell=lstm", "threshold", 0.3), ("cell=ltc", "decay", 0.5),
    ("cell=ssnu", "surrogate", "arctan"), ("readout=gated", "readout_decay", 0.5), ("task=adding", "first_chord", False),
    ("task=adding", "shrink", 2), ("task=adding", "frames_by", "count"), ("task=adding", "embed", 3),
    ("task=adding", "test_speakers", "theo"),
]  # fmt: skip


@pytest.mark.parametrize(("run_of", "name", "value"), IDLE, ids=lambda v: str(v))
def test_nothing_is_made_of_a_field_that_is_said_to_be_unread(tmp_path, run_of, name, value):
    """Bit for bit the same weights with another value."""
    one = config(tmp_path / "one", epochs=1, **dict([run_of.split("=")]))
    other = one.updated({name: value, "out": str(tmp_path / "other")})
    assert getattr(one, name) != getattr(other, name) and one.unread(name)
    for run_config in (one, other):
        assert SequenceTrainer(run_config, quiet=True).fit()
    first, second = tensors(tmp_path / "one"), tensors(tmp_path / "other")
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(("cell", "read"), [("lif", False), ("ltc", True)])
def test_gates_of_convolutions_are_those_of_ltc_neurons(tmp_path, cell, read):
    shape = Sizes((1, 8, 8), 10)
    built = [
        build_network(config(tmp_path, cell=cell, conv="4c3-p2", conv_gate=gate), shape).state_dict().keys() for gate in ("conv", "static")
    ]
    assert (built[0] != built[1]) == read == (not config(tmp_path, cell=cell).unread("conv_gate"))


def test_fields_that_go_unread_are_no_reason_to_refuse_or_judge_a_resumed_run_anew(tmp_path, recwarn):
    start = config(tmp_path / "run", epochs=1)
    assert SequenceTrainer(start, quiet=True).fit()
    again = SequenceTrainer(start.updated({"epochs": 2, "shrink": 2, "test_speakers": "theo", "decay": 0.5}), resume=True, quiet=True)
    assert again.best is not None and not [w for w in recwarn if "chosen anew" in str(w.message)]
    assert holds_this_run(start.updated({"shrink": 2}), "")
    assert "already holds another run (alpha 0.05, not 0.9)" in refused(holds_this_run, start.updated({"alpha": 0.9}), "")


def test_a_number_of_steps_is_told_to_be_unread_where_the_task_has_its_own(tmp_path):
    """By what each task built makes of it: a sequence of as many steps, or not."""
    made = {"task": "adding", "timesteps": 6}
    assert build_task(config(tmp_path, **made)).timesteps == 6 and not config(tmp_path, **made).unread("timesteps")
    lengths = {name: bool(config(tmp_path, task=name).unread("timesteps")) for name in TASKS}
    assert {name for name, own in lengths.items() if own} == {"smnist", "psmnist", "digits", "jsb", "nottingham"}


def test_all_fields_that_go_unread_are_among_these():
    fields = SequenceConfig.fields().items()
    tried = {name for _, name, _ in IDLE} | {"conv_gate", "download", "timesteps"}
    assert tried >= {name for name, (_, field, _) in fields if field.metadata["only"]}


def test_an_option_of_which_nothing_is_made_is_told(tmp_path, capsys):
    tiny = ["--timesteps", "8", "--hidden", "6", "--batch", "4", "--epochs", "1", "--parts", "2", "--quiet", "--out", str(tmp_path / "run")]
    assert run("train_sequence", ["--rule", "bptt", "--alpha", "0.2", "--lr", "0.01", *tiny]) == 0
    assert capsys.readouterr().err == "--alpha is not read: it goes with rule fptt, not with bptt\n"
    for rules, told in (("bptt,eprop:alif", "--alpha is not read"), ("bptt,fptt", "")):
        assert run("compare_rules", ["--rules", rules, "--alpha", "0.2", *tiny[:-1], str(tmp_path / rules)]) == 0
        assert (told in capsys.readouterr().err) if told else not capsys.readouterr().err


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
