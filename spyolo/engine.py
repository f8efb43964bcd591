"""The two things a detector does: learn from a batch, step by step, and say what it sees in a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image
from tqdm import tqdm

from spyolo.boxes import Detections
from spyolo.data import DetectionDataset, Letterbox, load_batches
from spyolo.detection import DetectionLoss, DetectorState, LossParts, Reading, SpikingYOLO, Targets, firing_rates, postprocess, rate_penalty
from spyolo.distributed import ALONE, Peers
from spyolo.health import Watch
from spyolo.learning import Rule
from spyolo.neurons import autocast, detach, fresh_statistics, frozen_statistics, norms
from spyolo.shares import cut_batch


@dataclass(frozen=True)
class Penalty:
    """Firing-rate regulariser: weight 0 is none."""

    weight: float = 0.0
    low: float = 0.02
    high: float = 0.2


@dataclass(frozen=True)
class StepLog:
    """What a batch's last step left, detached and on the device: reading it is the caller's choice, and the only synchronisation.

    Of several processes each has its share; the shares add up."""

    loss: Tensor  # mean over the steps
    box: Tensor
    objectness: Tensor
    classes: Tensor
    rate: Tensor  # mean firing rate over layers
    rates: dict[str, Tensor]  # firing rate of each layer; none in the ANN twin


def part_loss(
    detector: SpikingYOLO, loss: DetectionLoss, images: Tensor, targets: Targets | Sequence[Targets], state: DetectorState | None,
    steps: int, amp: str, penalty: Penalty,
) -> tuple[Tensor, LossParts, DetectorState]:
    """Run `steps` steps from `state`; the mean loss with its graph, the last step's terms, and the state after.

    Args:
        images: [B, C, H, W] and their targets, shown at every step; or [steps, B, C, H, W] and the targets of each step.
    """
    total: Tensor | float = 0.0
    for step in range(steps):
        seen, truth = (images, targets) if isinstance(targets, Targets) else (images[step], targets[step])
        with autocast(images.device, amp):
            predictions, state = detector(seen, state)
        terms = loss(detector, predictions, truth)
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
    objects: Sequence[Any],
    plan: Sequence[int],
    *,
    amp: str = "none",
    penalty: Penalty = Penalty(),
    after_update: Callable[[], None] = lambda: None,
    watch: Watch | None = None,
    accumulate: int = 1,
    peers: Peers = ALONE,
) -> StepLog | None:
    """Show a batch for sum(plan) steps, with one update after each part of plan[i] steps: graphs never outlive their part.

    Args:
        images: [B, C, H, W] uint8, or float in [0, 1]: shown at each step. A clip, [T, B, C, H, W], shows a frame a step.
        objects: truth of each picture, boxes in input pixels; of a clip, a list of such lists, with None for a frame without truth. A part
            without any ends in no update; its state goes on.
        plan: steps of each part; [1, 1, 1] is online FPTT over three steps, [3] is BPTT.
        after_update: called after each update (an EMA, say).
        watch: looks for values that are not finite; it may leave the rest of the batch out, and then there is no log.
        accumulate: pieces in which the batch is run, one after the other.
        peers: processes that have other shares of the batch; each sees the same sums of gradients.
    """
    pieces, told = cut_batch(detector, loss, images, objects, accumulate, peers)
    share = 1 / (len(pieces) * peers.world)
    penalty = replace(penalty, weight=penalty.weight * share)

    def gradients(first: int, steps: int, before: list[DetectorState | None]) -> list[tuple[Tensor, LossParts, DetectorState]]:
        results = []
        for piece, state in zip(pieces, before):
            results.append(part_loss(detector, loss, *piece.part(first, steps), state, steps, amp, penalty))
            results[-1][0].backward()
        peers.sum_gradients(rule.weights)
        return results

    total = torch.zeros((), device=images.device)
    if watch is not None:
        watch.start()
    for first, steps in zip([sum(plan[:k]) for k in range(len(plan))], plan):
        before = [None if p.state is None else detach(p.state) for p in pieces]
        rule.optimizer.zero_grad(set_to_none=True)
        results = gradients(first, steps, before)
        losses, terms, states = zip(*results)
        value = torch.stack(losses).detach().sum()
        if watch is not None and not watch.fine(value, states, first + steps == sum(plan)):
            return None

        def again(first: int = first, steps: int = steps, before: list[DetectorState | None] = before) -> None:
            with frozen_statistics(detector):
                gradients(first, steps, before)

        if images.dim() == 4 or any(told[first : first + steps]):
            rule.step(again if rule.needs_closure else None)
            after_update()
        for piece, state in zip(pieces, states):
            piece.state = state
        total += value * steps
    return log_of(detector, total / sum(plan), terms, states, share)


def log_of(detector: SpikingYOLO, loss: Tensor, terms: Sequence[LossParts], states: Sequence[DetectorState], share: float) -> StepLog:
    """The log of a batch's last step: terms and states of each piece, which is `share` of the batch."""
    box, objectness, classes = (torch.stack(t).detach().sum() for t in zip(*terms))
    fired = [firing_rates(detach(state)) for state in states] if detector.spiking else [{}]
    rates = {name: torch.stack([f[name] for f in fired]).sum() * share for name in fired[0]}
    rate = torch.stack(list(rates.values())).mean() if rates else torch.zeros_like(loss)
    return StepLog(loss, box, objectness, classes, rate, rates)


def train_one_epoch(
    detector: SpikingYOLO,
    loss: DetectionLoss,
    rule: Rule,
    batches: Iterable[Any],
    plan: Sequence[int],
    *,
    device: torch.device,
    before_batch: Callable[[], None] = lambda: None,
    freeze_norms: bool = False,
    peers: Peers = ALONE,
    **how: Any,
) -> Iterator[tuple[Any, StepLog | None]]:
    """Train on every batch, yielding it with its log: the caller decides what to show, save, or stop at. `how`: as in `train_batch`."""
    for batch in batches:
        train_mode(detector, freeze_norms)
        before_batch()
        images = batch.images.to(device, non_blocking=True)
        log = train_batch(detector, loss, rule, images, batch.objects, plan, peers=peers, **how)
        peers.mean_statistics(detector)
        yield batch, log


def train_mode(detector: SpikingYOLO, freeze_norms: bool = False) -> None:
    """Training mode; with `freeze_norms` the norms use their running statistics and leave them alone."""
    detector.train()
    if freeze_norms:
        for m in norms(detector):
            m.eval()


@torch.inference_mode()
def detect(
    detector: SpikingYOLO,
    dataset: DetectionDataset,
    timesteps: Sequence[int] = (3,),
    *,
    reading: Reading,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    amp: str = "none",
    workers: int = 0,
    progress: bool = False,
    peers: Peers = ALONE,
) -> dict[int, dict[str, Detections]]:
    """Show every picture for max(timesteps) steps from rest, and read the boxes after each step asked for: all of them from one pass.

    Args:
        dataset: with the `eval` preset.
        timesteps: numbers of steps after which to read out.
        peers: processes that share the batches; a batch is the same whoever runs it, so the detections are the same bits.

    Returns:
        T -> image id -> detections in the picture's own pixels, on the CPU, in the data set's order. Of several processes, the first has
        them all and the others none.
    """
    device = torch.device(device)
    detector.to(device).eval()
    found: dict[int, dict[str, Detections]] = {t: {} for t in timesteps}
    loader = load_batches(dataset, workers, batch_sampler=peers.deal_batches(len(dataset), batch_size))
    for batch in tqdm(loader, "detecting", disable=not progress, leave=False):
        with autocast(device, amp):
            steps = enumerate(detector.run(batch.images.to(device), max(timesteps)), 1)
            for t, (predictions, _) in steps:
                if t not in found:
                    continue
                detections = postprocess(predictions, detector.anchors, detector.strides, reading)
                for name, place, d in zip(batch.ids, batch.letterboxes, detections):
                    found[t][name] = in_picture(d.to("cpu"), place, *dataset.voc.size(dataset.voc.index(name)))
    return gathered(found, dataset.voc.ids, peers)


def gathered(found: dict[int, dict[str, Detections]], ids: Sequence[str], peers: Peers) -> dict[int, dict[str, Detections]]:
    """All processes' detections on the first, in the order of the data set."""
    everyone = peers.gather(found)
    whole = {t: {name: d for part in everyone for name, d in part[t].items()} for t in found}
    return {t: {name: seen[name] for name in ids if name in seen} for t, seen in whole.items()}


def in_picture(found: Detections, place: Letterbox, width: int, height: int) -> Detections:
    """Detections on a canvas -> in the pixels of its picture and clipped to it; what lies beside the picture, on the grey, is none."""
    boxes = clip_boxes_to_image(place.to_picture(found.boxes), (height, width))
    return found.with_boxes(boxes)[(boxes[:, 2:] > boxes[:, :2]).all(1)]


@torch.no_grad()
def recalibrate(detector: SpikingYOLO, batches: Iterable[Any], timesteps: int, *, device: torch.device, amp: str = "none") -> None:
    """Take the norms' running statistics anew over the T steps in use, as plain means over `batches`.

    Averaged weights have none of their own, and those of W belong to weights that moved while they were gathered.
    """
    with fresh_statistics(detector):
        for batch in batches:
            images, state = batch.images.to(device), None
            for step in range(timesteps):
                with autocast(device, amp):
                    _, state = detector(images if images.dim() == 4 else images[step], state)
