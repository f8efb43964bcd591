#!/usr/bin/env python3
"""What looking for values that are not finite costs: training with and without a `Watch`, streaming with and without `check_state`.

    python tools/bench/health_cost.py                  spyv4_lite at 416 pixels, batches of 8, seed 0

The two ways take turns, so that a machine that slows down slows both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from spyolo import engine
from spyolo.boxes import Objects
from spyolo.checkpoint import WeightsInfo
from spyolo.detection import DetectionLoss, build_detector
from spyolo.health import Watch
from spyolo.learning import FPTT
from spyolo.neurons import choose_amp
from spyolo.predictor import Predictor


def in_turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(measured[1:]) for name, measured in times.items()}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--size", type=int, default=416)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--amp", default="auto", choices=("auto", "bf16", "none"))
    args = p.parse_args()
    args.amp = choose_amp(args.amp, torch.device("cpu"))
    torch.manual_seed(0)
    detector = build_detector("spyv4_lite").train()
    rule = FPTT(torch.optim.AdamW(detector.parameters(), 1e-5, fused=True), clip=10.0)
    images = torch.randint(0, 256, (args.batch, 3, args.size, args.size), dtype=torch.uint8)
    side = args.size / 2
    objects = [Objects(torch.tensor([[9.0, 9.0, side, side]]), torch.tensor([3]), torch.tensor([False])) for _ in range(args.batch)]
    watch, loss = Watch(detector, rule.weights), DetectionLoss()

    def learn(watched: bool) -> None:
        engine.train_batch(detector, loss, rule, images, objects, [1, 1], amp=args.amp, watch=watch if watched else None)
        if watched:
            assert watch.check() is None  # every batch here, every tenth in a run

    found = in_turns({"without": lambda: learn(False), "with": lambda: learn(True)}, args.rounds)
    report(f"a batch of {args.batch}, T = 2", found)
    predictor = Predictor(detector, WeightsInfo(detector.spec, tuple(map(str, range(20))), args.size), amp=args.amp)
    frame = np.random.default_rng(0).integers(0, 255, (360, 480, 3), np.uint8)
    _, state = predictor.step(frame)
    ways = {"without": lambda: predictor.step(frame, state, check=False), "with": lambda: predictor.step(frame, state)}
    report("a frame", in_turns(ways, 10 * args.rounds))


def report(what: str, found: dict[str, float]) -> None:
    plain, looked = found["without"], found["with"]
    print(f"{what}: {plain * 1000:.1f} ms without looking, {looked * 1000:.1f} ms with ({looked / plain - 1:+.1%})")


if __name__ == "__main__":
    main()
