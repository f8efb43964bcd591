"""A run on sequences from its config to its folder. Written like the detector's trainer and of the same parts: run folder, checkpoints,
order of samples, signals, optimizer.

The state of a run is its position, the weights, what rule and optimizer remember, and (text) the neurons' state: a run that was killed
goes on from its last checkpoint to the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from spyolo.errors import InputError
from spyolo.files import held, shortened, write_whole
from spyolo.neurons import choose_amp, detach, leaves, map_state, norms
from spyolo.resuming import changed, check_same_run, measured_otherwise, remembered, restore, state_tensors, taking_up, weight_names
from spyolo.run_folder import Layout, Row, RunFolder
from spyolo.running import EpochOrder, choose_device, cosine_rate, evaluated, stop_on_signals
from spyolo.sequence import engine
from spyolo.sequence.batch import Batch
from spyolo.sequence.config import INITS, SequenceConfig
from spyolo.sequence.networks import SPIKING, build_network, rule_for
from spyolo.sequence.pieces import Piece, pieces_in, this_piece
from spyolo.sequence.questions import auxiliary_loss, check_questions, parts_of
from spyolo.sequence.saved import BEHAVIOUR, check_sizes, description, initialise, sizes_from
from spyolo.sequence.tasks import build_task
from spyolo.tensors import save_tensors, under

START = ("init", "gate_bias", "slowest", "test_speakers", "judge", *BEHAVIOUR)  # stay: first weights, what is held out, what tensors do
ORDER = ("seed", "batch", "limit", "timesteps")  # decide which sequences an epoch shows when
MEASURE = (  # decide what a figure is of (drawn tests: of the seed)
    "test_limit", "timesteps", "first_chord", "frames_by", "shrink", "seed", "weights_of", "predict",
)  # fmt: skip


class SequenceTrainer:
    """One run. `fit()` trains to the end (or to `max_minutes`, or to a signal) and returns whether the run is complete.

    Args:
        config: the run.
        resume: go on from the run folder's last checkpoint, or from the start if it was killed before its first.
        quiet: no progress bars.

    Raises:
        InputError: a run folder that already holds a run (without `resume`), data, network or rule that do not fit.
    """

    def __init__(self, config: SequenceConfig, *, resume: bool = False, quiet: bool = False) -> None:
        self.config, self.quiet = config, quiet
        self.task = build_task(config)
        self.objective = self.task.objective
        self.folder = RunFolder(config.out, layout(self.objective.metric, config.judge))
        if self.folder.has_checkpoint and not resume:
            raise InputError(f"{self.folder.path} already holds a run; --resume it, or give another --out")
        self.device = choose_device(config.device)
        choose_amp(config.amp, self.device)  # warns where bf16 is slow
        self.network = build_network(config, self.task)
        self.pieces: list[Piece] = []  # of the weights that this run started from
        if config.init not in INITS and not (resume and self.folder.has_checkpoint):  # before the rule: its average starts from these
            self.pieces = pieces_in(initialise(self.network, config, self.task.sizes, held_out=self.task.held_out))
        self.network.to(self.device)
        parts = parts_of(config, self.task.timesteps) if self.task.timesteps else 0
        self.rule = rule_for(config, self.network, self.objective)
        self.optimizer = self.rule.update.optimizer
        check_questions(config, self.task)
        self.rule.check_batch(config.batch)
        auxiliary = auxiliary_loss(config, self.task, parts)
        self.auxiliary = None if auxiliary is None else auxiliary.to(self.device)
        self.epoch, self.batch = 0, 0
        self.per_epoch = EpochOrder(self.task.samples, config.batch, 0, 0).per_epoch
        self.history: list[Row] = []
        self.best: float | None = None
        self.meters = torch.zeros(2, dtype=torch.float64)
        self.updates, self.seconds, self.stopping = 0, 0.0, False
        self.state: Any = None  # of the neurons, where batches go on from one another
        self.rule.after_update = self.count
        self.found = self.folder.stamp()
        if resume and self.folder.has_checkpoint:
            self.load()

    # ---- the story -------------------------------------------------------------------------------------------------------------------

    def fit(self, started: float | None = None) -> bool:
        """Train until done or told to stop. Returns True when the run is complete.

        `started`: when `max_minutes` began to count, by `time.monotonic`; None: now.
        """
        self.saved = time.monotonic()
        self.started = self.saved if started is None else started
        with held(self.folder.path), stop_on_signals(self):
            if self.folder.stamp() != self.found:
                raise InputError(f"{self.folder.path}: another process has trained here meanwhile; --resume it again")
            self.folder.sweep()
            write_whole(self.folder.config, self.config.to_yaml())
            while self.epoch < self.config.epochs and not self.stopping:
                self.run_epoch()
                if self.batch < self.per_epoch:
                    break
                self.end_epoch()
            if self.epoch >= self.config.epochs and (self.objective.metric not in self.history[-1] or self.best is None):
                self.history[-1] |= self.evaluate()  # it was stopped after an epoch without, and resumed with fewer epochs or another test
                self.folder.record(self.history)
                self.save()
        return self.epoch >= self.config.epochs

    def run_epoch(self) -> None:
        """The rest of the present epoch's batches, saving now and then."""
        began = time.monotonic()
        title = f"epoch {self.epoch + 1}/{self.config.epochs}"
        bar = tqdm(total=self.per_epoch, initial=self.batch, desc=title, disable=self.quiet, leave=False)
        self.network.train()
        if self.auxiliary is not None:
            self.auxiliary.epoch = self.epoch
        for batch in self.batches():
            self.set_rate()
            log = self.learn(batch)
            self.batch += 1
            self.meters += torch.stack([log.loss, log.rate]).double().cpu()
            stop = self.stopping or self.out_of_time()
            due = stop or self.batch == self.per_epoch or time.monotonic() - self.saved > self.config.save_seconds
            self.check_and_show(bar, whole=due)
            if due and self.batch < self.per_epoch:
                self.seconds, began = self.seconds + time.monotonic() - began, time.monotonic()
                self.save()
            if stop:
                self.stopping = True
                break
        bar.close()
        self.seconds += time.monotonic() - began

    def learn(self, batch: Batch) -> engine.Log:
        """One batch; the neurons' state is kept for the next one where it goes on from there."""
        log = engine.train_batch(
            self.rule, self.objective, batch, parts=parts_of(self.config, batch.timesteps), supervise=self.config.supervise,
            auxiliary=self.auxiliary, state=None if batch.fresh else self.state,
        )  # fmt: skip
        self.state = detach(self.rule.state) if self.task.streams else None
        return log

    def end_epoch(self) -> None:
        """Log the epoch, evaluate where due, save."""
        self.rule.end_epoch()
        loss, rate = (self.meters / self.per_epoch).tolist()
        self.epoch, self.batch = self.epoch + 1, 0
        row: Row = {"epoch": self.epoch, "updates": self.updates, "lr": self.optimizer.param_groups[0]["lr"], "loss": loss}
        if self.config.cell in SPIKING:
            row["firing_rate"] = rate
        row["seconds"] = self.seconds
        if self.epoch % self.config.eval_every == 0 or self.epoch == self.config.epochs:
            row |= self.evaluate()
        self.history.append(row)
        self.meters.zero_()
        self.seconds, self.state = 0.0, None
        self.folder.record(self.history)
        self.save()  # last: killed before it, the epoch's end is done again and writes the same
        if not self.quiet:
            metric = self.objective.metric
            told = f"  {metric} {row[metric]:.4f}" if metric in row else ""
            tqdm.write(f"epoch {self.epoch:>3}  loss {loss:.4f}{told}  {row['seconds']:.0f} s")

    def evaluate(self) -> Row:
        """Judge the chosen weights on the test, or the validation part; keep them as best.safetensors if they are."""
        metric = self.objective.metric
        with self.evaluated_weights():
            size = self.config.eval_batch or self.config.batch
            found = engine.evaluate(
                self.network, self.objective, self.task.test_batches(size), predict=self.config.predict,
                device=self.device,
            )  # fmt: skip
            if self.objective.better(found[metric], self.best):
                self.best = found[metric]
                save_tensors(self.folder.best, self.network.state_dict(), self.told(found))
        if self.config.cell not in SPIKING:
            found.pop("test_rate")
        return dict(found)

    # ---- its parts -------------------------------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """What is left of this epoch."""
        order = EpochOrder(self.task.samples, self.config.batch, self.config.seed, self.epoch, self.batch)
        size = self.config.batch
        for i, indices in enumerate(order, self.batch):
            chosen = list(range(i * size, (i + 1) * size)) if self.task.streams else indices
            yield self.task.train_batch(chosen, self.epoch).to(self.device)

    def count(self) -> None:
        self.updates += 1

    def set_rate(self) -> None:
        """A cosine from `lr` down to `lr_final` of it: a function of the position alone."""
        c = self.config
        done = (self.epoch + self.batch / self.per_epoch) / c.epochs
        for group in self.optimizer.param_groups:
            group["lr"] = cosine_rate(c, done)

    def check_and_show(self, bar: Any, *, whole: bool) -> None:
        """Comes before every save, so that a checkpoint is always good. `whole`: what the update keeps is looked at too, as a save is due
        (form `paper` can spoil it in the last part, and the weights with it only in the next)."""
        loss = float(self.meters[0]) / self.batch
        memory = self.memory() if whole else {}
        bad = "the loss" if not math.isfinite(loss) else engine.not_finite(self.network, self.rule.state, memory)
        if bad:
            raise InputError(
                f"{bad} is not finite in epoch {self.epoch + 1} near batch {self.batch}; {self.folder.last_good()}; a lower --lr or a "
                "lower --clip usually mends it"
            )
        bar.update()
        bar.set_postfix(loss=f"{loss:.4f}")

    def memory(self) -> dict[str, Tensor]:
        """What the update keeps (FPTT: average and lambda), by the names of its weights."""
        update = self.rule.update
        kept = remembered(update.state_dict(), weight_names(self.network, update.weights))
        return {f"the {kind} of {name}": v for kind, name, v in kept}

    def out_of_time(self) -> bool:
        return 0 < self.config.max_minutes * 60 < time.monotonic() - self.started

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """Inside, the network holds the weights that are evaluated, with norm statistics of their own where asked for."""
        update = self.rule.update
        chosen = update.average if self.config.weights_of == "average" else update.weights
        return evaluated(self.network, update.weights, chosen, self.retake_statistics)

    def retake_statistics(self) -> None:
        """Norm statistics for an average, which has none: those at hand belong to W. Form `reference` makes W its average."""
        c = self.config
        averaged = c.weights_of == "average" or (c.rule == "fptt" and c.form == "reference")
        if averaged and c.recalibrate and norms(self.network):
            order = EpochOrder(self.task.samples, self.config.batch, self.config.seed, 0, most=self.config.recalibrate)
            engine.recalibrate(self.network, (self.task.train_batch(i, 0).to(self.device) for i in order))

    def told(self, metrics: dict[str, float]) -> dict[str, Any]:
        seconds = self.seconds + sum(row["seconds"] for row in self.history)
        piece = this_piece(
            self.config, epochs=self.epoch + self.batch / self.per_epoch, updates=self.updates, seconds=seconds, device=self.device.type
        )
        score = {k: v for k, v in metrics.items() if k == self.objective.metric}
        pieces = [*self.pieces, piece | score]
        notes = {"epoch": self.epoch, "weights_of": self.config.weights_of, "metrics": metrics, "pieces": pieces}
        return description(self.config, self.task.sizes, notes)

    # ---- checkpoints -----------------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """The whole state of the run, atomically."""
        update = self.rule.update
        tensors = state_tensors(self.network, update.weights, update.state_dict(), self.optimizer) | {"meters": self.meters}
        tensors |= {f"rule.{k}": v for k, v in self.rule_state().items()}
        if self.auxiliary is not None:
            tensors |= {f"auxiliary.{k}": v for k, v in self.auxiliary.state_dict().items()}
        tensors |= {f"neurons.{i}": v for i, v in enumerate(leaves(self.state))}
        position = {
            "epoch": self.epoch, "batch": self.batch, "per_epoch": self.per_epoch, "updates": self.updates, "best": self.best,
            "seconds": self.seconds,
        }  # fmt: skip
        save_tensors(self.folder.last, tensors, self.told({}) | {"position": position, "history": self.history}, keep=self.folder.previous)
        self.saved = time.monotonic()

    def rule_state(self) -> dict[str, Tensor]:
        """What a rule keeps besides its update (e-prop's feedback weights), lists of tensors as `name.0, name.1, ...`."""
        flat: dict[str, Tensor] = {}
        for name, value in self.rule.state_dict().items():
            flat |= {name: value} if isinstance(value, Tensor) else {f"{name}.{i}": v for i, v in enumerate(value)}
        return flat

    def load_rule(self, kept: dict[str, Tensor]) -> None:
        """Inverse of `rule_state`."""
        now = self.rule.state_dict()
        self.rule.load_state_dict(
            {k: kept[k] if isinstance(v, Tensor) else [kept[f"{k}.{i}"].to(self.device) for i in range(len(v))] for k, v in now.items()}
        )

    def load(self) -> None:
        """Take up the run where its last checkpoint left it."""
        tensors, metadata = self.folder.load_last()
        with taking_up(self.folder.last):
            position, kept = json.loads(metadata["position"]), json.loads(metadata["config"])
            if changed(kept, self.config, ["task"]):
                raise InputError(f"{self.folder.last} is of task {kept['dataset']['task']}; to learn another, start a new run")
            began = changed(kept, self.config, self.start_of(kept["learning"]))
            if began:
                was = kept[self.config.fields()[began[0]][0]][began[0]]
                raise InputError(f"{self.folder.last} began with {began[0]} {shortened(was)}, which stays; for another, start a new run")
            if "sizes" in metadata:
                check_sizes(self.folder.last, sizes_from(json.loads(metadata["sizes"])), self.task.sizes)
            self.pieces = pieces_in(json.loads(metadata.get("notes", "{}")))[:-1]
            check_same_run(
                self.folder.last, position, kept, self.config, self.per_epoch, anew="to learn with another, start a new run", order=ORDER
            )
            update = self.rule.update
            restore(tensors, self.network, update.weights, update.state_dict(), self.optimizer)
            self.load_rule(under("rule.", tensors))
            if self.auxiliary is not None:
                self.auxiliary.load_state_dict(under("auxiliary.", tensors))
            self.meters.copy_(tensors["meters"])
            self.load_neurons(under("neurons.", tensors))
            self.epoch, self.batch, self.updates, self.best, self.seconds = (
                position[k] for k in ("epoch", "batch", "updates", "best", "seconds")
            )
            self.history = json.loads(metadata["history"])
            if measured_otherwise(kept, self.config, MEASURE, self.folder.best):
                self.best = None

    def start_of(self, kept: dict[str, Any]) -> list[str]:
        """Names of the fields that a run keeps, by what it was begun with: a checkpoint has no state for others. `kept`: its learning."""
        names = [*START]
        if self.task.held_out:
            names.append("limit")
        if "eprop" in (kept["rule"], self.config.rule):
            names.append("feedback")
        if "auxiliary" in (kept["supervise"], self.config.supervise):
            names += ["supervise", "parts"]
        return names

    def load_neurons(self, kept: dict[str, Tensor]) -> None:
        """The neurons' state in the middle of a text: its tensors put into the tree that one step makes."""
        if not kept:
            return
        with torch.no_grad():
            first = self.task.train_batch(list(range(self.config.batch)), 0).to(self.device)
            _, tree = self.network(engine.as_weights(self.network, first.input(0)), None)
        values = iter([kept[str(i)].to(self.device) for i in range(len(kept))])
        self.state = map_state(lambda _: next(values), tree)


def layout(metric: str, judge: str) -> Layout:
    """What a run on sequences logs."""
    return Layout(
        ("epoch", "updates", "lr", "loss", "firing_rate", "seconds", metric, "test_loss", "test_rate"),
        (metric, "test_loss", "test_rate"),
        ((("loss",), "training loss"), ((metric,), f"{metric} on the {judge}"), (("firing_rate", "test_rate"), "firing rate"),
         (("lr",), "learning rate")),
    )  # fmt: skip


def describe(trainer: SequenceTrainer) -> str:
    """What is about to run, in two lines."""
    c, task = trainer.config, trainer.task
    count = sum(p.numel() for p in trainer.network.parameters())
    steps = f"{task.timesteps} steps" if task.timesteps else "steps as they come"
    return (
        f"{c.task}: {task.samples} training sequences of {steps}, judged by {task.objective.metric} on the {c.judge}\n"
        f"{c.cell} network of {count:,} parameters, {c.rule}, {c.optimizer}, seed {c.seed}, on {trainer.device}"
    )
