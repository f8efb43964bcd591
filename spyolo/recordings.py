"""A detector on recordings of an event camera: one step a window, the state carried from the first window to the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tqdm import tqdm

from spyolo import engine
from spyolo.boxes import Detections
from spyolo.data import DetectionDataset, load_batches
from spyolo.data.events_clips import EventPlayback
from spyolo.detection import DetectorState, Reading, SpikingYOLO, postprocess
from spyolo.distributed import ALONE, Peers
from spyolo.engine import gathered, in_picture
from spyolo.neurons import autocast, map_state


def detect(
    detector: SpikingYOLO, dataset: DetectionDataset | EventPlayback, timesteps: Sequence[int], *, batch_size: int = 8, **how: Any
) -> dict[int, dict[str, Detections]]:
    """`engine.detect` for pictures; recordings are played, a window a step, whatever the number of steps asked for."""
    if isinstance(dataset, EventPlayback):
        return dict.fromkeys(timesteps, detect_in_recordings(detector, dataset, **how))
    return engine.detect(detector, dataset, timesteps, batch_size=batch_size, **how)


@torch.inference_mode()
def detect_in_recordings(
    detector: SpikingYOLO, dataset: EventPlayback, *, reading: Reading, device: torch.device | str = "cpu", amp: str = "none",
    workers: int = 0, progress: bool = False, peers: Peers = ALONE,
) -> dict[str, Detections]:  # fmt: skip
    """Play every recording once and read the boxes of the windows that have truth.

    Args:
        peers: processes that share the groups of recordings.

    Returns:
        Window id -> detections in sensor pixels, on the CPU, in the data set's order (of several processes: on the first).
    """
    device = torch.device(device)
    detector.to(device).eval()
    found: dict[str, Detections] = {}
    firsts = [k for k, (_, window) in enumerate(dataset.steps) if window == 0]
    ends = dict(zip(firsts, [*firsts[1:], len(dataset)]))
    mine = [k for start in firsts[peers.rank :: peers.world] for k in range(start, ends[start])]
    loader = load_batches(dataset, workers, sampler=mine, batch_size=1)
    state: DetectorState | None = None
    before: list[int] = []
    for k, frames in zip(mine, tqdm(loader, "playing", disable=not progress, leave=False)):
        group, window = dataset.steps[k]
        state = None if window == 0 else still_playing(state, before, group)
        with autocast(device, amp):
            predictions, state = detector(frames.to(device), state)
        before = group
        rows = [row for row, recording in enumerate(group) if dataset.voc.truth(recording, window) is not None]
        if not rows:
            continue
        said = postprocess(tuple(p[rows] for p in predictions), detector.anchors, detector.strides, reading)
        for row, d in zip(rows, said):
            recording = dataset.voc.recordings[group[row]]
            name = f"{dataset.voc.name(group[row])}@{window}"
            found[name] = in_picture(d.to("cpu"), dataset.place(group[row]), recording.width, recording.height)
    return gathered({0: found}, dataset.voc.ids, peers)[0]


def still_playing(state: DetectorState | None, before: Sequence[int], now: Sequence[int]) -> DetectorState | None:
    """The state of the recordings that go on, of those before: a window after a recording's end would cost what no camera asks for."""
    if list(before) == list(now):
        return state
    rows = [before.index(recording) for recording in now]
    return map_state(lambda x: x[rows] if x.dim() else x, state)  # a readout counts its steps in one number
