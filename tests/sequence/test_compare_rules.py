"""Rules side by side: one table, one figure, and the same command goes on."""

from __future__ import annotations

import csv

import pytest
import torch
from official_files import refused

from spyolo.cli import run
from spyolo.sequence import compare
from spyolo.sequence.config import SequenceConfig
from spyolo.sequence.tasks import adding
from spyolo.sequence.trainer import SequenceTrainer

TINY = ["--timesteps", "8", "--hidden", "6", "--batch", "4", "--epochs", "2", "--parts", "4", "--device", "cpu", "--quiet"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(adding, "EPOCH", 2)
    monkeypatch.setattr(adding, "TESTS", 10)


def test_the_memory_of_a_rule_is_measured_with_its_traces():
    """Not those of a batch before, which would be there already or be freed while it is watched."""
    base = SequenceConfig().updated({"hidden": "32", "batch": 16, "parts": 1, "readout": "leaky", "device": "cpu"})
    for rule, cell in (("ostl", "lstm"), ("ostl", "ssnu"), ("eprop", "alif")):
        config = base.updated({"rule": rule, "cell": cell})
        (row,) = compare.costs({rule: config}, [8])
        task = adding.Adding(8, 16)
        assert row["bytes"] >= compare.rule_for(config, compare.build_network(config, task), compare.MSE).trace_bytes(16), (rule, cell)


def test_parts_by_a_rule_s_habit_are_told(tmp_path, capsys):
    assert run("compare_rules", ["--rules", "bptt:lif:0,fptt:lif:0", "--out", str(tmp_path), *TINY]) == 0
    told = capsys.readouterr().out
    assert "| bptt:lif:0 | lif | 1 |" in told and "| fptt:lif:0 | lif | all |" in told


def test_a_comparison_and_the_same_command_again(tmp_path, capsys, monkeypatch):
    command = ["--rules", "fptt,bptt:lstm", "--seeds", "0,1", "--lengths", "4,64", "--out", str(tmp_path), *TINY]
    assert run("compare_rules", command) == 0
    told = capsys.readouterr().out
    assert "| fptt | ltc | 4 |" in told and "| bptt:lstm | lstm | 1 |" in told and "T = 64: MiB" in told
    assert {p.name for p in tmp_path.iterdir()} == {
        "comparison.md", "comparison.png", "curves.csv", "costs.csv", "fptt-0", "fptt-1", "bptt-lstm-0", "bptt-lstm-1",
    }  # fmt: skip
    curves = list(csv.DictReader((tmp_path / "curves.csv").open()))
    assert [(r["rule"], r["seed"], r["epoch"]) for r in curves][:3] == [("fptt", "0", "1"), ("fptt", "0", "2"), ("fptt", "1", "1")]
    assert curves[0]["updates"] == "8" and curves[4]["updates"] == "2"  # four parts a sequence, and one

    monkeypatch.setattr(SequenceTrainer, "run_epoch", lambda self: pytest.fail("trained again"))
    assert run("compare_rules", command) == 0


def test_minutes_are_those_of_all_runs_together(tmp_path, monkeypatch):
    """Each of three runs takes two of them; the first is whole before the limit, the second is the one it falls into."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    learn = SequenceTrainer.learn

    def learned(self, batch):
        clock[0] += 30.0  # four batches a run
        return learn(self, batch)

    monkeypatch.setattr(SequenceTrainer, "learn", learned)
    command = ["--rules", "fptt", "--seeds", "0,1,2", "--max-minutes", "3", "--out", str(tmp_path), *TINY]
    assert run("compare_rules", command) == 0 and clock == [3 * 60.0 + 30] and not (tmp_path / "comparison.md").exists()
    assert run("compare_rules", command) == 0 and clock == [6 * 60.0] and (tmp_path / "comparison.md").exists()


def test_a_run_of_other_options_is_not_taken_for_one_of_these(tmp_path, capsys):
    command = ["--rules", "fptt", "--seeds", "0", "--out", str(tmp_path), *TINY]
    assert run("compare_rules", command) == 0
    begun = (tmp_path / "fptt-0" / "config.yaml").read_text()
    capsys.readouterr()
    assert run("compare_rules", [*command, "--lr", "0.5", "--alpha", "0.2"]) == 2
    said = capsys.readouterr().err
    assert "already holds another run (alpha 0.05, not 0.2, lr 0.005, not 0.5); give another --out, or the options" in said
    assert said.count("\n") == 1 and (tmp_path / "fptt-0" / "config.yaml").read_text() == begun


def stop_in_the_end(trainer: SequenceTrainer, started: float) -> bool:
    """A `fit` that is told to stop while the run's last evaluation is made."""
    evaluate = trainer.evaluate

    def evaluate_and_stop():
        trainer.stopping = trainer.epoch == trainer.config.epochs
        return evaluate()

    trainer.evaluate = evaluate_and_stop  # type: ignore[method-assign]
    return fit(trainer)


fit = SequenceTrainer.fit


def test_told_to_stop_at_a_run_s_end_the_next_is_not_begun(tmp_path, capsys, monkeypatch):
    command = ["--rules", "fptt,bptt", "--out", str(tmp_path), *TINY]
    monkeypatch.setattr(SequenceTrainer, "fit", stop_in_the_end)
    assert run("compare_rules", command) == 0
    assert capsys.readouterr().out.endswith("stopped; the same command goes on from here\n")
    assert {p.name for p in tmp_path.iterdir()} == {"fptt-0"}
    assert run("compare_rules", command) == 0  # the second one is the last: nothing is left to stop
    assert "written to" in capsys.readouterr().out


def test_the_average_is_that_of_fptt_others_are_judged_by_their_weights():
    found = compare.contenders(["fptt", "bptt"], SequenceConfig().updated({"weights_of": "average"}))
    assert [c.weights_of for c in found.values()] == ["average", "w"]


def test_the_table_tells_contenders_of_one_rule_apart(tmp_path):
    assert run("compare_rules", ["--rules", "fptt:ltc:2,fptt:ltc:3", "--out", str(tmp_path), *TINY]) == 0
    lines = (tmp_path / "comparison.md").read_text().splitlines()[2:]
    assert [line.split(" | ")[:3] for line in lines] == [["| fptt:ltc:2", "ltc", "2"], ["| fptt:ltc:3", "ltc", "3"]]


def test_traces_that_a_batch_has_no_room_for_are_told_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(SequenceTrainer, "fit", lambda *_: pytest.fail("trained"))
    command = ["--rules", "fptt,ostl", "--out", str(tmp_path), *TINY, "--hidden", "64", "--batch", "500"]
    assert run("compare_rules", command) == 2
    assert "ostl: the traces of a batch of 500 need" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--lengths", "1"], ["--rules", "fptt,ottt"], ["--rules", "fptt,fptt:ltc:9"]])
def test_a_mistake_is_told_before_anything_is_trained(tmp_path, monkeypatch, wrong):
    monkeypatch.setattr(SequenceTrainer, "fit", lambda *_: pytest.fail("trained"))
    assert run("compare_rules", ["--rules", "fptt", "--out", str(tmp_path), *TINY, *wrong]) == 2
    assert not list(tmp_path.iterdir())


def test_costs_are_those_of_the_adding_problem(monkeypatch):
    config = SequenceConfig().updated({"task": "mnist", "conv": "4c3-p2"})
    assert "shows no pictures" in refused(compare.costs, {"fptt": config}, [10])
    assert compare.costs({"fptt": config}, []) == []


def test_memory_of_bptt_grows_with_the_length_and_that_of_fptt_does_not():
    config = SequenceConfig().updated({"hidden": "64", "batch": 32})  # megabytes: what Python and malloc keep for themselves is noise
    rows = compare.costs(compare.contenders(["bptt", "fptt:ltc:0"], config), [25, 200])
    bytes_of = {(r["rule"], r["T"]): r["bytes"] for r in rows}
    assert bytes_of["bptt", 200] > 4 * bytes_of["bptt", 25]
    assert bytes_of["fptt:ltc:0", 200] < 1.5 * bytes_of["fptt:ltc:0", 25]


def test_costs_are_measured_on_the_device_of_the_run(monkeypatch):
    """`meta` stands in for a GPU."""
    seen = set()

    def looked_at(rule, objective, batch, **how):
        seen.update((batch.inputs.device.type, next(rule.network.parameters()).device.type))

    class Meter(compare.MemoryMeter):
        def __init__(self, known, device="cpu"):
            super().__init__(known, device)
            seen.add(torch.device(device).type)

    monkeypatch.setattr(compare, "train_batch", looked_at)
    monkeypatch.setattr(compare, "MemoryMeter", Meter)
    config = SequenceConfig().updated({"device": "meta", "optimizer": "sgd", "hidden": "4", "batch": 2})
    assert len(compare.costs({"fptt": config}, [4])) == 1 and seen == {"meta"}


def test_contenders_that_there_are_not(tmp_path):
    config = SequenceConfig()
    assert "'magic' is not rule, rule:cell" in refused(compare.contenders, ["magic"], config)
    assert "'fptt:ltx'" in refused(compare.contenders, ["fptt:ltx"], config)
    assert "named twice" in refused(compare.contenders, ["fptt", "fptt"], config)
    assert "fptt:ltc is the same as fptt" in refused(compare.contenders, ["fptt", "bptt", "fptt:ltc"], config)
    assert "parts must be a whole number" in refused(compare.contenders, ["fptt:ltc:many"], config)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--seeds", "one"], "--seeds takes whole numbers"), (["--seeds", ","], "--seeds is empty"), (["--lengths", "4,1"], "2 steps or more"),
     (["--seeds", "0,1,0"], "--seeds names 0 more than once"), (["--lengths", "8,8"], "--lengths names 8 more than once"),
     (["--lengths", "-4"], "not negative"), (["--timesteps", "1"], "2 timesteps or more"),
     (["--rules", ","], "--rules is empty"), (["--rule", "fptt"], "unrecognized arguments")],
)  # fmt: skip
def test_bad_command_lines_are_answered_in_one_line(arguments, said, capsys):
    assert run("compare_rules", arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
