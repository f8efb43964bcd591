"""Memory, work and time a step of every learning rule against the length of the sequence: a table and a figure.

    python tools/bench/rule_memory.py --out docs/images/rule_memory.png [--timesteps 100 1000 10000] [--batch 16] [--units 64]

Inputs are made step by step. Columns: bytes that autograd saved and bytes that the allocator handed out, at their highest, over parameters
and optimizer; growth of the process; multiply-accumulates of products a step (FLOP counter / 2) and numbers written by all operations a
step (elementwise work), counted over the first 1,000 steps at most; milliseconds a step. BPTT has lengths of its own: watching a million
operations takes hours.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import gc
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from spyolo.learning import build_rule
from spyolo.learning.memory import MemoryMeter, process_memory, reset_process_peak
from spyolo.neurons import Readout, Stack, dense_cell

ROWS = {  # label: (rule, cell, recurrent, options)
    "BPTT, LTC": ("bptt", "ltc", True, {}),
    "FPTT, LTC": ("fptt", "ltc", True, {}),
    "FPTT-K, ten steps a part, LTC": ("fptt", "ltc", True, {"steps_a_part": 10}),
    "SLTT, LTC": ("sltt", "ltc", True, {}),
    "e-prop, LIF": ("eprop", "lif", True, {}),
    "e-prop, ALIF": ("eprop", "alif", True, {}),
    "OSTL without H, sSNU": ("ostl", "ssnu", True, {"with_h": False}),
    "OSTL with H, sSNU": ("ostl", "ssnu", True, {}),
    "OTTT, LIF": ("ottt", "lif", False, {}),
}


class Cost(NamedTuple):
    saved: int
    allocated: int
    process: int
    ms: float


def network(label: str, units: int, inputs: int, outputs: int) -> tuple[Stack, torch.optim.Optimizer]:
    """A network whose optimizer has its moments already."""
    _, kind, recurrent, _ = ROWS[label]
    torch.manual_seed(0)
    net = Stack([dense_cell(kind, inputs, units, recurrent=recurrent)], Readout(units, outputs))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for w in net.parameters():
        w.grad = torch.zeros_like(w)
    optimizer.step()
    optimizer.zero_grad()
    return net, optimizer


def rule_of(label: str, net: Stack, optimizer: torch.optim.Optimizer, timesteps: int) -> Any:
    """The label's rule for a sequence of so many steps, begun."""
    name, _, _, options = ROWS[label]
    chosen = {k: v for k, v in options.items() if k != "steps_a_part"}
    if "steps_a_part" in options:
        chosen["parts"] = timesteps // options["steps_a_part"]
    rule = build_rule(name, net, optimizer, nn.functional.mse_loss, **chosen)
    rule.start(timesteps)
    return rule


def give_back_freed() -> None:
    """To the system, or the process would not grow by what it has kept of an earlier measurement."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # not glibc
        return


def memory(label: str, timesteps: int, batch: int, units: int, inputs: int = 8, outputs: int = 4) -> Cost:
    net, optimizer = network(label, units, inputs, outputs)
    name = ROWS[label][0]
    give_back_freed()
    meter = MemoryMeter(list(net.parameters()))
    reset_process_peak()
    before, timed, spent = process_memory(), 0, 0.0
    with meter.watch_saved():
        rule = rule_of(label, net, optimizer, timesteps)
        for t in range(timesteps):
            x, y = torch.randn(batch, inputs), torch.zeros(batch, outputs)
            # traces with H are put together every few steps, and change their layout after fan-in steps; BPTT's backward, and so its
            # peak, is in the last step
            if t < units + inputs + 25 or t >= timesteps - 5 or (t % max(timesteps // 20, 1) == 0 and name != "bptt"):
                with meter:
                    rule.step(x, y)
            else:
                begin = time.perf_counter()
                rule.step(x, y)
                spent, timed = spent + time.perf_counter() - begin, timed + 1
        rule.finish()
    ms = 1e3 * spent / timed if name != "bptt" and timed else float("nan")
    return Cost(meter.saved, meter.allocated, max(process_memory(peak=True) - before, 0), ms)


class Work(TorchDispatchMode):
    """Counts the numbers that operations write."""

    written = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, torch.Tensor) and not t._is_view():
                self.written += t.numel()
        return out


@functools.cache
def work(label: str, timesteps: int, batch: int, units: int, inputs: int = 8, outputs: int = 4) -> tuple[float, float]:
    """Multiply-accumulates of products and numbers written, a step, over a whole sequence, in millions."""
    net, optimizer = network(label, units, inputs, outputs)
    with FlopCounterMode(display=False) as counter, Work() as seen:
        rule = rule_of(label, net, optimizer, timesteps)
        for _ in range(timesteps):
            rule.step(torch.randn(batch, inputs), torch.zeros(batch, outputs))
        rule.finish()
    return counter.get_total_flops() / 2 / timesteps / 1e6, seen.written / timesteps / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--timesteps", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--bptt-timesteps", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("rule_memory.png"))
    args = parser.parse_args()
    print(f"batch {args.batch}, {args.units} units, fp32, PyTorch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| rule | T | saved, MB | allocated, MB | process, MB | MMAC a step | M numbers a step | ms a step |")
    print("|---|---|---|---|---|---|---|---|")
    curves: dict[str, list[tuple[int, float, float]]] = {}
    for label in ROWS:
        memory(label, 2 * args.units + 60, args.batch, args.units)  # warm up: libraries load, kernels compile
        for timesteps in args.bptt_timesteps if label.startswith("BPTT") else args.timesteps:
            c = min((memory(label, timesteps, args.batch, args.units) for _ in range(2)), key=lambda c: c.allocated)  # without strangers
            macs, written = work(label, min(timesteps, 1000), args.batch, args.units)
            row = (f"{c.saved / 1e6:.3f}", f"{c.allocated / 1e6:.3f}", f"{c.process / 1e6:.1f}", f"{macs:.2f}", f"{written:.3f}",
                   f"{c.ms:.2f}" if c.ms == c.ms else "")  # fmt: skip
            print(f"| {label} | {timesteps} | " + " | ".join(row) + " |", flush=True)
            curves.setdefault(label, []).append((timesteps, (c.saved + c.allocated) / 1e6, c.process / 1e6))
    plot(curves, args.out)


def plot(curves: dict[str, list[tuple[int, float, float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharex=True, layout="constrained")
    for label, points in curves.items():
        t, tensors, process = zip(*points)
        axes[0].plot(t, tensors, "o-", label=label)
        axes[1].plot(t, process, "o-", label=label)
    for axis, title in zip(axes, ("saved for backward + handed out", "growth of the process")):
        axis.set(xscale="log", xlabel="steps of the sequence", ylabel="MB", title=title)
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[1].set_yscale("symlog", linthresh=1)  # most grow by nothing
    axes[1].set_ylim(bottom=0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(f"\nwrote {path}")


if __name__ == "__main__":
    main()
