"""What a training run says when it starts and when it ends: counts, a short table, a page of predictions beside truth."""

from __future__ import annotations

from typing import Any

import torch

from spyolo import builders, recordings
from spyolo.checkpoint import WeightsInfo, load_detector
from spyolo.data import DetectionDataset
from spyolo.data.events_clips import EventPlayback
from spyolo.detection import SpikingYOLO, build_detector
from spyolo.drawing import contact_sheet, draw_boxes, save_image
from spyolo.evaluation.energy import EnergyMeter, dense_counts, energy_table
from spyolo.evaluation.files import write_json
from spyolo.evaluation.metrics import evaluate_detections
from spyolo.evaluation.pictures import picture_or_grey
from spyolo.evaluation.tallies import Counts
from spyolo.trainer import Trainer

SHOWN = 24  # pictures on the page of predictions
LEAST = 0.3  # score of a prediction that is shown there
METERED = 64  # pictures whose operations are counted


def describe_start(trainer: Trainer) -> str:
    """Two lines: what is trained on what, and how."""
    c = trainer.config
    parameters = sum(p.numel() for p in trainer.detector.parameters())
    warm = f"\nwarm start from {c.init}: {len(trainer.untouched)} tensor(s) it has nothing for stay as drawn" if trainer.warm else ""
    how = f"{c.rule} ({c.form}, alpha {c.alpha:g})" if c.rule == "fptt" else c.rule
    what = "clips" if c.source == "events" else "pictures"
    windows = " windows" if c.source == "events" else ""
    many = f", {trainer.peers.world} processes" if trainer.peers.world > 1 else ""
    return (
        f"{c.detector}, width {c.width:g}, {parameters:,} parameters, {len(trainer.classes)} classes, "
        f"{c.size} pixels, T = {trainer.timesteps}\n"
        f"{len(trainer.train_set):,} {what} to train on ({c.train}), {len(trainer.val_set.voc):,}{windows} to measure on ({c.val}); {how}, "
        f"{len(trainer.plan)} update(s) a batch, {c.epochs} epochs, {trainer.device}{many}{warm}"
    )


def twin_counts(detector: SpikingYOLO, size: int) -> Counts:
    """Operations of the ANN twin of the same width, depth, classes and input, from its shapes alone."""
    spec = detector.spec
    twin = build_detector("yolov4_tiny", spec.num_classes, width=spec.width, depth=spec.depth, in_channels=spec.in_channels)
    return dense_counts(twin, torch.zeros(1, spec.in_channels, size, size))


def metered(
    detector: SpikingYOLO, dataset: DetectionDataset | EventPlayback, timesteps: int, **options: Any
) -> tuple[dict[str, Any], Counts]:
    """Detections after `timesteps` steps on every picture, and the operations counted on the first pictures."""
    with EnergyMeter(detector, pictures=METERED) as meter:
        found = recordings.detect(detector, dataset, (timesteps,), **options)[timesteps]
    return found, meter.counts()


def finish(trainer: Trainer) -> str:
    """Measure the best weights once more, write metrics.json and predictions.png, and tell the result."""
    c, folder = trainer.config, trainer.folder
    detector, info = load_detector(folder.best)
    dataset = builders.validation_set(c)
    found, counts = metered(detector, dataset, info.timesteps, **trainer.showing)
    steps = info.timesteps
    if isinstance(dataset, EventPlayback):
        counts, steps = counts.per_step(), 1
    truth = {name: dataset.voc.objects(i) for i, name in enumerate(dataset.voc.ids)}
    protocol = {
        "split": c.val, "pictures": len(truth), "timesteps": info.timesteps, "size": c.size,
        "input": f"{c.size} x {c.size}, letterboxed", "detector": c.detector, **trainer.reading.protocol,
        "precision_of_convolutions": trainer.amp, "device": trainer.device.type, "weights": str(folder.best), "weights_of": c.weights_of,
        "seed": c.seed,
    }  # fmt: skip
    metrics = evaluate_detections(truth, found, trainer.classes, protocol=protocol)
    metrics["timesteps"] = info.timesteps
    metrics["priced"] = "window" if isinstance(dataset, EventPlayback) else "picture"
    ap50 = {} if metrics["voc10_ap50"] is None else {steps: metrics["voc10_ap50"]}  # None: a split without objects of these classes
    metrics["energy"] = energy_table(counts, twins={"ann_twin": twin_counts(detector, c.size)}, ap50=ap50)
    metrics["firing_rate"] = metrics["energy"].get("firing_rate")
    write_json(folder.metrics, metrics)
    save_image(folder.pictures, page(dataset, found, info))
    return table(metrics, detector.spiking) + "\n\n" + listing(trainer)


def page(dataset: DetectionDataset | EventPlayback, found: dict[str, Any], info: WeightsInfo) -> Any:
    """Pairs of pictures: truth (dashed) on the left, predictions of at least LEAST on the right."""
    pairs = []
    for i in range(min(SHOWN, len(dataset.voc))):
        image, objects, said = picture_or_grey(dataset.voc, i), dataset.voc.objects(i), found[dataset.voc.ids[i]]
        said = said[said.scores >= LEAST]
        pairs.append(draw_boxes(image, objects.boxes, objects.labels, info.classes, style="truth"))
        pairs.append(draw_boxes(image, said.boxes, said.labels, info.classes, said.scores))
    return contact_sheet(pairs, columns=6)


def table(metrics: dict[str, Any], spiking: bool) -> str:
    """AP50 of each class, the means, firing rate and energy."""
    wide = max(len(name) for name in metrics["per_class"]) + 2
    lines = [f"{'class':<{wide}}AP50", *(f"{name:<{wide}}{shown(row['voc10_ap50'])}" for name, row in metrics["per_class"].items())]
    lines += [f"{'mAP@0.5':<{wide}}{shown(metrics['voc10_ap50'])}   (VOC10+ area; VOC07 11-point {shown(metrics['voc07_ap50'])})"]
    lines += [f"{'mAP 50:95':<{wide}}{shown(metrics['voc10_ap50_95'])}   (VOC10+ area)"]
    energy, steps = metrics["energy"], metrics["timesteps"]
    priced = f"energy a {metrics['priced']}, over the first {energy['pictures']}"
    if spiking:
        lines += [f"firing rate {metrics['firing_rate']:.3f} over {steps} steps"]
        parts = f"{energy['synaptic_mj']:.3f} mJ synaptic only, {energy['total_mj']:.3f} mJ everything"
        lines += [f"{priced}: {parts}; ANN twin {energy['ann_twin_mj']:.3f} mJ (45 nm, fp32; docs/energy.md)"]
    else:
        lines += [f"{priced}: {energy['total_mj']:.3f} mJ (every operand a real number)"]
    return "\n".join(lines)


def shown(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"


def listing(trainer: Trainer) -> str:
    """Where everything is."""
    f = trainer.folder
    log = f"{f.log} (also: tensorboard --logdir {f.path})"
    parts = [
        ("run folder", f.path), ("config", f.config), ("log", log), ("best weights", f.best), ("final weights", f.final),
        ("last checkpoint", f.last), ("curves", f.curves), ("predictions", f.pictures), ("metrics", f.metrics),
    ]  # fmt: skip
    return "\n".join(f"{name:<16} {path}" for name, path in parts)
