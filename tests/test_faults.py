"""Faults around a run: a second trainer, a full disk, a folder that cannot be written to, a spoilt checkpoint, a clock put back."""

from __future__ import annotations

import csv
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from spyolo.checkpoint import load_tensors
from spyolo.config import Config, load_config
from spyolo.errors import InputError
from spyolo.files import held, replace_file, write_whole
from spyolo.run_folder import RunFolder
from spyolo.trainer import Trainer

SHORT = {"limit": 8, "val_limit": 2, "recalibrate": 0, "eval_every": 9, "epochs": 1, "batch": 2, "augment": "eval"}  # 4 batches


@pytest.fixture(autouse=True)
def unadorned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing curves takes longer than training here."""
    if "test_thirty" in request.node.name:
        return
    monkeypatch.setattr(RunFolder, "plot", lambda *_: None)
    if "adorned" not in request.fixturenames:
        monkeypatch.setattr(RunFolder, "board", lambda *_: None)


@pytest.fixture
def adorned() -> None:
    """Ask for it to have TensorBoard."""


def stopped_at(trainer: Trainer, batch: int) -> Trainer:
    """The run stops, resumably, after this batch."""
    inner = trainer.set_rates

    def set_rates() -> None:
        inner()
        if trainer.batch == batch - 1:
            signal.raise_signal(signal.SIGTERM)

    trainer.set_rates = set_rates  # type: ignore[method-assign]
    return trainer


def resumed(config: Config) -> Trainer:
    return Trainer(load_config(Path(config.out) / "config.yaml"), resume=True, quiet=True)


# --- two trainers, one folder ---

HOLD = """
import sys, time
from pathlib import Path
from spyolo.files import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_held_by_one_process_and_free_when_it_is_killed(tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"{folder} is in use by another process"), held(folder):
            pass
    finally:
        process.kill()
        process.wait(60)
    with held(folder):
        assert not list(folder.iterdir())  # nothing that somebody would have to remove
    with held(folder):
        pass


def test_a_second_trainer_is_refused_before_it_writes_anything(tiny_config):
    config = tiny_config(**SHORT)
    first, second = Trainer(config, quiet=True), Trainer(config, quiet=True)
    with held(Path(config.out)), pytest.raises(InputError, match="in use by another process; wait for it, or give another --out"):
        second.fit()
    assert not list(Path(config.out).iterdir())
    assert first.fit()
    before = first.folder.last.read_bytes()
    with pytest.raises(InputError, match="another process has trained here meanwhile; --resume it again"):
        second.fit()
    assert first.folder.last.read_bytes() == before


# --- the checkpoint before the last ---


def test_the_checkpoint_before_the_last_is_kept_and_taken_where_the_last_is_spoilt(tiny_config):
    whole, config = tiny_config(**SHORT, save_seconds=0), tiny_config(**SHORT, save_seconds=0)
    assert Trainer(whole, quiet=True).fit()
    assert not stopped_at(Trainer(config, quiet=True), 3).fit()
    folder = RunFolder(config.out)
    assert folder.last.exists() and folder.previous.exists()
    with open(folder.last, "r+b") as file:  # as after a fault of the disk
        file.truncate(folder.last.stat().st_size // 2)
    with pytest.warns(UserWarning, match="last.safetensors: not a whole safetensors file .*going on from .*previous.safetensors"):
        trainer = resumed(config)
    assert trainer.batch == 2 and trainer.fit()
    (a, _), (b, _) = (load_tensors(RunFolder(c.out).last) for c in (whole, config))
    assert [k for k in a if not torch.equal(a[k], b[k])] == []


def test_a_run_whose_last_checkpoint_is_gone_goes_on_from_the_one_before(tiny_config):
    config = tiny_config(**SHORT, save_seconds=0)
    assert not stopped_at(Trainer(config, quiet=True), 3).fit()
    RunFolder(config.out).last.unlink()
    with pytest.raises(InputError, match="already holds a run"):
        Trainer(config, quiet=True)
    with pytest.warns(UserWarning, match="going on from"):
        assert resumed(config).batch == 2


def test_what_was_there_keeps_a_second_name(tmp_path, monkeypatch):
    path, keep = tmp_path / "a", tmp_path / "before"
    for text in ("one", "two", "three"):
        replace_file(path, lambda part, text=text: part.write_text(text), keep)
    assert (path.read_text(), keep.read_text()) == ("three", "two")
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    replace_file(path, lambda part: part.write_text("four"), keep)
    assert (path.read_text(), keep.read_text()) == ("four", "three")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "before"]


# --- disks ---


def mounted(folder: Path, *options: str) -> bool:
    folder.mkdir(exist_ok=True)
    return subprocess.run(["mount", *options, str(folder)], capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MB."""
    folder = tmp_path / "disk"
    if shutil.which("mount") is None or not mounted(folder, "-t", "tmpfs", "-o", "size=32m", "tmpfs"):
        pytest.skip("a file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_and_costs_nothing(tiny_config, small_disk):
    """The run stops at the checkpoint that does not fit; with room made it goes on to the same weights."""
    whole = tiny_config(**SHORT, save_seconds=0)
    assert Trainer(whole, quiet=True).fit()
    config = whole.updated({"out": str(small_disk / "run")})
    trainer = Trainer(config, quiet=True)
    inner, filler = trainer.set_rates, small_disk / "filler"

    def fill() -> None:
        inner()
        if trainer.batch == 2:  # two checkpoints are there
            free = shutil.disk_usage(small_disk).free
            filler.write_bytes(bytes(free - 100_000))

    trainer.set_rates = fill  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"last.safetensors cannot be written \(.*[Nn]o space left .*\); what was there before is un"):
        trainer.fit()
    assert not list((small_disk / "run").glob(".*"))
    filler.unlink()
    again = resumed(config)
    assert again.batch == 2 and again.fit()
    (a, _), (b, _) = (load_tensors(RunFolder(c.out).last) for c in (whole, config))
    assert [k for k in a if not torch.equal(a[k], b[k])] == []


def test_a_folder_that_cannot_be_written_to(tiny_config, tmp_path):
    folder = tmp_path / "disk"
    if shutil.which("mount") is None or not mounted(folder, "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs"):
        pytest.skip("a file system can be mounted by root alone")
    try:
        for out in (folder, folder / "run"):
            trainer = Trainer(tiny_config(**SHORT, out=str(out)), quiet=True)
            with pytest.raises(InputError, match=r"Read-only file system"):
                trainer.fit()
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_file_where_the_run_folder_should_be(tiny_config, tmp_path):
    (tmp_path / "run").touch()
    for out in (tmp_path / "run", tmp_path / "run" / "deeper"):
        with pytest.raises(InputError, match=rf"{out} cannot be written to \(.*\); give another --out"):
            Trainer(tiny_config(**SHORT, out=str(out)), quiet=True).fit()


def test_a_disk_too_full_for_tensorboard_costs_no_checkpoint(tiny_config, adorned, monkeypatch, capfd):
    """Its file may not grow: one warning, the events so far kept, and once there is room again the whole history."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def steps() -> list[int]:
        board = EventAccumulator(config.out)
        board.Reload()
        return [e.step for e in board.Scalars("train/loss")]

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    config = tiny_config(**SHORT | {"epochs": 3, "timesteps": 1})
    assert Trainer(config.updated({"epochs": 1}), quiet=True).fit()
    with monkeypatch.context() as no_room:  # a resumed run writes a file anew ...
        no_room.setattr("spyolo.run_folder.write_whole", lambda path, content: replace_file(path, full) if "tfevents" in path.name else
                        write_whole(path, content))  # fmt: skip
        with pytest.warns(UserWarning, match=r"tfevents.* cannot be written \(No space left .*; the run goes on without"):
            assert Trainer(config.updated({"epochs": 2}), resume=True, quiet=True).fit()
    assert steps() == [1] and RunFolder(config.out).last.exists()
    trainer = Trainer(config, resume=True, quiet=True)
    assert trainer.fit() and steps() == [1, 2, 3]
    with monkeypatch.context() as no_room:  # ... one that goes on appends to it
        no_room.setattr("builtins.open", full)
        with pytest.raises(InputError, match=r"tfevents.* cannot be written"):
            trainer.folder.board(trainer.history)
    assert steps() == [1, 2, 3] and "Traceback" not in capfd.readouterr().err
    trainer.folder.board(trainer.history)
    assert steps() == [1, 2, 3]


# --- killed at random moments ---

HELPER = """
import json, os, signal, sys, time
from spyolo.config import load_config
from spyolo.files import write_whole
from spyolo.neurons.fused import Compiling
from spyolo.run_folder import RunFolder
from spyolo.trainer import Trainer
from torch.utils.tensorboard import summary  # once, here

Compiling.enabled = False
RunFolder.plot = lambda self, history: write_whole(self.curves, str(len(history)))  # drawing takes longer than training here
print("ready", flush=True)
for line in sys.stdin:  # a fork spares each run the seconds that importing takes
    path, resume, delay, number = json.loads(line)
    child, began = os.fork(), time.monotonic()
    if not child:
        os.dup2(2, 1)  # what the run says is no answer to the test
        os._exit(0 if Trainer(load_config(path), resume=resume, quiet=True).fit() else 3)
    while not (over := os.waitpid(child, os.WNOHANG)[0]) and time.monotonic() - began < delay:
        time.sleep(0.002)
    if not over:
        os.kill(child, number)
        os.waitpid(child, 0)
    print(json.dumps([bool(over), time.monotonic() - began]), flush=True)
"""
KILLS = {signal.SIGKILL: 30, signal.SIGTERM: 6, signal.SIGINT: 6}


@pytest.mark.slow
def test_thirty_kills_at_random_moments(tiny_config, tmp_path):
    """SIGKILL, SIGTERM and Ctrl-C at any moment of a run's life, starting too; each time it resumes, and in the end
    weights, log and TensorBoard are those of a run that nothing happened to."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    changes = SHORT | {"epochs": 4, "eval_every": 2, "save_seconds": 0, "augment": "mosaic", "plain_epochs": 1}  # 4 x 4 batches
    helper = subprocess.Popen([sys.executable, "-c", HELPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert helper.stdout.readline() == "ready\n"

    def run(config: Config, delay: float, number: int) -> tuple[bool, float]:
        """Start or resume, and send the signal after `delay` seconds. Returns whether it was over before, and after how long."""
        path = tmp_path / "config.yaml"
        write_whole(path, config.to_yaml())
        resume = (Path(config.out) / "config.yaml").exists()
        helper.stdin.write(json.dumps([str(path), resume, delay, int(number)]) + "\n")
        helper.stdin.flush()
        return tuple(json.loads(helper.stdout.readline()))

    whole = tiny_config(**changes)
    over, length = run(whole, 600, signal.SIGKILL)
    assert over
    rng, runs, left, places = random.Random(0), 0, [s for s, count in KILLS.items() for _ in range(count)], []
    rng.shuffle(left)
    while left:
        config, over = tiny_config(**changes), False
        while not over:
            over, _ = run(config, rng.uniform(0, length) if left else 600, left[-1] if left else signal.SIGKILL)
            if not over:
                left.pop()
                print(f"{len(places) + 1} signals, {runs} runs complete", flush=True)
                places.append(resumed(config).batch if (Path(config.out) / "config.yaml").exists() else None)
        runs += 1
        assert_same(whole, config)
        board = EventAccumulator(config.out)
        board.Reload()
        assert [e.step for e in board.Scalars("train/loss")] == [1, 2, 3, 4]
        assert not list(Path(config.out).glob(".*"))
    helper.stdin.close()
    helper.wait(60)
    print(f"{len(places)} signals over {runs} runs of {length:.1f} s; resumed at batches {places}")


def assert_same(one: Config, other: Config) -> None:
    """Checkpoints bit for bit, and the logs but for the column that the clock decides."""
    for name in ("last", "best"):
        (a, _), (b, _) = (load_tensors(Path(c.out) / f"{name}.safetensors") for c in (one, other))
        assert a.keys() == b.keys() and [k for k in a if not torch.equal(a[k], b[k])] == []
    logs = []
    for config in (one, other):
        with open(Path(config.out) / "log.csv") as file:
            logs.append([{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)])
    assert logs[0] == logs[1]


# --- the clock ---


def test_a_clock_put_back_costs_no_line_and_doubles_none(tiny_config, adorned, monkeypatch):
    """TensorBoard's files are ordered by the clock in their names."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny_config(**SHORT | {"epochs": 3}, save_seconds=0)
    trainer = Trainer(config, quiet=True)
    inner = trainer.set_rates

    def stop() -> None:
        inner()
        trainer.stopping |= (trainer.epoch, trainer.batch) == (2, 1)

    trainer.set_rates = stop  # type: ignore[method-assign]
    assert not trainer.fit()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 10 * 365 * 86400)
    assert resumed(config).fit()
    monkeypatch.setattr(time, "time", now)
    assert len(list(Path(config.out).glob("events.*"))) == 1
    board = EventAccumulator(config.out)
    board.Reload()
    assert [e.step for e in board.Scalars("train/loss")] == [1, 2, 3]
    assert [line.split(",")[0] for line in (Path(config.out) / "log.csv").read_text().splitlines()] == ["epoch", "1", "2", "3"]


def test_a_name_that_is_no_file_s_is_told(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_whole(tmp_path / ("x" * 300), "x")
