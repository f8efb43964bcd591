"""From a config to the objects of a run: data, detector, loss, optimizer, rule. Each function is one decision."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch

from spyolo.config import Config
from spyolo.data import VOC_CLASSES, AugmentSettings, Batches, DetectionDataset, VOCSet, load_batches
from spyolo.data.events_boxes import GEN1_CLASSES
from spyolo.data.events_clips import EventClips, EventPlayback
from spyolo.data.events_set import EventSet
from spyolo.data.shard_fetching import ShardStore
from spyolo.data.shards import ShardSet
from spyolo.detection import DetectionLoss, SpikingYOLO, build_detector
from spyolo.distributed import ALONE, Peers
from spyolo.learning import BPTT, FPTT, Rule, split_steps
from spyolo.running import EpochOrder
from spyolo.shard_order import ShardOrder


def choose_workers(asked: int, peers: Peers = ALONE) -> int:
    """-1: all cores but two, shared among this machine's processes, at most 8 each. On two cores each step would wait for the training
    thread whose core a loader holds: there the trainer loads its pictures itself."""
    return max(0, min(8, ((os.cpu_count() or 1) - 2) // peers.local_world)) if asked < 0 else asked


def check_batch(config: Config, pictures: int, peers: Peers) -> None:
    """See that each process gets an equal share of each batch, in equal pieces: else their gradients could not simply be added.

    Raises:
        InputError: it does not divide, or there are too few pictures for one batch.
    """
    shares = peers.world * config.accumulate
    if config.batch % shares:
        pieces = f", each in {config.accumulate} pieces (accumulate)" if config.accumulate > 1 else ""
        near = max(1, round(config.batch / shares)) * shares
        peers.refuse(
            f"a batch of {config.batch} pictures cannot be shared equally by {peers.world} process(es){pieces}: "
            f"make --batch a multiple of {shares}, such as {near}"
        )
    if shares > 1 and pictures < config.batch:
        peers.refuse(
            f"{pictures} pictures to train on are less than one batch of {config.batch}; several processes or pieces need a whole one"
        )


def class_names(config: Config) -> tuple[str, ...]:
    return tuple(config.classes or (GEN1_CLASSES if config.source == "events" else VOC_CLASSES))


def open_set(config: Config, splits: str, limit: int = 0) -> Any:
    """The annotated pictures of some splits, or recordings; only the first `limit` of them where it is not 0."""
    if config.source == "events":
        events = EventSet(config.data, splits, class_names(config), window=round(1000 * config.window_ms))
        return events.only(range(min(limit, len(events.recordings)))) if limit else events
    voc: VOCSet | ShardSet
    if config.source == "shards":
        voc = ShardSet(config.data, splits, class_names(config), ShardStore(config.shards_from))
    else:
        voc = VOCSet(config.data, splits, class_names(config), strict=config.strict)
    return voc.subset(range(min(limit, len(voc)))) if limit else voc


def training_pictures(config: Config) -> Any:
    """The annotated pictures (or recordings) trained on."""
    return open_set(config, config.train, config.limit)


def training_set(config: Config, voc: Any, preset: str | None = None) -> Any:
    """Those pictures, augmented by the config's preset or the one given; of recordings, clips of as many windows as steps."""
    preset, settings = preset or config.augment, augmentation(config)
    if isinstance(voc, EventSet):
        return EventClips(voc, config.size, config.timesteps, preset, seed=config.seed, settings=settings)
    return DetectionDataset(voc, config.size, preset, seed=config.seed, settings=settings, cache=config.cache)


def augmentation(config: Config) -> AugmentSettings:
    """How strongly pictures are varied; `colour` scales the ranges of hue, saturation and brightness about no change."""
    usual = AugmentSettings()

    def about_one(low: float, high: float) -> tuple[float, float]:
        return max(0.0, 1 - config.colour * (1 - low)), 1 + config.colour * (high - 1)

    low, high = config.scale
    return replace(
        usual, scale=(low, high), mosaic=config.mosaic, hue=config.colour * usual.hue, saturation=about_one(*usual.saturation),
        brightness=about_one(*usual.brightness),
    )  # fmt: skip


def epoch_order(
    config: Config, voc: Any, count: int, epoch: int, first: int = 0, most: int = 0, peers: Peers = ALONE
) -> EpochOrder:  # fmt: skip
    """The batches of an epoch from the `first` on, `most` at most (0: all): shards in an order that reads each once, anything else in any
    order."""
    if isinstance(voc, ShardSet) and voc.whole:
        return ShardOrder(voc.starts.tolist(), config.batch, config.seed, epoch, first, most=most, lanes=config.lanes, peers=peers)
    return EpochOrder(count, config.batch, config.seed, epoch, first, most, peers=peers)


def validation_set(config: Config, limit: int = 0) -> Any:
    """The pictures measured on, letterboxed; only the first `limit` and `val_limit` of them, where these are not 0. Recordings, whole."""
    voc = open_set(config, config.val, min((n for n in (limit, config.val_limit) if n), default=0))
    return EventPlayback(voc, config.size) if isinstance(voc, EventSet) else DetectionDataset(voc, config.size, "eval")


def calibration_batches(config: Config, workers: int, voc: Any = None, peers: Peers = ALONE) -> Batches:
    """Training pictures, letterboxed as in evaluation: norm statistics shall fit what the norms will see."""
    voc = voc or training_pictures(config)
    events = isinstance(voc, EventSet)
    dataset = EventClips(voc, config.size, config.timesteps, "eval") if events else DetectionDataset(voc, config.size, "eval")
    order = epoch_order(config, voc, len(dataset), 0, most=config.recalibrate, peers=peers)
    return load_batches(dataset, workers, batch_sampler=order)


def detector(config: Config, num_classes: int) -> SpikingYOLO:
    """The config's detector with weights drawn from its seed."""
    chosen = {k: getattr(config, k) for k in ("readout", "kind", "gate", "threshold", "surrogate") if getattr(config, k) is not None}
    if config.anchors is not None:
        chosen["anchors"] = tuple(zip(config.anchors[::2], config.anchors[1::2]))
    torch.manual_seed(config.seed)
    return build_detector(
        config.detector, num_classes, width=config.width, depth=config.depth, norm=config.norm, detach_reset=config.detach_reset,
        start=config.start, in_channels=config.channels, **chosen,
    )  # fmt: skip


def loss(config: Config) -> DetectionLoss:
    return DetectionLoss(
        box=config.box_gain, objectness=config.objectness_gain, classes=config.class_gain, smoothing=config.smoothing,
        iou_target=config.iou_target, factor=config.shape_factor,
    )  # fmt: skip


def rule(config: Config, optim: torch.optim.Optimizer) -> Rule:
    clip = config.clip or None
    return FPTT(optim, config.alpha, form=config.form, clip=clip) if config.rule == "fptt" else BPTT(optim, clip=clip)


def steps_plan(config: Config, timesteps: int) -> list[int]:
    """Steps of each part: FPTT updates at every step unless told otherwise, BPTT once a sequence."""
    return split_steps(timesteps, min(config.parts, timesteps) or (timesteps if config.rule == "fptt" else 1))
