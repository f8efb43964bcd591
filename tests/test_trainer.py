"""A run: what it leaves in its folder, how it stops, and that a stopped or killed one goes on to the same weights."""

from __future__ import annotations

import csv
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from spyolo import engine
from spyolo.checkpoint import WeightsInfo, is_of_epoch, load_detector, load_tensors, save_weights
from spyolo.config import Config, load_config
from spyolo.data import SAMPLE_CLASSES
from spyolo.detection import LossParts, build_detector
from spyolo.distributed import Peers
from spyolo.errors import InputError
from spyolo.neurons import norms
from spyolo.resuming import weight_names
from spyolo.run_folder import COLUMNS, RunFolder
from spyolo.running import stop_on_signals
from spyolo.summary import describe_start, finish
from spyolo.trainer import Trainer


def rows(folder: str | Path) -> list[dict[str, str]]:
    """log.csv without the one column that a clock decides."""
    with open(Path(folder) / "log.csv") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same_run(one: str, other: str) -> None:
    """Both checkpoints bit for bit, and the log."""
    for name in ("last", "best"):
        (a, _), (b, _) = (load_tensors(Path(folder) / f"{name}.safetensors") for folder in (one, other))
        assert a.keys() == b.keys()
        assert [k for k in a if not torch.equal(a[k], b[k])] == []
    assert rows(one) == rows(other)


RUN = {"epochs": 2, "plain_epochs": 1, "eval_every": 2, "val_limit": 2}  # mosaics first, none last; 2 x 4 batches
SHORT = {"limit": 8, "val_limit": 2, "recalibrate": 0, "eval_every": 9, "epochs": 1, "batch": 2}  # 4 batches


@pytest.fixture(scope="module")
def whole(tiny_config) -> Config:
    """A run that nothing interrupted."""
    config = tiny_config(**RUN, save_seconds=0)
    assert Trainer(config, quiet=True).fit()
    return config


@pytest.fixture
def adorned() -> None:
    """Ask for it to have curves and TensorBoard."""


@pytest.fixture(autouse=True)
def unadorned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing curves takes longer than training here."""
    if "adorned" not in request.fixturenames:
        monkeypatch.setattr(RunFolder, "plot", lambda *_: None)
        monkeypatch.setattr(RunFolder, "board", lambda *_: None)


# --- what a run leaves ---


def test_the_folder_holds_all_that_was_promised(tiny_config, adorned):
    config = tiny_config(epochs=2)
    trainer = Trainer(config, quiet=True)
    assert trainer.fit()
    told = finish(trainer)
    kept, info = load_detector(trainer.folder.final)
    assert info.notes["epoch"] == 2 and info.metrics["voc10_ap50"] == trainer.history[-1]["voc10_ap50"]
    with trainer.evaluated_weights():  # those of the last epoch, as they were measured
        now = trainer.detector.state_dict()
        assert all(torch.equal(v, now[k]) for k, v in kept.state_dict().items() if "running" not in k)
    names = {p.name for p in Path(config.out).iterdir()}
    promised = {"config.yaml", "log.csv", "last.safetensors", "best.safetensors", "curves.png", "metrics.json", "predictions.png"}
    assert promised <= names and any(n.startswith("events.out.tfevents") for n in names)
    assert not any(n.endswith(".part") for n in names)
    for what in ("AP50", "mAP@0.5", "firing rate", "energy a picture", "ANN twin", *promised):
        assert what in told
    assert load_config(Path(config.out) / "config.yaml") == config

    table = rows(config.out)
    assert [row["epoch"] for row in table] == ["1", "2"] and [row["updates"] for row in table] == ["8", "16"]
    assert list(table[0]) == [c for c in COLUMNS if c != "seconds"]
    assert all(math.isfinite(float(row[k])) for row in table for k in ("loss", "box", "objectness", "classes", "firing_rate", "voc10_ap50"))

    _, info = load_detector(trainer.folder.best)
    assert info.classes == config.classes and (info.size, info.timesteps) == (64, 2)
    assert info.notes["weights_of"] == "ema" and "voc10_ap50" in info.metrics


def test_tensorboard_gets_each_epoch_once(whole):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(whole.out)
    board.Reload()
    assert [e.step for e in board.Scalars("train/loss")] == [1, 2]
    assert "val/voc10_ap50" in board.Tags()["scalars"]


def test_an_epoch_is_evaluated_when_due_and_the_last_always(tiny_config):
    config = tiny_config(**SHORT | {"epochs": 3, "eval_every": 2, "timesteps": 1})
    Trainer(config, quiet=True).fit()
    assert [row["voc10_ap50"] != "" for row in rows(config.out)] == [False, True, True]


def test_a_run_that_is_cut_short_is_evaluated_where_it_ends(tiny_config):
    config = tiny_config(**SHORT | {"epochs": 3})
    trainer = Trainer(config, quiet=True)
    end = trainer.end_epoch
    trainer.end_epoch = lambda: (end(), setattr(trainer, "stopping", True))  # type: ignore[method-assign]
    assert not trainer.fit() and not trainer.folder.best.exists()
    assert Trainer(config.updated({"epochs": 1}), resume=True, quiet=True).fit()
    assert trainer.folder.best.exists() and rows(config.out)[-1]["voc10_ap50"] != ""


def test_the_log_holds_the_means_of_each_epoch(tiny_config, monkeypatch):
    inner, losses = engine.train_batch, []

    def noted(*args, **how):
        log = inner(*args, **how)
        losses.append(log.loss.item())
        return log

    monkeypatch.setattr(engine, "train_batch", noted)
    config = tiny_config(**SHORT | {"epochs": 2})
    Trainer(config, quiet=True).fit()
    expected = [sum(losses[:4]) / 4, sum(losses[4:]) / 4]
    assert [float(row["loss"]) for row in rows(config.out)] == pytest.approx(expected, abs=1e-5)


def test_the_reference_goes_on_from_its_average_after_each_epoch(tiny_config):
    config = tiny_config(**SHORT, form="reference")
    trainer = Trainer(config, quiet=True)
    trainer.fit()
    tensors, _ = load_tensors(trainer.folder.last)
    names = weight_names(trainer.detector, trainer.rule.weights)
    assert all(torch.equal(tensors[f"model.{name}"], tensors[f"average.{name}"]) for name in names)


def test_a_folder_that_holds_a_run_is_left_alone(whole):
    before = {p: p.read_bytes() for p in Path(whole.out).iterdir()}
    with pytest.raises(InputError, match="already holds a run; --resume it, or give another --out"):
        Trainer(whole, quiet=True)
    assert {p: p.read_bytes() for p in Path(whole.out).iterdir()} == before


def test_the_start_is_described(tiny_config):
    told = describe_start(Trainer(tiny_config(parts=1), quiet=True))
    assert "spyv4_lite" in told and f"{len(SAMPLE_CLASSES)} classes, 64 pixels, T = 2" in told
    assert "16 pictures to train on (2007:train), 4 to measure on (2007:val); fptt (feddyn, alpha 0.1), 1 update(s) a batch" in told


def test_the_ann_twin_takes_one_step(tiny_config):
    config = tiny_config(**SHORT, detector="yolov4_tiny", timesteps=4)
    trainer = Trainer(config, quiet=True)
    assert trainer.plan == [1] and trainer.fit()
    assert rows(config.out)[0]["firing_rate"] == "0.0" and "every operand a real number" in finish(trainer)


# --- the schedule and the evaluated weights ---


def test_the_rate_warms_up_and_comes_down_by_a_cosine(tiny_config):
    trainer = Trainer(tiny_config(epochs=10, warmup=2, lr=1.0, lr_final=0.1), quiet=True)
    rates = {}
    for trainer.epoch in range(10):
        for trainer.batch in range(4):
            trainer.set_rates()
            rates[trainer.epoch, trainer.batch] = trainer.optimizer.param_groups[1]["lr"]
    assert rates[0, 0] == pytest.approx(1 / 8) and rates[0, 3] == pytest.approx(0.5, rel=0.02)
    assert rates[5, 0] == pytest.approx(0.1 + 0.9 / 2)
    assert rates[9, 3] == pytest.approx(0.1, abs=0.003)
    later = [rates[k] for k in rates if k >= (2, 0)]
    assert later == sorted(later, reverse=True)


@pytest.mark.parametrize("of", ["w", "average", "ema"])
def test_evaluation_shows_the_weights_asked_for_and_leaves_the_run_as_it_was(tiny_config, of):
    trainer = Trainer(tiny_config(weights_of=of, recalibrate=2), quiet=True)
    for k, tensors in enumerate((trainer.rule.weights, trainer.rule.average, trainer.ema.average)):
        torch._foreach_add_([t.data for t in tensors], 0.01 * (k + 1))
    chosen = {"w": trainer.rule.weights, "average": trainer.rule.average, "ema": trainer.ema.average}[of]
    before = {k: v.clone() for k, v in trainer.detector.state_dict().items()}
    with trainer.evaluated_weights():
        assert all(torch.equal(w, c) for w, c in zip(trainer.rule.weights, chosen))
        assert all(m.num_batches_tracked == 2 * 2 for m in norms(trainer.detector))  # two batches, two steps
    assert all(torch.equal(v, before[k]) for k, v in trainer.detector.state_dict().items()) and trainer.detector.training
    trainer.evaluate()
    best = dict(load_detector(trainer.folder.best)[0].named_parameters())
    assert all(torch.equal(best[name], c) for name, c in zip(weight_names(trainer.detector, trainer.rule.weights), chosen))


def test_only_a_better_score_is_kept_as_best(tiny_config, monkeypatch):
    trainer = Trainer(tiny_config(**SHORT), quiet=True)
    scores, names, kept = iter((0.5, 0.4, 0.6)), ("voc10_ap50", "voc07_ap50", "voc10_ap50_95"), []
    monkeypatch.setattr("spyolo.trainer.evaluate_detections", lambda *_: dict.fromkeys(names, next(scores)))
    for _ in range(3):
        trainer.evaluate()
        kept.append(load_detector(trainer.folder.best)[1].metrics["voc10_ap50"])
    assert kept == [0.5, 0.5, 0.6]


# --- the same run again ---


def test_the_same_seed_is_the_same_run_and_another_is_not(whole, tiny_config):
    again = tiny_config(**RUN)  # however often it is saved
    Trainer(again, quiet=True).fit()
    assert_same_run(whole.out, again.out)
    other = Trainer(tiny_config(seed=1), quiet=True)
    first = Trainer(tiny_config(), quiet=True)
    assert not torch.equal(next(other.batches().__iter__()).images, next(first.batches().__iter__()).images)
    assert not torch.equal(other.rule.weights[0], first.rule.weights[0])


def test_each_epoch_varies_its_pictures_anew(tiny_config):
    trainer, seen = Trainer(tiny_config(augment="train"), quiet=True), []
    for trainer.epoch in (0, 1, 0):
        seen.append({name: image for batch in trainer.batches() for name, image in zip(batch.ids, batch.images)})
    assert seen[0].keys() == seen[1].keys()
    assert not any(torch.equal(seen[0][name], seen[1][name]) for name in seen[0])
    assert all(torch.equal(seen[0][name], seen[2][name]) for name in seen[0])


def test_loader_processes_bring_the_same_batches(tiny_config):
    """A batch decides the update that follows, so equal batches are equal runs."""
    for alone, helped in zip(*(Trainer(tiny_config(workers=n, batch=8), quiet=True).batches() for n in (0, 1))):
        assert alone.ids == helped.ids and torch.equal(alone.images, helped.images)
        assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(alone.objects, helped.objects))


# --- stopped and resumed ---


def resumed(config: Config, **changes: object) -> Trainer:
    return Trainer(load_config(Path(config.out) / "config.yaml").updated(changes), resume=True, quiet=True)


def at_batch(trainer: Trainer, count: int, action) -> Trainer:
    """Call `action` before batch `count` of the run (from 1)."""
    inner, seen = trainer.set_rates, iter(range(1, 10**6))

    def set_rates() -> None:
        if next(seen) == count:
            action()
        inner()

    trainer.set_rates = set_rates  # type: ignore[method-assign]
    return trainer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_batch_and_the_run_goes_on(whole, tiny_config, number, capsys):
    config = tiny_config(**RUN)
    before = signal.getsignal(number)
    trainer = at_batch(Trainer(config, quiet=True), 6, lambda: signal.raise_signal(number))
    assert not trainer.fit()
    assert "stopping after this batch" in capsys.readouterr().out and signal.getsignal(number) is before
    assert (trainer.epoch, trainer.batch) == (1, 2)
    trainer = resumed(config)
    assert (trainer.epoch, trainer.batch) == (1, 2) and trainer.fit()
    assert_same_run(whole.out, config.out)


def test_the_first_signal_after_time_ran_out_is_the_first(capsys):
    run = SimpleNamespace(stopping=True)
    with stop_on_signals(run):
        signal.raise_signal(signal.SIGTERM)
        assert "press Ctrl-C again" in capsys.readouterr().out
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_another_process_that_saves_while_this_one_loads_is_seen(whole, tiny_config, tmp_path):
    config = tiny_config(out=str(shutil.copytree(whole.out, tmp_path / "shared")), epochs=9)
    load = Trainer.load

    def slow(self) -> None:
        load(self)
        self.folder.last.write_bytes(self.folder.last.read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "load", slow)
        trainer = Trainer(config, resume=True, quiet=True)
    with pytest.raises(InputError, match="another process has trained here meanwhile"):
        trainer.fit()


def test_a_second_signal_stops_at_once(tiny_config):
    config = tiny_config(**SHORT, save_seconds=0)

    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        at_batch(Trainer(config, quiet=True), 3, twice).fit()
    assert resumed(config).batch == 2


def test_time_is_up(whole, tiny_config):
    config = tiny_config(**RUN, max_minutes=1e-9)
    trainer = Trainer(config, quiet=True)
    assert not trainer.fit() and (trainer.epoch, trainer.batch) == (0, 1)
    assert resumed(config, max_minutes=0).fit()
    assert_same_run(whole.out, config.out)


CHILD = """
import sys
from spyolo.neurons.fused import Compiling
Compiling.enabled = False
from spyolo.cli import run
sys.exit(run("train", sys.argv[1:]))
"""


def child(config: Config, *options: str) -> subprocess.Popen[str]:
    """The run in a process of its own, by the command line."""
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    preset = folder / "preset.yaml"
    preset.write_text(config.to_yaml(), encoding="utf-8")
    arguments = options or ("--preset", str(preset))
    return subprocess.Popen([sys.executable, "-c", CHILD, "--quiet", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def test_a_run_killed_at_any_moment_goes_on_to_the_same_weights(whole, tiny_config):
    config = tiny_config(**RUN, save_seconds=0)
    process = child(config)
    wait_for(Path(config.out) / "last.safetensors", process)
    moment = random.uniform(0, 0.5)
    time.sleep(moment)
    process.kill()
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    trainer = resumed(config)
    print(f"killed {moment:.3f} s after the first checkpoint; goes on at epoch {trainer.epoch}, batch {trainer.batch}")
    assert trainer.fit()
    assert_same_run(whole.out, config.out)


def test_a_run_killed_before_its_first_checkpoint_starts_anew(whole, tiny_config):
    config = tiny_config(**RUN)

    def die() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        at_batch(Trainer(config, quiet=True), 2, die).fit()
    assert {p.name for p in Path(config.out).iterdir()} == {"config.yaml"}
    for left in (".last.safetensors.x.part", ".tmpX1y2Z3"):  # as of a kill in the middle of the first: ours, and safetensors' own
        (Path(config.out) / left).touch()
    assert resumed(config).fit()
    assert_same_run(whole.out, config.out)
    assert not list(Path(config.out).glob(".*"))


def test_a_run_that_ends_at_an_epoch_that_was_evaluated_leaves_its_final_weights(tiny_config):
    config = tiny_config(**SHORT | {"epochs": 3, "eval_every": 1, "timesteps": 1})
    trainer = Trainer(config, quiet=True)
    end = trainer.end_epoch
    trainer.end_epoch = lambda: (end(), setattr(trainer, "stopping", True))  # type: ignore[method-assign]
    assert not trainer.fit() and not trainer.folder.final.exists()
    for epochs in (1, 2):  # longer again: what it ended with before is not its end any more
        assert resumed(config, epochs=epochs).fit() and is_of_epoch(trainer.folder.final, epochs)


def test_a_signal_that_comes_while_processes_agree_is_not_lost(tiny_config):
    """At an epoch's end all but the first wait there, for as long as a checkpoint takes."""

    class Asked(Peers):
        def agree(self, flags, device):
            agreed = super().agree(flags, device)
            if len(flags) == 1 and trainer.batch == 0:  # the question at an epoch's end
                trainer.stopping = True
            return agreed

    trainer = Trainer(tiny_config(**SHORT | {"epochs": 3, "timesteps": 1}), quiet=True, peers=Asked())
    assert not trainer.fit() and (trainer.epoch, trainer.batch) == (1, 1)


def test_nothing_is_made_of_fields_that_are_said_to_be_unread(tiny_config):
    """Bit for bit the same weights with other values."""
    plain = tiny_config(**SHORT, rule="bptt", augment="eval", timesteps=1)
    others = {"alpha": 0.9, "form": "paper", "mosaic": 1.0, "scale": "0.9,1.1", "colour": 2.0, "plain_epochs": 1}
    other = tiny_config(**SHORT, rule="bptt", augment="eval", timesteps=1, **others)
    assert all(other.unread(name) for name in others)
    assert {n for n, (_, field, _) in Config.fields().items() if field.metadata["only"]} == set(others)
    assert Trainer(plain, quiet=True).fit() and Trainer(other, quiet=True).fit()
    assert_same_run(plain.out, other.out)


def test_a_plain_network_makes_nothing_of_what_concerns_spikes(tiny_config):
    """Bit for bit the same weights with other values."""
    plain = tiny_config(**SHORT | {"detector": "yolov4_tiny", "rule": "bptt", "timesteps": 1})
    others = {
        "threshold": 0.3, "surrogate": "triangle", "detach_reset": True, "start": "uniform", "rate_weight": 1.0, "rate_low": 0.1,
        "rate_high": 0.3, "timesteps": 3,
    }  # fmt: skip
    other = tiny_config(**SHORT | {"detector": "yolov4_tiny", "rule": "bptt"} | others)
    assert all(other.unread(name) for name in others) and not any(tiny_config(**SHORT).unread(name) for name in others)
    assert not other.updated({"source": "events"}).unread("timesteps")
    assert Trainer(plain, quiet=True).fit() and Trainer(other, quiet=True).fit()
    assert_same_run(plain.out, other.out)


@pytest.mark.filterwarnings("ignore:.*unknown class:UserWarning")
def test_weights_without_a_score_are_measured_once(tiny_config, monkeypatch):
    """No object of these classes in the pictures measured on: every score is none."""
    config = tiny_config(**SHORT | {"classes": ("zeppelin",), "timesteps": 1})
    trainer, judged = Trainer(config, quiet=True), []
    monkeypatch.setattr(Trainer, "judge", lambda self, found, judge=Trainer.judge: (judged.append(1), judge(self, found))[1])
    assert trainer.fit() and "voc10_ap50" not in trainer.history[-1] and judged == [1]


def test_final_weights_that_cannot_be_read_are_written_anew(tiny_config):
    config = tiny_config(**SHORT | {"epochs": 1, "timesteps": 1})
    trainer = Trainer(config, quiet=True)
    assert trainer.fit()
    trainer.folder.final.write_bytes(b"spoilt")
    assert resumed(config).fit() and is_of_epoch(trainer.folder.final, 1)


def test_a_run_does_not_end_in_the_middle_of_an_epoch(tiny_config):
    config = tiny_config(**SHORT | {"epochs": 3, "timesteps": 1})
    trainer = Trainer(config, quiet=True)
    at_batch(trainer, 6, lambda: setattr(trainer, "stopping", True))
    assert not trainer.fit() and (trainer.epoch, trainer.batch) == (1, 2)
    with pytest.raises(InputError, match="in the middle of epoch 2, so a run of 1 has no end here: give --epochs 2 or more"):
        resumed(config, epochs=1)
    assert resumed(config, epochs=2).fit()


def test_all_processes_leave_where_one_is_told_to_in_an_evaluation(tiny_config, monkeypatch):
    trainer = Trainer(tiny_config(**SHORT | {"epochs": 3, "timesteps": 1}), quiet=True)
    end, others = trainer.end_epoch, [False]
    trainer.end_epoch = lambda: (end(), others.__setitem__(0, True))  # type: ignore[method-assign]
    monkeypatch.setattr(Peers, "agree", lambda self, flags, device: [flag or others[0] for flag in flags])
    assert not trainer.fit() and (trainer.epoch, trainer.batch) == (1, 0)


def test_a_complete_run_has_nothing_left_to_do(whole):
    before = rows(whole.out)
    trainer = resumed(whole)
    assert trainer.epoch == 2 and trainer.fit() and rows(whole.out) == before


def test_a_complete_run_can_be_made_longer(tiny_config):
    config = tiny_config(**SHORT)
    Trainer(config, quiet=True).fit()
    trainer = resumed(config, epochs=2)
    assert trainer.fit() and [row["epoch"] for row in rows(config.out)] == ["1", "2"]


LEARNERS = {
    "paper": {"form": "paper", "norm": "renorm"},
    "reference": {"form": "reference", "optimizer": "adamax", "weights_of": "average", "parts": 1, "epochs": 2},
    "bptt": {"rule": "bptt", "optimizer": "sgd", "ema": 0, "amp": "bf16"},
    "plain sgd": {"optimizer": "sgd", "momentum": 0, "rate_weight": 0.1, "start": "uniform", "weights_of": "w"},
    "twin": {"detector": "yolov4_tiny", "optimizer": "adam"},
}


@pytest.mark.parametrize("options", LEARNERS.values(), ids=LEARNERS)
def test_whatever_a_rule_remembers_is_in_the_checkpoint(tiny_config, options):
    small = SHORT | {"augment": "train"} | options
    one, other = (tiny_config(**small) for _ in range(2))
    Trainer(one, quiet=True).fit()
    stopped = at_batch(Trainer(other, quiet=True), 3, lambda: signal.raise_signal(signal.SIGTERM))
    assert not stopped.fit() and resumed(other).fit()
    assert_same_run(one.out, other.out)


@pytest.mark.slow
def test_killed_again_and_again(tiny_config):
    """Six kills at random moments, some before anything is there, resumed by the command line, with a loader process and autocast."""
    changes = {"epochs": 10, "plain_epochs": 3, "save_seconds": 0, "workers": 1, "amp": "bf16", "eval_every": 3}
    config, reference = tiny_config(**changes), tiny_config(**changes | {"workers": 0})
    Trainer(reference, quiet=True).fit()
    process = child(config)
    for kill in range(6):
        if kill % 2:
            wait_for(Path(config.out) / "last.safetensors", process)
        time.sleep(random.uniform(0, 8))
        if process.poll() is not None:
            break
        process.kill()
        process.communicate(timeout=120)
        started = (Path(config.out) / "config.yaml").exists()
        process = child(config, "--resume", config.out) if started else child(config)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0 and kill > 0, error
    assert_same_run(reference.out, config.out)
    assert (Path(config.out) / "metrics.json").exists() and not list(Path(config.out).glob(".*"))


@pytest.mark.slow
def test_killed_at_each_file_that_is_written(tiny_config, monkeypatch):
    """A kill just before or just after any file is put in place."""
    small = SHORT | {"save_seconds": 0, "epochs": 2, "batch": 4}
    reference = tiny_config(**small)
    Trainer(reference, quiet=True).fit()
    replace = os.replace
    for after in (False, True):
        for victim in range(1, 100):
            config, calls = tiny_config(**small), iter(range(1, 1000))

            def kill(source, target, victim=victim, after=after, calls=calls) -> None:
                if hit := next(calls) == victim:
                    if after:
                        replace(source, target)
                    raise KeyboardInterrupt
                assert not hit
                replace(source, target)

            monkeypatch.setattr(os, "replace", kill)
            try:
                finished = Trainer(config, quiet=True).fit()
            except KeyboardInterrupt:
                finished = False
            monkeypatch.setattr(os, "replace", replace)
            if finished:
                break
            if not (Path(config.out) / "config.yaml").exists():
                continue
            assert resumed(config).fit()
            assert_same_run(reference.out, config.out)
        assert victim > 8


@pytest.mark.slow
def test_sigterm_reaches_a_process_with_loaders(tiny_config):
    config = tiny_config(epochs=200, workers=1)
    process = child(config)
    wait_for(Path(config.out) / "log.csv", process)
    process.terminate()
    told, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert f"go on with --resume {config.out}" in told and "Traceback" not in error
    assert (Path(config.out) / "last.safetensors").exists()


# --- what a checkpoint cannot go on with ---


@pytest.fixture(scope="module")
def stopped(tiny_config) -> Config:
    """A run that was stopped after its second batch."""
    config = tiny_config(**SHORT)
    assert not at_batch(Trainer(config, quiet=True), 2, lambda: signal.raise_signal(signal.SIGTERM)).fit()
    return config


def test_a_loss_that_is_not_finite_is_told_and_not_saved(tiny_config):
    config = tiny_config(**SHORT, save_seconds=0)
    trainer = Trainer(config, quiet=True)
    loss = trainer.loss.__class__.__call__
    bad = [False]

    def broken(self, *args) -> LossParts:
        parts = loss(self, *args)
        return LossParts(parts.box * math.nan, *parts[1:]) if bad[0] else parts

    trainer.loss = type("Broken", (type(trainer.loss),), {"__call__": broken})()
    at_batch(trainer, 3, lambda: bad.__setitem__(0, True))
    with pytest.raises(InputError, match=r"epoch 1, batch 3 \(\w+\.jpg, \w+\.jpg\): the loss is not finite; the last good .*last.safet"):
        trainer.fit()
    assert resumed(config).batch == 2
    assert all(torch.isfinite(t).all() for t in load_tensors(trainer.folder.last)[0].values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgd"}, "is of optimizer adamw; to go on with another, start a new run with --init"),
        ({"rule": "bptt"}, "is of rule fptt"),
        ({"batch": 4}, "stands at batch 2 of 4 in its epoch; seed, batch, limit, train, lanes, window_ms and source can be changed"),
        ({"seed": 1}, "stands at batch 2 of 4 in its epoch; seed, batch"),  # another order: pictures twice, or never
        ({"train": "2007:val", "limit": 9}, "stands at batch 2 of 4 in its epoch; seed, batch"),
        ({"width": 1}, "is of a detector with width "),
        ({"threshold": 2.0}, "is of a detector with threshold .*, not 2.0; to train another, start a new run with --init"),
        ({"surrogate": "triangle"}, "is of a detector with surrogate"),
        ({"start": "uniform"}, "is of a detector with start"),
        ({"classes": "cross,disc"}, r"is of the classes .*, not \['cross', 'disc'\]; resume it with the former, or start"),
        ({"classes": ",".join(reversed(SAMPLE_CLASSES))}, "is of the classes"),  # as many, but labels would change their meaning
    ],
)
@pytest.mark.filterwarnings("ignore:.*unknown class")
def test_changes_that_a_checkpoint_cannot_take(stopped, changes, message):
    before = (Path(stopped.out) / "last.safetensors").read_bytes()
    with pytest.raises(InputError, match=message) as caught:
        resumed(stopped, **changes)
    assert "\n" not in str(caught.value) and (Path(stopped.out) / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize(("changes", "anew"), [
    ({}, False), ({"lr": 0.5}, False), ({"val": "2007:train"}, True), ({"val_limit": 3}, True),
    ({"size": 96}, True), ({"vote_iou": 0.5}, True),
])  # fmt: skip
def test_the_best_so_far_is_no_rival_where_something_else_is_measured(tiny_config, changes, anew, recwarn):
    config = tiny_config(**SHORT, timesteps=1)
    trainer = Trainer(config, quiet=True)
    assert trainer.fit()
    trainer.best = 0.9
    trainer.save()
    again = resumed(config, **changes)
    assert again.best == (-1.0 if anew else 0.9)
    assert [str(w.message) for w in recwarn if "chosen anew" in str(w.message)] == (
        [f"{next(iter(changes))}: not as before, so best.safetensors is chosen anew"] if anew else []
    )
    written = again.folder.best.stat().st_mtime_ns
    assert again.fit() and (again.folder.best.stat().st_mtime_ns > written) == anew  # a run that has ended is measured as asked
    assert resumed(config, **changes).best == again.best and (again.best < 0.9) == anew


def test_weights_are_no_checkpoint(whole, tiny_config):
    config = tiny_config()
    Path(config.out).mkdir(parents=True)
    (Path(config.out) / "last.safetensors").write_bytes((Path(whole.out) / "best.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"last.safetensors: not a checkpoint of this run \('position'\)"):
        Trainer(config, resume=True, quiet=True)


# --- warm starts ---


def test_a_warm_start_is_a_start_from_those_weights(tiny_config, tmp_path):
    torch.manual_seed(7)
    twin = build_detector("yolov4_tiny", len(SAMPLE_CLASSES), width=0.05)
    config = tiny_config(init=str(tmp_path / "twin.safetensors"))
    save_weights(config.init, twin, WeightsInfo(twin.spec, config.classes))
    trainer = Trainer(config, quiet=True)
    weights = dict(zip(weight_names(trainer.detector, trainer.rule.weights), trainer.rule.weights))
    for name, w in twin.named_parameters():
        assert torch.equal(weights[name], w)
    for averages in (trainer.rule.average, trainer.ema.average):
        assert all(torch.equal(a, w) for a, w in zip(averages, trainer.rule.weights))
    assert f"warm start from {config.init}: " in describe_start(trainer)
    assert not trainer.optimizer.state_dict()["state"]


def test_a_warm_start_with_heads_of_other_classes_is_told(tiny_config, tmp_path):
    torch.manual_seed(7)
    twin = build_detector("yolov4_tiny", len(SAMPLE_CLASSES), width=0.05)
    config = tiny_config(init=str(tmp_path / "twin.safetensors"))
    save_weights(config.init, twin, WeightsInfo(twin.spec, config.classes[::-1]))
    with pytest.warns(UserWarning, match="heads start from what they knew of other things"):
        Trainer(config, quiet=True)


def test_a_warm_start_on_the_crops_of_an_earlier_piece_is_told(tiny_config, tmp_path):
    first = Trainer(tiny_config(**SHORT, seed=3), quiet=True)
    assert first.fit()
    again = tiny_config(**SHORT, seed=3).updated({"init": str(first.folder.best), "out": str(tmp_path / "again")})
    with pytest.warns(UserWarning, match=r"piece 1 of .* had seed 3 too: the same crops in the same order; another --seed"):
        Trainer(again, quiet=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Trainer(again.updated({"seed": 4}), quiet=True)
        Trainer(again.updated({"size": 96}), quiet=True)


def test_a_warm_start_from_another_class_count_is_refused(tiny_config, tmp_path):
    detector = build_detector("spyv4_lite", 2, width=0.05)
    save_weights(tmp_path / "w", detector, WeightsInfo(detector.spec, ("cat", "dog")))
    config = tiny_config(init=str(tmp_path / "w"))
    with pytest.raises(InputError, match=f"weights for 2 classes, the detector has {len(SAMPLE_CLASSES)}"):
        Trainer(config, quiet=True)
    assert not Path(config.out).exists()
