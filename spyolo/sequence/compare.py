"""Several learning rules on one task, on equal terms: the same data, seeds and settings; one table and one figure."""

from __future__ import annotations

import csv
import gc
import io
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from spyolo.errors import InputError
from spyolo.files import replace_file, write_whole
from spyolo.learning import RULES, SequenceRule
from spyolo.learning.memory import MemoryMeter
from spyolo.neurons import DENSE
from spyolo.resuming import holds_this_run
from spyolo.running import choose_device
from spyolo.sequence.config import SequenceConfig
from spyolo.sequence.engine import train_batch
from spyolo.sequence.networks import build_network, rule_for
from spyolo.sequence.objectives import MSE
from spyolo.sequence.questions import parts_of
from spyolo.sequence.tasks.adding import Adding
from spyolo.sequence.trainer import SequenceTrainer
from spyolo.tables import markdown

Row = dict[str, Any]
Plan = list[tuple[str, int, SequenceConfig]]  # name, seed, the run
Results = list[tuple[str, int, SequenceTrainer]]  # the same, finished
CURVES = ("rule", "seed", "epoch", "updates", "seconds", "loss")


def contenders(words: Sequence[str], config: SequenceConfig) -> dict[str, SequenceConfig]:
    """`rule`, `rule:cell` or `rule:cell:parts` -> the config with these. Parts that are not given: the config's for FPTT, else one. Rules
    other than FPTT are judged by their weights, whatever `weights_of` says.

    Raises:
        InputError: no such rule or cell, or the same contender twice.
    """
    found: dict[str, SequenceConfig] = {}
    for word in words:
        rule, cell, parts = (*word.split(":"), "", "")[:3]
        if rule not in RULES or (cell and cell not in DENSE) or word.count(":") > 2:
            raise InputError(f"rules: {word!r} is not rule, rule:cell or rule:cell:parts; rules are {', '.join(RULES)}; "
                             f"cells are {', '.join(DENSE)}")  # fmt: skip
        changes: dict[str, Any] = {"rule": rule, "parts": parts or (config.parts if rule == "fptt" else 1)}
        if rule != "fptt":
            changes["weights_of"] = "w"  # FPTT alone has an average
        contender = config.updated(changes | ({"cell": cell} if cell else {}), f"rules {word}")
        twice = next((other for other, known in found.items() if known == contender), None)
        if twice:
            raise InputError(f"rules: {word} is named twice" if twice == word else f"rules: {word} is the same as {twice}")
        found[word] = contender
    return found


def planned(configs: dict[str, SequenceConfig], seeds: Sequence[int], out: Path) -> Plan:
    """Every contender with every seed, each in a run folder of its own, looked at before any work: a mistake shall cost nothing.

    Raises:
        InputError: a run folder that holds another run than the one it would be taken for (names what differs), or what a run itself
            raises: data, network or rule that do not fit.
    """
    plan: Plan = []
    for name, config in configs.items():
        for seed in seeds:
            run = config.updated({"seed": seed, "out": str(out / f"{name.replace(':', '-')}-{seed}")})
            holds_this_run(run, "give another --out, or the options it was begun with")
            plan.append((name, seed, run))
        SequenceTrainer(run, resume=True)  # built and dropped
    return plan


def train_all(plan: Plan, quiet: bool = False) -> Results | None:
    """Train what is planned. A run that is there is gone on with, or taken as it is.

    Returns:
        The runs, or None where it was told to stop, or all of them together took `max_minutes`: the same command goes on from there.
    """
    found: Results = []
    began = time.monotonic()
    for name, seed, run in plan:
        trainer = SequenceTrainer(run, resume=True, quiet=quiet)
        if not trainer.fit(began):
            return None
        found.append((name, seed, trainer))
        if (trainer.stopping or trainer.out_of_time()) and len(found) < len(plan):  # it is whole, the next is not begun
            return None
    return found


def costs(configs: dict[str, SequenceConfig], lengths: Sequence[int]) -> list[Row]:
    """Seconds and bytes of a training batch of the adding problem against its length T, on the config's device.

    Bytes: the allocator's peak over what was handed out before the batch (weights, optimizer and inputs are there already, what the rule
    keeps of a batch is not).

    Raises:
        InputError: a device that is not there, a length under 2, or a network or rule that the adding problem does not go with.
    """
    if lengths and any(config.conv for config in configs.values()):
        raise InputError("--lengths measures on the adding problem, which shows no pictures: leave it out for networks with conv")
    if any(length < 2 for length in lengths):
        raise InputError(f"--lengths takes 2 steps or more (the adding problem has a mark in each half), got {min(lengths)}")
    rows = []
    for name, config in configs.items():
        for length in lengths:
            run = config.updated({"timesteps": length, "parts": min(config.parts, length)})
            task, device = Adding(length, run.batch, run.seed), choose_device(run.device)
            rule = rule_for(run, build_network(run, task).to(device), MSE)
            batch = task.train_batch(list(range(run.batch)), 0).to(device)
            parts = parts_of(run, length)
            train_batch(rule, MSE, batch, parts=parts, supervise=run.supervise)  # the optimizer's moments come to be
            began = clock(device)
            train_batch(rule, MSE, batch, parts=parts, supervise=run.supervise)
            rows.append({"rule": name, "T": length, "seconds": clock(device) - began, "bytes": peak(rule, batch, parts, run)})
    return rows


def clock(device: torch.device) -> float:
    """Seconds, when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak(rule: SequenceRule, batch: Any, parts: int, config: SequenceConfig) -> int:
    """Allocator's peak of a batch: the least of three looks, for malloc counts what libraries lay up once for themselves as well."""
    looks = []
    for _ in range(3):
        rule = rule_for(config, rule.network, MSE, rule.update.optimizer)  # one without the traces of a batch before
        gc.collect()  # nor may garbage of before be freed while it is watched
        with MemoryMeter(list(rule.network.parameters()), batch.inputs.device) as meter:
            train_batch(rule, MSE, batch, parts=parts, supervise=config.supervise)
            meter.sample()
        looks.append(meter.allocated)
    return min(looks)


def table(runs: Results, measured: list[Row]) -> str:
    """Markdown: a line a contender, mean over the seeds (and each) of the last epoch's figure, then cost against T."""
    metric = runs[0][2].objective.metric
    figure = f"{metric} on the {runs[0][2].config.judge}: mean over seeds (each)"
    columns = ("contender", "neurons", "parts", "parameters", "updates", figure, "minutes a run")
    body = []
    for name in dict.fromkeys(name for name, _, _ in runs):
        own = [t for n, _, t in runs if n == name]
        values = [float(t.history[-1][metric]) for t in own]
        minutes = statistics.mean(sum(float(r["seconds"]) for r in t.history) for t in own) / 60
        count = sum(p.numel() for p in own[0].network.parameters())
        each = ", ".join(f"{v:.4f}" for v in values)
        config = own[0].config
        parts = config.parts or ("all" if config.rule == "fptt" else 1)  # 0: the rule's habit
        told = f"{statistics.mean(values):.4f} ({each})"
        body.append([name, config.cell, str(parts), f"{count:,}", f"{own[0].updates:,}", told, f"{minutes:.1f}"])
    lines = markdown(columns, body)
    if measured:
        lengths = sorted({r["T"] for r in measured})
        body = []
        for name in dict.fromkeys(r["rule"] for r in measured):
            own_rows = {r["T"]: r for r in measured if r["rule"] == name}
            body.append([name, *(f"{own_rows[t]['bytes'] / 2**20:.2f}, {own_rows[t]['seconds']:.2f}" for t in lengths)])
        lines += ["", *markdown(["rule", *(f"T = {t}: MiB, s a batch" for t in lengths)], body)]
    return "\n".join(lines) + "\n"


def curves(runs: Results) -> list[Row]:
    """Every epoch of every run, as the CSV beside the figure holds it."""
    return [{"rule": name, "seed": seed, **row} for name, seed, trainer in runs for row in trainer.history]


def figure(runs: Results, measured: list[Row]) -> Figure:
    """Learning curves (a line a seed, a colour a contender) and, where measured, peak memory and time against T."""
    metric = runs[0][2].objective.metric
    drawn = Figure(figsize=(5 + 4.5 * 2 * bool(measured), 4), layout="constrained")
    axes = drawn.subplots(1, 3 if measured else 1, squeeze=False)[0]
    names = list(dict.fromkeys(name for name, _, _ in runs))
    for name, _, trainer in runs:
        points = [(r["epoch"], r[metric]) for r in trainer.history if metric in r]
        first = not any(line.get_label() == name for line in axes[0].lines)
        axes[0].plot(*zip(*points), color=f"C{names.index(name)}", label=name if first else None, marker="." if len(points) < 30 else None)
    axes[0].set(title=f"{metric} on the {runs[0][2].config.judge}, final weights", xlabel="epoch")
    for ax, key, scale, title in zip(axes[1:], ("bytes", "seconds"), (2**20, 1), ("peak memory of a batch, MiB", "seconds a batch")):
        for i, name in enumerate(dict.fromkeys(r["rule"] for r in measured)):
            own = [(r["T"], r[key] / scale) for r in measured if r["rule"] == name]
            ax.plot(*zip(*own), marker="o", color=f"C{i}", label=name)
        ax.set(title=title, xlabel="T, steps of a sequence", xscale="log", yscale="log")
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.legend(frameon=False)
    return drawn


def write(out: Path, runs: Results, measured: list[Row]) -> None:
    """comparison.md, comparison.png and curves.csv."""
    write_whole(out / "comparison.md", table(runs, measured))
    replace_file(out / "comparison.png", lambda temporary: figure(runs, measured).savefig(temporary, dpi=110, format="png"))
    metric = runs[0][2].objective.metric
    write_whole(out / "curves.csv", as_csv(curves(runs), (*CURVES, metric)))


def write_costs(out: Path, measured: list[Row]) -> None:
    """costs.csv."""
    write_whole(out / "costs.csv", as_csv(measured, ("rule", "T", "seconds", "bytes")))


def as_csv(rows: list[Row], columns: tuple[str, ...]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
