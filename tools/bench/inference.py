"""Time inference: the plain eager oracle, ours, the ANN twin, and LIF networks of other libraries, side by side in one run.

    python tools/bench/inference.py --batch 1              # T = 1, 4, 8 at 416, streaming, peak memory -> runs/bench/inference_b1.json
    python tools/bench/inference.py --batch 16 --budget 6

Weights are random and the picture is noise: nothing here depends on either, since no path skips zeros. Each row is measured until its
budget is spent, after one unmeasured call at one step; a row that takes longer than its budget is measured once.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import machine
import peers
import torch
from plain import Plain
from torch import Tensor

from spyolo.detection import build_detector
from spyolo.detection.fast import FastDetector, fold, fuse
from spyolo.memory import keep_freed_memory
from spyolo.neurons import autocast

Row = tuple[str, str, float, Callable[[int], Any]]  # name, dtype of its products, GMAC a step, run for T steps


def rows(images: Tensor, only: str) -> list[Row]:
    """All rows whose name holds `only`."""
    size, device = images.shape[-1], images.device
    found: list[Row] = []

    def add(name: str, dtype: str, gmac: float, run: Callable[[int], Any]) -> None:
        if only in name:
            found.append((name, dtype, gmac, run))

    def ours(detector: Any, amp: str = "none") -> Callable[[int], Any]:
        def run(steps: int) -> None:
            with autocast(device, amp):
                for _ in detector.run(images, steps):
                    pass

        return run

    amp, narrow = machine.narrowest(device)
    for name in ("spyv4", "spyv4_lite"):
        detector = build_detector(name).to(device).eval()
        gmac = machine.gmac_of(detector, size)
        plain = Plain(detector)
        add(f"plain eager {name}, fp32", "fp32", gmac, lambda steps, plain=plain: plain.run(images, steps))
        trained = build_detector(name).to(device, memory_format=torch.channels_last).eval()
        add(f"{name} as trained, {narrow}", narrow, gmac, ours(trained, amp))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for precision in ("fp32", "bf16", "int8"):
                fast = fuse(detector, precision)
                ran = path_of(fast)
                if f"{name} {ran}" not in (row for row, *_ in found):  # without a fast path the three are one, without bf16 two of them
                    add(f"{name} {ran}", "fp32" if ran.endswith("fp32") else narrow, gmac, ours(fast))
        for w in told[:1]:
            print(f"note: {w.message}")
    twin = build_detector("yolov4_tiny").to(device).eval()
    gmac = machine.gmac_of(twin, size)
    plain_twin = Plain(twin)
    add("plain eager ANN twin, fp32", "fp32", gmac, lambda steps: plain_twin.run(images, 1))
    folded = ours(fold(twin), amp)
    add(f"ANN twin folded, {narrow}", narrow, gmac, lambda steps: folded(1))
    for library in peers.LIBRARIES:
        try:
            detector, reset = peers.build(library)
        except ImportError as error:
            print(f"skipped: {library} ({error})")
            continue
        detector.to(device).eval()

        def foreign(steps: int, detector: Any = detector, reset: Callable[[], Any] = reset) -> None:
            reset()
            for _ in detector.run(images, steps):
                pass

        add(f"LIF network in {library}, fp32", "fp32", gmac, foreign)
    return found


def path_of(detector: Any) -> str:
    """What ran: `fuse` gives a detector with its norms folded, in fp32, where there is no fast path."""
    return f"fused, {detector.precision}" if isinstance(detector, FastDetector) else "norms folded, fp32"


def measured(run: Callable[[], Any], budget: float) -> list[float]:
    times: list[float] = []
    while not times or (sum(times) + times[-1] < budget and len(times) < 50):
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return times


def streaming(size: int, budget: float) -> dict[str, dict[str, float]]:
    """One step a frame with the state carried on, encoder included."""
    found = {}
    frames = torch.randint(0, 256, (4, 1, 3, size, size), dtype=torch.uint8)
    for name, precision in (("spyv4_lite", "int8"), ("spyv4_lite", "bf16"), ("spyv4", "int8")):
        detector = fuse(build_detector(name).eval(), precision)
        state, seen = None, 0

        def step(detector: Any = detector) -> None:
            nonlocal state, seen
            _, state = detector(frames[seen % 4], state)
            seen += 1

        for _ in range(5):
            step()
        found[f"{name} {path_of(detector)}"] = machine.summary(measured(step, budget), 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds a row and T")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", default="")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    images = torch.randint(0, 256, (args.batch, 3, args.size, args.size), dtype=torch.uint8).to(args.device)
    peak = machine.peaks(args.device)
    print({k: round(v, 1) for k, v in peak.items()})
    result: dict[str, Any] = {"batch": args.batch, "size": args.size, "peaks": peak, "rows": {}}
    with torch.inference_mode():
        for name, dtype, gmac, run in rows(images, args.only):
            run(1)
            with machine.PeakRSS() as memory:
                run(max(args.timesteps))
            by_steps = {}
            for steps in args.timesteps:
                gflop = 2 * gmac * args.batch * (1 if "ANN" in name else steps)
                times = measured(lambda run=run, steps=steps: run(steps), args.budget)
                by_steps[steps] = machine.summary(times, args.batch, gflop, peak[dtype])
            result["rows"][name] = {"T": by_steps, "peak_bytes": memory.bytes}
            print(f"{name:36s}", *(f"T={t}: {1000 * r['median_s']:8.1f} ms {r['of_peak']:4.0%}" for t, r in by_steps.items()), flush=True)
        if args.batch == 1 and not args.only and args.device == "cpu":
            result["streaming"] = streaming(args.size, args.budget)
            for name, r in result["streaming"].items():
                print(f"streaming {name:26s} {1000 * r['median_s']:.2f} ms, {r['pictures_s']:.1f} frames/s")
    machine.keep(args.out or f"inference_b{args.batch}", result)


if __name__ == "__main__":
    main()
