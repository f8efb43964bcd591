"""The two things a detector does: learn from a batch, step by step, and say what it sees in a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image
from tqdm import tqdm

from spyolo.boxes import Detections, Objects
from spyolo.data import DetectionDataset, Letterbox, load_batches
from spyolo.detection import DetectionLoss, DetectorState, LossParts, SpikingYOLO, Targets, firing_rates, postprocess, rate_penalty
from spyolo.health import Watch
from spyolo.learning import Rule
from spyolo.neurons import detach, frozen_statistics, norms


@dataclass(frozen=True)
class Penalty:
    """Firing-rate regulariser: weight 0 is none."""

    weight: float = 0.0
    low: float = 0.02
    high: float = 0.2


@dataclass(frozen=True)
class StepLog:
    """What a batch's last step left, detached and on the device: reading it is the caller's choice, and the only synchronisation."""

    loss: Tensor  # mean over the steps
    box: Tensor
    objectness: Tensor
    classes: Tensor
    rate: Tensor  # mean firing rate over layers
    rates: dict[str, Tensor]  # firing rate of each layer; none in the ANN twin


def autocast(device: torch.device, amp: str) -> AbstractContextManager[Any]:
    """bf16 autocast where asked for; states, losses and weights stay fp32."""
    return torch.autocast(device.type, torch.bfloat16) if amp == "bf16" else nullcontext()


def part_loss(
    detector: SpikingYOLO, loss: DetectionLoss, images: Tensor, targets: Targets, state: DetectorState | None, steps: int, amp: str,
    penalty: Penalty,
) -> tuple[Tensor, LossParts, DetectorState]:
    """Run `steps` steps from `state`; the mean loss with its graph, the last step's terms, and the state after."""
    total: Tensor | float = 0.0
    for _ in range(steps):
        with autocast(images.device, amp):
            predictions, state = detector(images, state)
        terms = loss(detector, predictions, targets)
        total = total + terms.total
        if penalty.weight > 0 and detector.spiking:
            total = total + penalty.weight * rate_penalty(state, penalty.low, penalty.high)
    assert state is not None and isinstance(total, Tensor)
    return total / steps, terms, state


def train_batch(
    detector: SpikingYOLO,
    loss: DetectionLoss,
    rule: Rule,
    images: Tensor,
    objects: Sequence[Objects],
    plan: Sequence[int],
    *,
    amp: str = "none",
    penalty: Penalty = Penalty(),
    after_update: Callable[[], None] = lambda: None,
    watch: Watch | None = None,
) -> StepLog | None:
    """Show a batch for sum(plan) steps, with one update after each part of plan[i] steps: graphs never outlive their part.

    Args:
        images: [B, 3, H, W] uint8, or float in [0, 1].
        objects: truth of each picture, boxes in input pixels.
        plan: steps of each part; [1, 1, 1] is online FPTT over three steps, [3] is BPTT.
        after_update: called after each update (an EMA, say).
        watch: looks for values that are not finite; it may leave the rest of the batch out, and then there is no log.
    """
    targets = loss.assign(detector, objects, (images.shape[-2], images.shape[-1]))
    state: DetectorState | None = None
    total = torch.zeros((), device=images.device)
    if watch is not None:
        watch.start()
    for part, steps in enumerate(plan, 1):
        incoming = None if state is None else detach(state)
        rule.optimizer.zero_grad(set_to_none=True)
        value, terms, state = part_loss(detector, loss, images, targets, incoming, steps, amp, penalty)
        value.backward()
        if watch is not None and not watch.fine(value, state, part == len(plan)):
            return None

        def again(incoming: DetectorState | None = incoming, steps: int = steps) -> None:
            with frozen_statistics(detector):
                part_loss(detector, loss, images, targets, incoming, steps, amp, penalty)[0].backward()

        rule.step(again if rule.needs_closure else None)
        after_update()
        total += value.detach() * steps
    assert state is not None
    rates = firing_rates(detach(state)) if detector.spiking else {}
    rate = torch.stack(list(rates.values())).mean() if rates else torch.zeros((), device=images.device)
    box, objectness, classes = (t.detach() for t in terms)
    return StepLog(total / sum(plan), box, objectness, classes, rate, rates)


def train_one_epoch(
    detector: SpikingYOLO,
    loss: DetectionLoss,
    rule: Rule,
    batches: Iterable[Any],
    plan: Sequence[int],
    *,
    device: torch.device,
    amp: str = "none",
    penalty: Penalty = Penalty(),
    before_batch: Callable[[], None] = lambda: None,
    after_update: Callable[[], None] = lambda: None,
    watch: Watch | None = None,
) -> Iterator[tuple[Any, StepLog | None]]:
    """Train on every batch, yielding it with its log: the caller decides what to show, save, or stop at. Arguments as in `train_batch`."""
    detector.train()
    for batch in batches:
        before_batch()
        images = batch.images.to(device, non_blocking=True)
        yield batch, train_batch(
            detector, loss, rule, images, batch.objects, plan, amp=amp, penalty=penalty, after_update=after_update, watch=watch
        )


@torch.inference_mode()
def detect(
    detector: SpikingYOLO,
    dataset: DetectionDataset,
    timesteps: Sequence[int] = (3,),
    *,
    confidence: float = 0.005,
    nms_iou: float = 0.5,
    max_detections: int = 100,
    one_class_per_box: bool = False,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    amp: str = "none",
    workers: int = 0,
    progress: bool = False,
) -> dict[int, dict[str, Detections]]:
    """Show every picture for max(timesteps) steps from rest, and read the boxes after each step asked for: all of them from one pass.

    Args:
        dataset: with the `eval` preset.
        timesteps: numbers of steps after which to read out.
        confidence, nms_iou, max_detections, one_class_per_box: see `detection.postprocess`.

    Returns:
        T -> image id -> detections in the picture's own pixels, on the CPU.
    """
    device = torch.device(device)
    detector.to(device).eval()
    found: dict[int, dict[str, Detections]] = {t: {} for t in timesteps}
    loader = load_batches(dataset, workers, batch_size=batch_size)
    for batch in tqdm(loader, "detecting", disable=not progress, leave=False):
        with autocast(device, amp):
            steps = enumerate(detector.run(batch.images.to(device), max(timesteps)), 1)
            for t, (predictions, _) in steps:
                if t not in found:
                    continue
                detections = postprocess(
                    predictions, detector.anchors, detector.strides, confidence=confidence, nms_iou=nms_iou,
                    max_detections=max_detections, one_class_per_box=one_class_per_box,
                )  # fmt: skip
                for name, place, d in zip(batch.ids, batch.letterboxes, detections):
                    found[t][name] = in_picture(d.to("cpu"), place, *dataset.voc.size(dataset.voc.index(name)))
    return found


def in_picture(found: Detections, place: Letterbox, width: int, height: int) -> Detections:
    """Detections on a canvas -> in the pixels of its picture and clipped to it; what lies beside the picture, on the grey, is none."""
    boxes = clip_boxes_to_image(place.to_picture(found.boxes), (height, width))
    return found.with_boxes(boxes)[(boxes[:, 2:] > boxes[:, :2]).all(1)]


@torch.no_grad()
def recalibrate(detector: SpikingYOLO, batches: Iterable[Any], timesteps: int, *, device: torch.device, amp: str = "none") -> None:
    """Take the norms' running statistics anew over the T steps in use, as plain means over `batches`.

    Averaged weights have none of their own, and those of W belong to weights that moved while they were gathered.
    """
    was_training = detector.training
    found = norms(detector)
    momenta = [m.momentum for m in found]
    for m in found:
        m.reset_running_stats()
        m.momentum = None  # cumulative mean
    detector.train()
    for batch in batches:
        images, state = batch.images.to(device), None
        for _ in range(timesteps):
            with autocast(device, amp):
                _, state = detector(images, state)
    for m, momentum in zip(found, momenta):
        m.momentum = momentum
    detector.train(was_training)
