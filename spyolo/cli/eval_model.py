"""The part of `eval` that runs a detector: detections after every step asked for, operations counted meanwhile, time a picture takes."""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spyolo.boxes import Detections
from spyolo.cli.noted import noted
from spyolo.cli.options import told_of_steps
from spyolo.config import MOST_TIMESTEPS, Evaluation
from spyolo.data import DetectionDataset, VOCSet, load_batches
from spyolo.data.events_clips import EventClips, EventPlayback
from spyolo.data.events_set import EventSet
from spyolo.errors import InputError
from spyolo.evaluation.tables import DetectionTable
from spyolo.machine import machine

if TYPE_CHECKING:
    import torch

    from spyolo.checkpoint import WeightsInfo
    from spyolo.detection import Reading, SpikingYOLO
    from spyolo.distributed import Peers
    from spyolo.evaluation.tallies import Counts

RECALIBRATION_PICTURES = 256
TIMED_PASSES = 5


@dataclass
class Measured:
    """What is to be judged, and what is known about how it came to be."""

    classes: tuple[str, ...]
    voc: VOCSet | EventSet
    detections: Mapping[int, Mapping[str, Detections] | DetectionTable]  # by steps; 0: no steps known of
    protocol: dict[str, Any]
    notes: list[str]
    counts: Counts | None = None
    twin: Counts | None = None
    latency_ms: dict[int, float] = field(default_factory=dict)
    energy: dict[str, Any] | None = None

    def price(self, ap50: Mapping[int, float | None], other: Mapping[str, Any] | None = None) -> None:
        """Work out the energy of what was counted, AP50 beside it; `other` gives the twin's AP50 where it is the twin, of this width and at
        this size: its energy tells."""
        if self.counts is not None:
            from spyolo.evaluation.energy import energy_table

            known = {steps: value for steps, value in ap50.items() if value is not None}
            twins = {"ann_twin": self.twin} if self.twin else {}
            self.energy = energy_table(self.counts, twins=twins, ap50=known)
            self.energy["priced"] = "window" if isinstance(self.voc, EventSet) else "picture"
            if self.twin and other and other["name"] == "yolov4_tiny":
                row = self.energy["twins"]["ann_twin"]
                why_not = other_network(row["total_mj"], other["energy_mj"])
                if why_not:
                    self.notes.append(f"the AP50 compared with does not stand beside the ANN twin's energy: {why_not}")
                else:
                    row["ap50"] = other["ap50"]


def other_network(counted: float, told: float | None) -> str:
    """Why a plain network whose file tells so many mJ is not the twin counted here; empty where it may be: its operations are as many."""
    if told is None:
        return "its file tells no energy to know it by; measure it with operations counted"
    if math.isclose(told, counted, rel_tol=1e-6):
        return ""
    return f"at {told:.3f} mJ it is not the twin counted here, of {counted:.3f} mJ, but one of another width, size or classes"


def parse_timesteps(text: str) -> tuple[int, ...]:
    """`4`, `1,2,4` or `1..8`. Raises InputError."""
    try:
        first, dots, last = text.partition("..")
        steps = [int(first), int(last)] if dots else sorted({int(word) for word in text.split(",")})
    except ValueError:
        steps = []
    if not steps or not 1 <= steps[0] <= steps[-1] <= MOST_TIMESTEPS:  # before a range is built: 1..99999999 takes gigabytes
        raise InputError(f"--timesteps {text!r} is not understood: write 4, 1,2,4 or 1..8, numbers from 1 to {MOST_TIMESTEPS}")
    return tuple(range(steps[0], steps[1] + 1)) if dots else tuple(steps)


def measure_detector(args: argparse.Namespace, peers: Peers) -> Measured:
    """Load the detector, run it over the split, count and time it. Of several processes, the first has all that was found and counted."""
    from spyolo.checkpoint import check_pictures, load_detector
    from spyolo.cli.eval import open_set
    from spyolo.neurons import choose_amp
    from spyolo.running import choose_device

    asked = None if args.timesteps is None else parse_timesteps(args.timesteps)
    detector, info = load_detector(args.weights, weights=args.weights_of)
    events = info.spec.events
    if not events:
        check_pictures(info.spec, args.weights, "eval shows pictures, which have 3, or windows of events")
    voc, notes = (event_set(args, info, args.split), []) if events else open_set(args, info.classes)
    if args.limit:
        voc = limited(voc, args.limit)
    size = args.size or info.size
    notes += told_of_input(info, size)
    device = choose_device(args.device, peers)
    args.amp = choose_amp(args.amp, device)
    steps = (asked or (info.timesteps,)) if info.spec.stepped else (1,)
    if asked not in (None, steps):
        notes.append(told_of_steps(args.timesteps, "a window of events" if events else "a plain network"))
    detector.to(device)
    if args.recalibrate:
        notes += recalibrate_on(detector, args, info, size, info.timesteps if events else max(steps), device)
    else:
        notes += told_of_norms(args.weights_of)
    if args.fast != "none":
        detector, told = fast_path(detector, args)
        notes += told
    dataset = EventPlayback(voc, size, args.batch) if isinstance(voc, EventSet) else DetectionDataset(voc, size, "eval")
    found, counts = detect_with_model(detector, info, dataset, steps, args, device, peers)
    if isinstance(dataset, DetectionDataset):
        notes += told_of_unreadable(sum(peers.gather(dataset.unreadable)), len(dataset))
    if counts is not None and events:  # a recording is one long sequence: the price is that of a window
        counts = counts.per_step()
    measured = Measured(info.classes, voc, found, protocol_of(args, info, size, device), notes, counts)
    if counts is not None:
        from spyolo.summary import twin_counts

        measured.twin = twin_counts(detector.to("cpu"), size)
    if args.latency and peers.first:
        measured.latency_ms = latencies(detector.to(device), size, max(steps), device, args.amp)
    return measured


def told_of_input(info: WeightsInfo, size: int) -> list[str]:
    """A note where pictures are shown at another size than in training."""
    if size == info.size:
        return []
    return [f"the letterbox disagrees: the detector was trained at {info.size} pixels and is measured at {size}"]


def told_of_norms(weights_of: str) -> list[str]:
    """A note where norm statistics are not those of the weights measured."""
    if weights_of == "w":
        return []
    return [f"norm statistics are those of the weights trained (w), not of {weights_of}; eval --recalibrate SPLIT takes them anew"]


def told_of_unreadable(count: int, pictures: int) -> list[str]:
    """A note of the pictures that could not be read. Raises InputError where that is all of them: there is nothing to measure."""
    if count >= pictures:
        raise InputError(f"none of the {pictures:,} pictures can be read, so nothing was measured; check_data tells what is wrong")
    return [f"pictures that could not be read: {count:,} of {pictures:,}; their objects count as missed"] if count else []


def fast_path(detector: SpikingYOLO, args: argparse.Namespace) -> tuple[SpikingYOLO, list[str]]:
    """The fused detector, and what is to be told of it. Where there is no fast path, `args` says afterwards what runs instead."""
    from spyolo.detection.fast import FastDetector, fuse

    why_not: list[str] = []
    with noted(why_not):
        fused = fuse(detector, args.fast)
    if isinstance(fused, FastDetector):
        if args.amp != "none":
            why_not.append(f"--amp {args.amp} is not read: the fast path has its precision from --fast")
        args.energy_pictures, args.fast, args.amp = 0, fused.precision, "none"
        return fused, [*why_not, f"taken by the fast path at {args.fast}; operations are not counted there"]
    args.fast = "none"
    return fused, why_not


def limited(voc: VOCSet | EventSet, limit: int) -> VOCSet | EventSet:
    """The first pictures, or recordings."""
    if isinstance(voc, EventSet):
        return voc.only(range(min(limit, len(voc.recordings))))
    return voc.subset(range(min(limit, len(voc))))


def detect_with_model(
    detector: SpikingYOLO, info: WeightsInfo, dataset: DetectionDataset | EventPlayback, steps: tuple[int, ...], args: argparse.Namespace,
    device: torch.device, peers: Peers,
) -> tuple[dict[int, dict[str, Detections]], Counts | None]:
    """T -> image id -> detections in the picture's pixels, and the operations counted meanwhile."""
    from contextlib import nullcontext

    from spyolo import recordings
    from spyolo.builders import choose_workers
    from spyolo.evaluation.energy import EnergyMeter
    from spyolo.evaluation.tallies import combined

    whole = len(dataset.voc.recordings) if isinstance(dataset, EventPlayback) else len(dataset)
    asked = whole if args.energy_pictures is None else args.energy_pictures
    # Alone, the meter stops after the batch that reaches the number asked for; together, after this process's last one of those.
    mine = args.batch * len(peers.deal_batches(asked, args.batch))
    meter = EnergyMeter(detector, pictures=mine) if asked else None
    with meter or nullcontext():
        found = recordings.detect(
            detector, dataset, steps, reading=reading_of(args, info), batch_size=args.batch, device=device, amp=args.amp,
            workers=choose_workers(args.workers, peers), progress=not args.quiet and peers.first, peers=peers,
        )  # fmt: skip
    counted = peers.gather(meter.counts() if meter else None)
    return found, combined([c for c in counted if c is not None]) if meter and peers.first else None


def reading_of(args: argparse.Namespace, info: WeightsInfo) -> Reading:
    floor = Evaluation().confidence if args.confidence is None else args.confidence
    return info.reading(floor, args.nms, args.vote_iou, max_detections=args.max_detections)


def protocol_of(args: argparse.Namespace, info: WeightsInfo, size: int, device: torch.device) -> dict[str, Any]:
    """What the figures depend on and only we know; with --latency also the machine, on which times depend."""
    return {
        "split": args.split, "data": args.data, "weights": args.weights, "weights_of": args.weights_of, "detector": info.spec.name,
        "input": f"{size} x {size}, letterboxed", **reading_of(args, info).protocol, "recalibrated_on": args.recalibrate,
        "precision_of_convolutions": args.amp if args.fast == "none" else args.fast,
        "device": device.type, **(machine(device) if args.latency else {}), **(of_events(info) if info.spec.events else {}),
    }  # fmt: skip


def window_of(info: WeightsInfo) -> float:
    """Milliseconds of a window of events that a file's detector was trained on."""
    return float(info.notes.get("window_ms", 50))


def of_events(info: WeightsInfo) -> dict[str, Any]:
    """What figures on recordings depend on besides."""
    return {
        "window_ms": window_of(info), "state": "carried from the first window of a recording to its last",
        "difficult": "boxes of a diagonal under 30 or a side under 10 sensor pixels",
    }  # fmt: skip


def recalibrate_on(
    detector: SpikingYOLO, args: argparse.Namespace, info: WeightsInfo, size: int, steps: int, device: torch.device
) -> list[str]:
    """Norm statistics over the first pictures of another split; returns what was tolerated in reading it."""
    from spyolo import engine
    from spyolo.cli.eval import open_set

    dataset: DetectionDataset | EventClips
    notes: list[str] = []
    if info.spec.events:
        dataset = EventClips(event_set(args, info, args.recalibrate), size, steps, "eval")
    else:
        voc, notes = open_set(args, info.classes, args.recalibrate)
        dataset = DetectionDataset(voc, size, "eval")
    order = range(min(RECALIBRATION_PICTURES, len(dataset)))
    engine.recalibrate(detector, load_batches(dataset, 0, sampler=order, batch_size=args.batch), steps, device=device, amp=args.amp)
    return [f"{args.recalibrate}: {note}" for note in notes]


def event_set(args: argparse.Namespace, info: WeightsInfo, split: str) -> EventSet:
    """The recordings of a split, cut into windows as in training."""
    return EventSet(args.data, split, info.classes, window=round(1000 * window_of(info)))


def latencies(detector: SpikingYOLO, size: int, steps: int, device: torch.device, amp: str) -> dict[int, float]:
    """Milliseconds from a picture on the device to the head's output after every step: one picture at a time, median of some passes."""
    import torch

    from spyolo.neurons import autocast

    shape = 1, detector.spec.in_channels, size, size
    picture = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(device)
    passes: list[list[float]] = []
    with torch.inference_mode(), autocast(device, amp):
        for _ in range(TIMED_PASSES + 1):
            times, start = [], time.perf_counter()
            for _ in detector.run(picture, steps):
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                times.append(1000 * (time.perf_counter() - start))
            passes.append(times)
    return {step: statistics.median(times[step - 1] for times in passes[1:]) for step in range(1, steps + 1)}  # the first one warms up
