"""The stream score: what a detector is worth on video, where a picture need not be looked at afresh in every frame.

    video = PseudoVideo(voc, size=416, clips=16)
    read = partial(postprocess, anchors=detector.anchors, strides=detector.strides)
    result = run_stream(video, {
        "carried": carried(detector, read),            # one step a frame, the state carried on
        "fresh T=4": fresh(detector, 4, read),         # four steps from rest for every frame
        "ann twin": fresh(twin, 1, read_twin),         # a plain network, frame by frame
    }, voc.classes)
    print(format_stream(result))                        # `result` is JSON-safe

Three figures: AP50 by frames since the cut (a carried state still remembers the scene before), flicker (see spyolo.evaluation.flicker), and
energy a frame by what actually ran (see spyolo.evaluation.energy).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from spyolo.boxes import Detections, Objects
from spyolo.evaluation.columns import columns, number
from spyolo.evaluation.energy import network_energy
from spyolo.evaluation.files import json_safe
from spyolo.evaluation.flicker import Flicker, between
from spyolo.evaluation.meter import EnergyMeter
from spyolo.evaluation.prices import PRICES
from spyolo.evaluation.sparsity import firing_rate
from spyolo.evaluation.tables import DetectionTable, TruthTable
from spyolo.evaluation.video import Frame, PseudoVideo
from spyolo.evaluation.voc_ap import score_voc

PRICE = PRICES["fp32"]  # of the energy a frame
Read = Callable[[Any], Sequence[Detections]]  # a detector's raw predictions -> detections of each picture, in frame pixels


class FrameStep(Protocol):
    """What a mode does with the next frame of every clip in a batch."""

    def __call__(self, images: Tensor, state: Any) -> tuple[Sequence[Detections], Any]:
        """[B, 3, S, S] uint8 and the state after the frame before (None at a clip's first) -> detections in frame pixels, state after."""


@dataclass(frozen=True)
class StreamMode:
    """One way to run a detector on video."""

    step: FrameStep
    model: nn.Module | None = None  # whose operations are counted; None: no energy


def carried(detector: Any, read: Read) -> StreamMode:
    """One time step a frame; the state is carried from frame to frame, across cuts too, and starts at rest with the clip."""

    def step(images: Tensor, state: Any) -> tuple[Sequence[Detections], Any]:
        predictions, state = detector(images, state)
        return read(predictions), state

    return StreamMode(step, detector)


def fresh(detector: Any, timesteps: int, read: Read) -> StreamMode:
    """`timesteps` steps from rest for every frame, as for a still picture; 1 for a plain network."""

    def step(images: Tensor, state: Any) -> tuple[Sequence[Detections], Any]:
        *_, (predictions, _) = detector.run(images, timesteps)
        return read(predictions), None

    return StreamMode(step, detector)


@dataclass
class Watched:
    """What one mode said of every frame."""

    truth: dict[str, Objects] = field(default_factory=dict)
    found: dict[str, Detections] = field(default_factory=dict)
    place: dict[str, tuple[int, int]] = field(default_factory=dict)  # name of a frame -> (shot, frames since the cut)
    flicker: Flicker = field(default_factory=Flicker)

    def add(self, frame: Frame, found: Detections, before: tuple[Frame, Detections] | None, confidence: float) -> None:
        """Take in a frame, and the one before where there is one of the same shot."""
        self.truth[frame.name], self.found[frame.name] = frame.objects, found
        self.place[frame.name] = frame.shot, frame.since_cut
        if before is not None and before[0].shot == frame.shot:
            self.flicker += between(before[1], found, before[0].view, frame.view, confidence)

    def ap50(self, names: Sequence[str], classes: int) -> dict[str, Any]:
        """Both VOC AP50 over some frames."""
        truth = TruthTable.of({name: self.truth[name] for name in names})
        found = DetectionTable.of({name: self.found[name] for name in names}, truth.ids, [str(i) for i in range(classes)])
        scores = score_voc(truth, found, classes, thresholds=(0.5,))
        return {"voc07_ap50": float(scores.mean(scores.voc07)[0]), "voc10_ap50": float(scores.mean(scores.voc10)[0]), "frames": len(names)}

    def by_frame(self, classes: int, *, first_shot: bool) -> list[dict[str, Any]]:
        """AP by frames since the cut; of the clips' first shots, which follow no cut but begin at rest, or of all the others."""
        groups: dict[int, list[str]] = {}
        for name, (shot, since) in self.place.items():
            if (shot == 0) == first_shot:
                groups.setdefault(since, []).append(name)
        return [{"frame": since} | self.ap50(names, classes) for since, names in sorted(groups.items())]


def batches(video: PseudoVideo, size: int) -> Iterator[list[Iterator[Frame]]]:
    """The clips, `size` side by side."""
    for start in range(0, len(video), size):
        yield [video.clip(i) for i in range(start, min(start + size, len(video)))]


@torch.inference_mode()
def watch(
    video: PseudoVideo, step: FrameStep, *, batch_size: int, device: torch.device | str, confidence: float, bar: tqdm[Any]
) -> Watched:
    """Show the whole video to one mode."""
    watched = Watched()
    for clips in batches(video, batch_size):
        state: Any = None
        before: list[tuple[Frame, Detections] | None] = [None] * len(clips)
        for frames in zip(*clips, strict=True):
            images = torch.from_numpy(np.stack([frame.image for frame in frames])).permute(0, 3, 1, 2).contiguous()
            found, state = step(images.to(device), state)
            for i, (frame, detections) in enumerate(zip(frames, found, strict=True)):
                detections = detections.to("cpu")
                watched.add(frame, detections, before[i], confidence)
                before[i] = frame, detections
            bar.update(len(frames))
    return watched


def run_stream(
    video: PseudoVideo,
    modes: Mapping[str, StreamMode],
    classes: Sequence[str],
    *,
    batch_size: int = 4,
    device: torch.device | str = "cpu",
    confidence: float = 0.3,
    progress: bool = False,
) -> dict[str, Any]:
    """Show the video to every mode and score it; JSON-safe.

    Args:
        modes: by name; models are to be in evaluation mode on `device`.
        classes: names in label order.
        batch_size: clips side by side.
        confidence: boxes below this score do not count in flicker; AP takes all.

    Returns:
        `modes`: name -> `voc07_ap50`, `voc10_ap50` (all frames), `since_cut` (list by frame, shots after a cut), `since_start` (list by
        frame, the clips' first shots), `flicker`, `jitter`, `appeared`, `vanished`, `firing_rate`, `energy` (mJ a frame; None for a mode
        without a model); `protocol`: how the video was made.
    """
    total, result = len(video) * video.shots * video.frames, {}
    for name, mode in modes.items():
        meter = EnergyMeter(mode.model) if mode.model is not None else None
        with meter or nullcontext(), tqdm(total=total, desc=name, disable=not progress, leave=False) as bar:
            watched = watch(video, mode.step, batch_size=batch_size, device=device, confidence=confidence, bar=bar)
        result[name] = _scores(watched, meter, len(classes), total)
    return json_safe({"modes": result, "protocol": _protocol(video, confidence)})


def _scores(watched: Watched, meter: EnergyMeter | None, classes: int, frames: int) -> dict[str, Any]:
    counts = None if meter is None else meter.counts().per_frame(frames)
    return {
        **watched.ap50(list(watched.truth), classes),
        **watched.flicker.summary(),
        "energy": None if counts is None else network_energy(counts, PRICE),
        "firing_rate": None if counts is None else firing_rate(counts),
        "since_cut": watched.by_frame(classes, first_shot=False),
        "since_start": watched.by_frame(classes, first_shot=True),
    }


def _protocol(video: PseudoVideo, confidence: float) -> dict[str, Any]:
    options = ("size", "clips", "shots", "frames", "seed", "least_visible", "least_side")
    return {name: getattr(video, name) for name in options} | {
        "video": "each shot pans or zooms over one picture, at constant speed; a cut lies between shots; frames and truth from the seed",
        "difficult": "as annotated, or less than least_visible of the object in the frame, or narrower or lower than least_side pixels",
        "since_cut": "frames counted from 0 within shots that follow a cut; since_start: within a clip's first shot, which begins at rest",
        "flicker": "(2 sum(1 - IoU) + appeared + vanished) / (boxes before + boxes after) of successive frames, camera motion taken out",
        "flicker_confidence": confidence,
        "prices": PRICE.name,
    }


def format_stream(result: Mapping[str, Any]) -> str:
    """The result as text: one line a mode; AP50 (VOC10+) by frames since the cut on the right."""
    frames = max((len(mode["since_cut"]) for mode in result["modes"].values()), default=0)
    head = ["mode", "AP50", "flicker", "jitter", "mJ/frame", "synaptic", "firing"] + [f"+{i}" for i in range(frames)]
    lines = []
    for name, mode in result["modes"].items():
        energy = mode["energy"] or {}
        figures = [mode["voc10_ap50"], mode["flicker"], mode["jitter"], energy.get("total_mj"), energy.get("synaptic_mj")]
        figures += [mode["firing_rate"], *(row["voc10_ap50"] for row in mode["since_cut"])]
        lines.append([name, *map(number, figures)])
    p = result["protocol"]
    return (
        f"{columns([head, *lines])}\n"
        f"{p['clips']} clips of {p['shots']} shots of {p['frames']} frames at {p['size']} pixels, seed {p['seed']}; "
        f"AP50 is VOC10+; +n: n frames after a cut; flicker from confidence {p['flicker_confidence']}; "
        f"energy at {p['prices']} prices, total: everything counted"
    )
