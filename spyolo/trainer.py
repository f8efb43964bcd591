"""A training run from its config to its folder: reads as a story, resumes anywhere.

The state of a run is its position (epoch, batch), the weights and what the rule, the EMA and the optimizer remember; order and
augmentation are functions of (seed, epoch, sample). So a run that was killed goes on from its last checkpoint to the same weights.
Several processes (`peers`) run it together, each on its share of every batch; the first one alone writes (docs/scaling.md).
"""

from __future__ import annotations

import dataclasses
import json
import time
import warnings
from collections import deque
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from spyolo import builders, engine, recordings
from spyolo.boxes import Detections
from spyolo.checkpoint import WeightsInfo, info_to_metadata, initialise, is_of_epoch, other_classes, save_weights
from spyolo.config import Config
from spyolo.data import load_batches
from spyolo.detection import Reading
from spyolo.distributed import ALONE, Peers, synchronised
from spyolo.errors import InputError
from spyolo.evaluation.metrics import evaluate_detections
from spyolo.files import held, shortened, write_whole
from spyolo.health import Watch, counts, told
from spyolo.learning import EMA
from spyolo.neurons import choose_amp, norms
from spyolo.pieces import Piece, pieces_of, this_piece, warn_of_repeats
from spyolo.resuming import check_same_network, check_same_run, measured_otherwise, restore, state_tensors, taking_up
from spyolo.run_folder import Row, RunFolder
from spyolo.running import build_optimizer, choose_device, cosine_rate, evaluated, stop_on_signals
from spyolo.tensors import save_tensors, under

ORDER = ("seed", "batch", "limit", "train", "lanes", "window_ms", "source")  # decide which pictures an epoch shows when
MEASURE = (  # decide what a score is of: one of other pictures, weights or ways of reading them is no rival
    "val", "val_limit", "eval_limit", "weights_of", "size", "timesteps", "recalibrate", "amp", "confidence", "nms_iou", "max_detections",
    "vote_iou", "window_ms", "source", "freeze_norms",
)  # fmt: skip
METERS = ("loss", "box", "objectness", "classes", "firing_rate")


class Trainer:
    """One run. `fit()` trains to the end (or to `max_minutes`, or to a signal) and returns whether the run is complete.

    Args:
        config: the run.
        resume: go on from the run folder's last checkpoint, or from the start if it was killed before its first.
        quiet: no progress bars.
        peers: the processes that train together.

    Raises:
        InputError: a run folder that already holds a run (without `resume`), data or weights that do not fit.
    """

    def __init__(self, config: Config, *, resume: bool = False, quiet: bool = False, peers: Peers = ALONE) -> None:
        self.config, self.quiet, self.peers = config, quiet or not peers.first, peers
        self.folder = RunFolder(config.out)
        self.found = self.folder.stamp()  # before it is read: what is saved here from now on is another's. Of use on the first process only
        self.device = choose_device(config.device, peers)
        self.amp = peers.first_does(lambda: choose_amp(config.amp, self.device))
        holds = peers.first_does(lambda: self.folder.has_checkpoint)
        resume = resume and holds
        if not resume and holds:
            peers.refuse(f"{self.folder.path} already holds a run; --resume it, or give another --out")
        self.classes = builders.class_names(config)
        self.workers = builders.choose_workers(config.workers, peers)
        self.train_set = builders.training_set(config, builders.training_pictures(config))
        self.val_set = builders.validation_set(config, config.eval_limit)
        if not len(self.train_set):
            raise InputError(f"{config.data}: the splits {config.train} hold no picture to train on")
        builders.check_batch(config, len(self.train_set), peers)
        self.detector = builders.detector(config, len(self.classes)).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.sync_norm and peers.world > 1:
            self.detector = synchronised(self.detector, self.device)
        self.warm = bool(config.init) and not resume
        self.untouched = initialise(self.detector, config.init) if self.warm else []
        peers.copy_first_(list(self.detector.state_dict().values()))
        self.pieces: list[Piece] = pieces_of(config.init) if self.warm else []
        others = other_classes(config.init, self.classes) if self.warm else ""  # on each process: a file that is refused is by all
        if peers.first:
            warn_of_repeats(config, self.pieces)
        if peers.first and others:
            warnings.warn(others, stacklevel=2)
        self.loss = builders.loss(config)
        self.optimizer = build_optimizer(config, self.detector)
        self.rule = builders.rule(config, self.optimizer)
        self.ema = EMA(self.rule.weights, config.ema)
        still = not self.detector.spiking and config.source != "events"
        self.timesteps = 1 if still else config.timesteps  # the ANN twin's steps on a picture would all be the same
        self.plan = builders.steps_plan(config, self.timesteps)
        self.reading = Reading(config.confidence, config.nms_iou, config.vote_iou, config.max_detections)
        self.epoch, self.batch = 0, 0
        self.per_epoch = builders.epoch_order(config, self.train_set.voc, len(self.train_set), 0, peers=peers).per_epoch
        self.history: list[Row] = []
        self.best = -1.0  # on the first process, which judges
        self.measure_anew = False  # since the last evaluation, something else is to be measured
        # Sums over the epoch, a row (an entry) for each process, of which each fills its own: so they are resumed to the bit.
        self.meters = torch.zeros(peers.world, len(METERS), dtype=torch.float64, device=self.device)
        self.rates: dict[str, Tensor] = {}  # each layer's firing rate, [world]
        self.skipped = 0  # batches of the epoch left out
        self.watch = Watch(self.detector, self.rule.weights, skip=config.nonfinite == "skip", peers=peers, memory=self.remembered())
        self.recent: deque[list[str]] = deque(maxlen=config.check_every)  # ids of the batches since the last look
        self.stopping = False  # a signal reached this process, at any moment
        self.stopped = False  # all processes have agreed to stop: they go by this alone, or one would leave and the others wait for it
        self.seconds = 0.0
        if resume:
            self.load()

    # ---- the story -------------------------------------------------------------------------------------------------------------------

    def fit(self) -> bool:
        """Train until done or told to stop; every checkpoint along the way is whole. Returns True when the run is complete."""
        self.started = self.saved = time.monotonic()
        with ExitStack() as stack:
            self.peers.first_does(lambda: self.take_folder(stack))
            stack.enter_context(stop_on_signals(self))
            while self.epoch < self.config.epochs and not self.stopped:
                self.run_epoch()
                if self.batch < self.per_epoch:
                    break
                self.end_epoch()
                self.stopped = self.stopped or self.peers.agree([self.stopping], self.device)[0]
            if self.epoch >= self.config.epochs and not self.stopped:
                self.end_early()
        return self.epoch >= self.config.epochs

    def end_early(self) -> None:
        """Resumed with fewer epochs than it was meant to have, or with another measure, a run may end at an epoch that was not evaluated,
        or not so: evaluate it now."""
        final = self.peers.first_does(lambda: is_of_epoch(self.folder.final, self.epoch))
        if self.measure_anew or not final:
            self.history[-1] |= self.scores()
            if self.peers.first:
                self.folder.record(self.history)
            self.save()

    def take_folder(self, stack: ExitStack) -> None:
        """Hold the run folder until the stack is closed, and write the config into it."""
        stack.enter_context(held(self.folder.path))
        if self.folder.stamp() != self.found:
            raise InputError(f"{self.folder.path}: another process has trained here meanwhile; --resume it again")
        self.folder.sweep()
        write_whole(self.folder.config, self.config.to_yaml())

    def run_epoch(self) -> None:
        """The rest of the present epoch's batches, saving now and then."""
        began = time.monotonic()
        title = f"epoch {self.epoch + 1}/{self.config.epochs}"
        bar = tqdm(total=self.per_epoch, initial=self.batch, desc=title, disable=self.quiet, leave=False)
        logs = engine.train_one_epoch(
            self.detector, self.loss, self.rule, self.batches(), self.plan, device=self.device, amp=self.amp,
            penalty=engine.Penalty(self.config.rate_weight, self.config.rate_low, self.config.rate_high),
            before_batch=self.set_rates, after_update=self.ema.update, watch=self.watch,
            accumulate=self.config.accumulate, freeze_norms=self.config.freeze_norms, peers=self.peers,
        )  # fmt: skip
        for batch, log in logs:
            self.batch += 1
            self.recent.append(batch.ids)
            self.gather(log)
            bar.update()
            late = time.monotonic() - self.saved > self.config.save_seconds
            stop, late = self.peers.agree([self.stopping or self.out_of_time(), late], self.device)
            due = self.batch < self.per_epoch and (stop or late)
            if due or self.batch % self.config.check_every == 0 or self.batch == self.per_epoch:
                self.check_and_show(bar)
            if due:
                self.seconds, began = self.seconds + time.monotonic() - began, time.monotonic()
                self.save()
            if stop:
                self.stopped = True
                break
        bar.close()
        self.seconds += time.monotonic() - began

    def end_epoch(self) -> None:
        """Log the epoch, evaluate where due, save."""
        self.rule.end_epoch()
        learned = max(1, self.per_epoch - self.skipped)
        means = (self.of_all(self.meters).sum(0) / learned).tolist()
        rates = {name: float(self.of_all(total).sum()) / learned for name, total in self.rates.items()}
        self.epoch, self.batch = self.epoch + 1, 0
        row: Row = {"epoch": self.epoch, "updates": self.ema.updates, "lr": self.optimizer.param_groups[0]["lr"]}
        row |= dict(zip(METERS, means))
        row |= {"seconds": self.seconds, "skipped": self.skipped, **counts(rates)}
        if self.epoch % self.config.eval_every == 0 or self.epoch == self.config.epochs:
            row |= self.scores()
        self.history.append(row)
        self.meters.zero_()
        self.rates, self.skipped, self.seconds = {}, 0, 0.0
        if self.peers.first:
            self.folder.record(self.history)
        self.save()  # last: killed before it, the epoch's end is done again and writes the same; killed after it, nothing is missing
        if not self.quiet:
            scores = f"  mAP@0.5 {row['voc10_ap50']:.3f}" if "voc10_ap50" in row else ""
            rate = f"  firing rate {row['firing_rate']:.3f}" if self.detector.spiking else ""
            left_out = f"  {row['skipped']} batch(es) left out" if row["skipped"] else ""
            tqdm.write(f"epoch {self.epoch:>3}  loss {row['loss']:.3f}{rate}  {row['seconds']:.0f} s{scores}{left_out}")
        if self.peers.first and (unwell := told(rates)):
            tqdm.write(f"epoch {self.epoch:>3}  {unwell}")

    def scores(self) -> Row:
        """An evaluation's entries of the log."""
        metrics, self.measure_anew = self.evaluate(), False
        return {k: metrics[k] for k in ("voc10_ap50", "voc07_ap50", "voc10_ap50_95") if metrics[k] is not None}

    def evaluate(self) -> dict[str, Any]:
        """Measure the chosen weights, with norm statistics of their own; keep them as best.safetensors if they are."""
        with self.evaluated_weights():
            found = self.detect()  # each process its share of the pictures; the first one then has them all
            return self.peers.first_does(lambda: self.judge(found))

    def judge(self, found: dict[str, Detections]) -> dict[str, Any]:
        """Metrics of what the detector, as it is, has found; keep it if it is the best yet, or the run's last."""
        truth = {name: self.val_set.voc.objects(i) for i, name in enumerate(self.val_set.voc.ids) if name in found}
        metrics = evaluate_detections(truth, found, self.classes)
        score = metrics["voc10_ap50"] or 0.0
        keys = ("voc10_ap50", "voc07_ap50", "voc10_ap50_95", "coco_ap")
        info = self.info({k: metrics[k] for k in keys if k in metrics} | {"split": self.config.val, "pictures": len(truth)})
        if score > self.best:
            self.best = score
            save_weights(self.folder.best, self.detector, info)
        if self.epoch >= self.config.epochs:
            save_weights(self.folder.final, self.detector, info)
        return metrics

    # ---- its parts -------------------------------------------------------------------------------------------------------------------

    def batches(self) -> Any:
        """What is left of this epoch."""
        if self.epoch >= self.config.epochs - self.config.plain_epochs and self.train_set.preset == "mosaic":
            self.train_set = builders.training_set(self.config, self.train_set.voc, "train")
        self.train_set.set_epoch(self.epoch)
        order = builders.epoch_order(self.config, self.train_set.voc, len(self.train_set), self.epoch, self.batch, peers=self.peers)
        return load_batches(self.train_set, self.workers, batch_sampler=order, pin_memory=self.device.type == "cuda")

    def set_rates(self) -> None:
        """Linear warm-up, then a cosine down to `lr_final` of the peak: a function of the position alone."""
        c = self.config
        done = (self.epoch + self.batch / self.per_epoch) / c.epochs
        ramp = min(1.0, (self.epoch * self.per_epoch + self.batch + 1) / max(1.0, c.warmup * self.per_epoch))
        for group in self.optimizer.param_groups:
            group["lr"] = ramp * cosine_rate(c, done)

    def gather(self, log: engine.StepLog | None) -> None:
        """Add a batch to the epoch's means; on the device."""
        if log is None:
            self.skipped += 1
            return
        rank = self.peers.rank
        self.meters[rank] += torch.stack([log.loss, log.box, log.objectness, log.classes, log.rate]).to(self.meters)
        for name, rate in log.rates.items():
            self.rates.setdefault(name, rate.new_zeros(self.peers.world))[rank] += rate

    def of_all(self, rows: Tensor) -> Tensor:
        """The sums of all processes, each filled in by its own."""
        return self.peers.sum_(rows.clone())

    def check_and_show(self, bar: Any) -> None:
        """The one place that reads training values back from the device. Comes before every save, so that a checkpoint is always good."""
        trouble = self.watch.check()
        if self.peers.agree([trouble is not None], self.device)[0]:
            ago, what = trouble or (0, "values of another process are not finite")
            voc, ids = self.train_set.voc, self.recent[-1 - ago]
            files = ", ".join(voc.image_path(voc.index(name)).name if self.config.source == "voc" else name for name in ids)
            self.peers.refuse_all(
                f"epoch {self.epoch + 1}, batch {self.batch - ago} ({files}): {what}; {self.folder.last_good()}; a lower --lr, a lower "
                "--clip or --amp none usually mends it; --nonfinite skip leaves such batches out",
                told=trouble is not None,
            )
        learned = max(1, self.batch - self.skipped)
        loss, *_, rate = (self.of_all(self.meters).sum(0) / learned).tolist()
        bar.set_postfix(loss=f"{loss:.3f}", rate=f"{rate:.3f}")

    def out_of_time(self) -> bool:
        return 0 < self.config.max_minutes * 60 < time.monotonic() - self.started

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """Inside, the detector holds the weights that are evaluated, with norm statistics taken for them over the T in use."""
        ema = self.ema.average if self.config.ema else self.rule.weights  # form `reference` moves these after the last update
        chosen = {"w": self.rule.weights, "average": self.rule.average, "ema": ema}[self.config.weights_of]
        return evaluated(self.detector, self.rule.weights, chosen, self.retake_statistics)

    def retake_statistics(self) -> None:
        """Norm statistics for the weights that are in."""
        if self.config.recalibrate and norms(self.detector) and not self.config.freeze_norms:
            batches = builders.calibration_batches(self.config, self.workers, self.train_set.voc, self.peers)
            engine.recalibrate(self.detector, batches, self.timesteps, device=self.device, amp=self.amp)
            self.peers.mean_statistics(self.detector)

    @property
    def showing(self) -> dict[str, Any]:
        """How an evaluation shows pictures and reads boxes, as `recordings.detect` takes it."""
        together = self.config.batch // (self.peers.world * self.config.accumulate)  # as many as a process trains on at once, so they fit
        return {
            "reading": self.reading, "batch_size": together, "device": self.device, "amp": self.amp, "workers": self.workers,
            "progress": not self.quiet,
        }  # fmt: skip

    def detect(self) -> dict[str, Detections]:
        return recordings.detect(self.detector, self.val_set, (self.timesteps,), **self.showing, peers=self.peers)[self.timesteps]

    def info(self, metrics: dict[str, Any]) -> WeightsInfo:
        seconds = self.seconds + sum(float(row["seconds"]) for row in self.history)
        piece = this_piece(
            self.config, self.pieces, epochs=self.epoch + self.batch / self.per_epoch, seconds=seconds, device=self.device.type,
            amp=self.amp, pictures=len(self.train_set),
        )  # fmt: skip
        notes = {"epoch": self.epoch, "weights_of": self.config.weights_of, "train": self.config.train, "pictures": len(self.train_set)}
        notes["pieces"] = [*self.pieces, piece | {k: metrics[k] for k in ("voc10_ap50",) if k in metrics}]
        if self.config.source == "events":
            notes["window_ms"] = self.config.window_ms
        c = self.config
        return WeightsInfo(self.detector.spec, self.classes, c.size, self.timesteps, metrics, notes, c.vote_iou, c.nms_iou)

    # ---- checkpoints -----------------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """The whole state of the run, atomically; all processes have the same, which is checked first."""
        tensors = state_tensors(self.detector, self.rule.weights, self.remembered(), self.optimizer)
        self.peers.check_same(tensors)
        tensors |= {"meters": self.of_all(self.meters)} | {f"rates.{name}": self.of_all(rate) for name, rate in self.rates.items()}
        self.saved = time.monotonic()
        if not self.peers.first:
            return
        position = {
            "epoch": self.epoch, "batch": self.batch, "per_epoch": self.per_epoch, "ema_updates": self.ema.updates, "best": self.best,
            "seconds": self.seconds, "skipped": self.skipped, "world": self.peers.world,
        }  # fmt: skip
        metadata = info_to_metadata(self.info({})) | {"position": position, "history": self.history, "config": self.config.to_dict()}
        save_tensors(self.folder.last, tensors, metadata, keep=self.folder.previous)

    def remembered(self) -> dict[str, list[Tensor]]:
        """What is kept per weight besides the weight: the rule's tensors and the EMA."""
        return {**self.rule.state_dict(), "ema": self.ema.average}

    def load(self) -> None:
        """Take up the run where its last checkpoint left it."""
        tensors, metadata = self.peers.first_does(self.folder.load_last)
        order = (*ORDER, "timesteps") if self.config.source == "events" else ORDER  # how long clips are decides which there are
        with taking_up(self.folder.last):
            position, history, kept = (json.loads(metadata[k]) for k in ("position", "history", "config"))
            check_same_run(
                self.folder.last, position, kept, self.config, self.per_epoch,
                anew="to go on with another, start a new run with --init", order=order,
            )  # fmt: skip
            self.check_classes(tuple(json.loads(metadata["classes"])))
            check_same_network(self.folder.last, json.loads(metadata["spec"]), dataclasses.asdict(self.detector.spec))
            self.pieces = json.loads(metadata["notes"]).get("pieces", [])[:-1]  # the last one is this run's own
            restore(tensors, self.detector, self.rule.weights, self.remembered(), self.optimizer)
            world = int(position.get("world", 1))
            self.meters.copy_(self.peers.own_rows(tensors["meters"].reshape(world, -1)))
            rates = under("rates.", tensors).items()
            self.rates = {name: self.peers.own_rows(v.reshape(world, 1)).flatten().to(self.device) for name, v in rates}
            self.epoch, self.batch, self.ema.updates = (int(position[k]) for k in ("epoch", "batch", "ema_updates"))
            self.best, self.seconds, self.skipped = float(position["best"]), float(position["seconds"]), int(position.get("skipped", 0))
            self.history = [dict(row) for row in history]
            if measured_otherwise(kept, self.config, MEASURE, self.folder.best, tell=self.peers.first):
                self.best, self.measure_anew = -1.0, True
            if world != self.peers.world and self.peers.first:
                warnings.warn(
                    f"{self.folder.last} was written by {world} process(es) and goes on with {self.peers.world}: the same batches of "
                    f"{self.config.batch} pictures, shared out anew. Sums are rounded otherwise, so the weights will not be the same bits",
                    stacklevel=3,
                )

    def check_classes(self, before: tuple[str, ...]) -> None:
        """Raises InputError where the checkpoint's classes are others, or in another order: a label would mean another thing."""
        if before != self.classes:
            raise InputError(
                f"{self.folder.last} is of the classes {shortened(list(before))}, not {shortened(list(self.classes))}; resume it with the "
                "former, or start a new run with --init"
            )
