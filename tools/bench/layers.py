"""Where a step of the fast path goes, layer by layer, beside what the machine could do at most (the roofline).

    python tools/bench/layers.py [--detector spyv4_lite] [--precision int8]    # -> runs/bench/layers_DETECTOR_PRECISION.json

Convolution: the least time is its products at the measured matrix-product peak (int8: twice the bf16 one, as the processor's instructions
go; the fp32 one on a CPU without bf16), or its weights and maps at the copy rate, whichever is longer. Step: what it must read and write,
at the copy rate.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from typing import Any

import machine
import torch

from spyolo.detection import build_detector
from spyolo.detection import fast as path
from spyolo.memory import keep_freed_memory
from spyolo.neurons import native


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detector", default="spyv4_lite")
    parser.add_argument("--precision", default="int8", choices=path.PRECISIONS)
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    keep_freed_memory()
    peak = machine.peaks()
    detector: Any = path.fuse(build_detector(args.detector).eval(), args.precision)
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    needs: dict[tuple[str, str], tuple[float, float]] = {}  # GFLOP and bytes

    def timed(key: tuple[str, str], function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            out = function(*args, **options)
            times[key].append(1000 * (time.perf_counter() - start))
            return out

        return call

    for name, cell in detector.cells.items():
        cell.current, cell.fire = timed((name, "conv"), cell.current), timed((name, "step"), cell.fire)
    native.pool = timed(("pooling", "pool"), native.pool)
    for i, head in enumerate(detector.heads):
        head.forward = timed((f"head {i}", "conv"), head.forward)
    image = torch.randint(0, 256, (1, 3, args.size, args.size), dtype=torch.uint8)
    state, whole = None, []
    with torch.inference_mode():
        for i in range(args.steps + 5):
            start = time.perf_counter()
            _, state = detector(image, state)
            whole.append(1000 * (time.perf_counter() - start))
            if i == 4:
                times.clear()
                whole.clear()
    peak_conv = peak["bf16" if detector.dtype == torch.bfloat16 else "fp32"]
    x_bytes = torch.empty(0, dtype=detector.dtype).element_size()
    for name, cell in detector.cells.items():
        u = state.cells[name].u
        neurons, weight = u.numel(), cell.conv.weight
        macs = weight.numel() / cell.channels * neurons / (4 if cell.upsample else 1)
        faster = 2 if cell.conv.spikes8 else 1
        needs[name, "conv"] = 2 * macs / 1e9 / faster, weight.numel() * weight.element_size() + neurons * x_bytes
        gate = 0 if cell.gate is None else 2 * cell.gate.weight.numel() / cell.channels * neurons / 1e9
        spike_bytes = state.cells[name].s.element_size()
        needs[name, "step"] = gate, neurons * (x_bytes + 4 + 4 + spike_bytes + (0 if cell.gate is None else 4 * x_bytes + 4))
    rows = {}
    print(f"{'':34s}{'ms':>8s}{'least':>8s}")
    for (name, part), values in sorted(times.items(), key=lambda item: -statistics.median(item[1])):
        calls = len(values) / len(whole)
        took = statistics.median(values) * calls
        gflop, size = needs.get((name, part), (0.0, 0.0))
        least = 1000 * max(gflop / peak_conv, size / peak["copy_gb_s"] / 1e9)
        rows[f"{name} {part}"] = {"ms": took, "least_ms": least}
        print(f"{name + ' ' + part:34s}{took:8.3f}{least:8.3f}")
    sums = {part: sum(r["ms"] for name, r in rows.items() if name.endswith(part)) for part in ("conv", "step", "pool")}
    least = {part: sum(r["least_ms"] for name, r in rows.items() if name.endswith(part)) for part in ("conv", "step")}
    step = statistics.median(whole)
    print(f"a step {step:.2f} ms: " + ", ".join(f"{part} {ms:.2f}" for part, ms in sums.items()) + f"; least: {least}")
    result = {"peaks": peak, "step_ms": step, "sums_ms": sums, "least_ms": least, "rows": rows}
    machine.keep(f"layers_{args.detector}_{args.precision}", result)


if __name__ == "__main__":
    main()
