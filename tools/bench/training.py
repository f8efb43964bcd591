"""Time a training step: ours beside the plain eager one, FPTT beside BPTT, and the ANN twin; and what memory they need as T grows.

    python tools/bench/training.py              # time: T = 4, batch 8, 416         -> runs/bench/training.json
    python tools/bench/training.py --memory     # bytes: T = 4 to 32, batch 1, 416  -> runs/bench/training_memory.json

A step is all that a batch costs but its loading: assignment, T forwards, losses and backwards, the rule, the optimizer. The plain one is
tools/bench/plain.py in fp32 (a second row, where there is bf16: under its autocast) with FPTT written a parameter at a time. Bookkeeping is
what FPTT.step takes beyond the clipping and the optimizer's step that any training has.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import machine
import torch
from plain import Plain, PlainFPTT

from spyolo import builders, engine
from spyolo.boxes import Objects
from spyolo.config import Config
from spyolo.learning.fptt import clip_
from spyolo.memory import keep_freed_memory
from spyolo.neurons import autocast, choose_amp
from spyolo.running import build_optimizer


def batch_of(count: int, size: int) -> tuple[torch.Tensor, list[Objects]]:
    """Noise and three objects a picture."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    objects = []
    for _ in range(count):
        corner, side = torch.rand(3, 2, generator=generator) * size / 2, torch.rand(3, 2, generator=generator) * size * 0.45 + 8
        labels = torch.randint(0, 20, (3,), generator=generator)
        objects.append(Objects(torch.cat([corner, corner + side], 1), labels, torch.zeros(3, dtype=torch.bool)))
    return images, objects


class Ours:
    """The trainer's own step."""

    def __init__(self, detector: str, rule: str, steps: int, images: torch.Tensor, objects: list[Objects], amp: str = "auto") -> None:
        self.config = Config().updated({"detector": detector, "timesteps": steps, "rule": rule, "size": images.shape[-1]})
        device = images.device
        self.detector = builders.detector(self.config, 20).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.loss, self.amp = builders.loss(self.config), choose_amp(amp, device)
        self.rule = builders.rule(self.config, build_optimizer(self.config, self.detector))
        self.plan = builders.steps_plan(self.config, steps)
        self.images, self.objects = images, objects

    def __call__(self) -> None:
        engine.train_batch(self.detector, self.loss, self.rule, self.images, self.objects, self.plan, amp=self.amp)


class PlainStep:
    """FPTT with the plain detector."""

    def __init__(self, detector: str, steps: int, images: torch.Tensor, objects: list[Objects], amp: str = "none") -> None:
        config = Config().updated({"detector": detector, "size": images.shape[-1]})
        self.detector = builders.detector(config, 20).to(images.device).train()
        self.plain, self.loss, self.amp, self.steps = Plain(self.detector), builders.loss(config), amp, steps
        self.rule = PlainFPTT(list(self.detector.parameters()), config.lr)
        self.images, self.objects = images, objects

    def __call__(self) -> None:
        size = (self.images.shape[-2], self.images.shape[-1])
        state = None
        for _ in range(self.steps):
            targets = self.loss.assign(self.detector, self.objects, size)
            self.rule.optimizer.zero_grad()
            with autocast(self.images.device, self.amp):
                logits, state = self.plain.step(self.images, state)
            self.loss(self.detector, logits, targets).total.backward()
            state = {k: v.detach() for k, v in state.items()}
            self.rule.step()


def bookkeeping(step: Ours, repeats: int = 7) -> dict[str, float]:
    """Milliseconds of an FPTT update, and of the clipping and the optimizer in it."""
    step()
    weights = step.rule.weights
    for w in weights:
        w.grad = torch.randn_like(w) * 1e-3

    def common() -> None:
        clip_(weights, step.config.clip)
        step.rule.optimizer.step()

    whole = statistics.median(machine.seconds(step.rule.step, repeats, 2))
    shared = statistics.median(machine.seconds(common, repeats, 2))
    return {"update_ms": 1000 * whole, "optimizer_ms": 1000 * shared, "bookkeeping_ms": 1000 * (whole - shared)}


def time_rows(args: argparse.Namespace) -> dict[str, Any]:
    images, objects = batch_of(args.batch, args.size)
    images = images.to(args.device)
    t = args.timesteps[0]
    amp, narrow = machine.narrowest(args.device)  # without bf16, rows of one name are one
    make: dict[str, Callable[[], Callable[[], None]]] = {
        f"plain eager {args.detector}, FPTT, fp32": lambda: PlainStep(args.detector, t, images, objects),
        f"plain eager {args.detector}, FPTT, {narrow}": lambda: PlainStep(args.detector, t, images, objects, amp),
        f"{args.detector}, FPTT, {narrow}": lambda: Ours(args.detector, "fptt", t, images, objects),
        f"{args.detector}, FPTT, fp32": lambda: Ours(args.detector, "fptt", t, images, objects, "none"),
        f"{args.detector}, BPTT, {narrow}": lambda: Ours(args.detector, "bptt", t, images, objects),
        f"ANN twin, {narrow}": lambda: Ours("yolov4_tiny", "bptt", 1, images, objects),
    }
    peak = machine.peaks(args.device)
    result: dict[str, Any] = {"batch": args.batch, "size": args.size, "timesteps": t, "peaks": peak, "rows": {}}
    gmac = machine.gmac_of(builders.detector(Config().updated({"detector": args.detector}), 20), args.size)
    for name, build in make.items():
        if args.only not in name:
            continue
        step = build()
        step()
        times = machine.seconds(step, 1, 0)
        while sum(times) + times[-1] < args.budget and len(times) < 9:
            times += machine.seconds(step, 1, 0)
        gflop = 0.0 if "twin" in name else 3 * 2 * gmac * args.batch * t  # forward, and two products backward
        row = machine.summary(times, args.batch, gflop, peak["bf16" if "bf16" in name else "fp32"])
        with machine.Saved() as saved:
            step()
        row["saved_bytes"] = saved.peak
        if "FPTT" in name and isinstance(step, Ours):
            row |= bookkeeping(step)
            row["bookkeeping_share"] = row["bookkeeping_ms"] * t / 1000 / row["median_s"]
        result["rows"][name] = row
        print(f"{name:36s}", {k: round(v, 3) for k, v in row.items()}, flush=True)
    return result


def memory_rows(args: argparse.Namespace) -> dict[str, Any]:
    """Each row in a process of its own: an allocator does not give all back."""
    result: dict[str, Any] = {"batch": args.batch, "size": args.size, "detector": args.detector, "rows": {}}
    for rule in ("fptt", "bptt"):
        for t in args.timesteps:
            how = [sys.executable, __file__, "--memory-of", rule, "--timesteps", str(t), "--threads", str(args.threads)]
            how += ["--detector", args.detector, "--batch", str(args.batch), "--size", str(args.size)]
            row = json.loads(subprocess.run(how, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
            result["rows"][f"{rule.upper()} T={t}"] = row
            print(rule, t, {k: round(v / 2**20, 1) if "bytes" in k else round(v, 2) for k, v in row.items()}, flush=True)
    return result


def memory_row(args: argparse.Namespace) -> dict[str, float]:
    """Bytes saved for backward at most, and resident at most above what the process had after building and one small step."""
    images, objects = batch_of(args.batch, args.size)
    small = Ours(args.detector, args.memory_of, args.timesteps[0], images[:, :, :64, :64], objects)
    small()  # compiles, and makes the optimizer's moments of that detector
    step = Ours(args.detector, args.memory_of, args.timesteps[0], images, objects)
    with machine.Saved() as saved, machine.PeakRSS() as most:
        start = time.perf_counter()
        step()
        took = time.perf_counter() - start
    return {"saved_bytes": saved.peak, "resident_bytes": most.bytes, "seconds": took}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detector", default="spyv4_lite")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--memory-of", default="", help="one row of --memory, as JSON: fptt or bptt")
    parser.add_argument("--batch", type=int, help="[8; memory: 1]")
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--timesteps", type=int, nargs="+", help="[4; memory: 4 8 16 32]")
    parser.add_argument("--budget", type=float, default=15.0, help="seconds a row")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", default="")
    args = parser.parse_args()
    args.batch = args.batch or (1 if args.memory or args.memory_of else 8)
    args.timesteps = args.timesteps or ([4, 8, 16, 32] if args.memory else [4])
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.memory_of:
        print(json.dumps(memory_row(args)))
        return
    if not args.memory:  # there freed memory must go back, or the peak of one row would be that of the next
        keep_freed_memory()
    result = memory_rows(args) if args.memory else time_rows(args)
    machine.keep(args.out or ("training_memory" if args.memory else "training"), result)


if __name__ == "__main__":
    main()
