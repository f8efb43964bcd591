"""Time a step of OSTL against the number n of units: feed-forward SNU stacks are O(n^2), a recurrent layer with H is O(n^3.5).

    python tools/bench/snu_scaling.py [--units 128 256 512 1024] [--recurrent 16 32 64 128]

Batch 1, float32, an update (SGD) after each step; the mean of --steps steps or a few more. The exponent is that between a row and the
one before; the step's fixed cost (some 0.3 ms of Python) hides it in small networks. Feed-forward: two layers of n SNUs on n inputs, 10
outputs. Recurrent: one layer of n sSNUs on n inputs, timed where its traces have reached their full size, over whole folds. Last,
processor time of a sequence of 60 steps as in the JSB experiment (88 inputs, 150 units, float64, an update a sequence), OSTL and BPTT.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from torch import nn

from spyolo.learning import build_rule
from spyolo.learning.full_traces import room_for
from spyolo.neurons import Readout, Stack, dense_cell


def milliseconds(net: Stack, inputs: int, steps: int, skip: int) -> float:
    rule = build_rule("ostl", net, torch.optim.SGD(net.parameters(), lr=1e-4), nn.functional.mse_loss, parts="all", memory_bound=2**34)
    x, y, times = torch.randn(1, inputs), torch.zeros(1, 10), []
    rule.start(steps + skip)
    for t in range(steps + skip):
        begin = time.perf_counter()
        rule.step(x, y)
        if t >= skip:
            times.append(time.perf_counter() - begin)
    return 1e3 * sum(times) / len(times)


def jsb_seconds(name: str, rounds: int = 7) -> float:
    """A sequence of 60 steps, batch 1: the median."""
    net = Stack([dense_cell("ssnu", 88, 150)], Readout(150, 88)).double()
    rule, times = build_rule(name, net, torch.optim.SGD(net.parameters(), lr=1e-4), nn.functional.mse_loss), []
    for _ in range(rounds):
        begin = time.process_time()
        rule.start(60)
        for x in torch.rand(60, 1, 88, dtype=torch.float64):
            rule.step(x, x)
        rule.finish()
        times.append(time.process_time() - begin)
    return sorted(times)[rounds // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, nargs="+", default=[128, 256, 512, 1024, 2048])
    parser.add_argument("--recurrent", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    torch.manual_seed(0)
    print(f"batch 1, fp32, PyTorch {torch.__version__}, {torch.get_num_threads()} threads\n")
    for title, sizes, kinds, recurrent in (
        ("feed-forward SNU, two layers", args.units, ["snu", "snu"], False), ("recurrent sSNU with H", args.recurrent, ["ssnu"], True),
    ):  # fmt: skip
        print(f"| {title}: n | ms a step | exponent |\n|---|---|---|")
        before: tuple[int, float] | None = None
        for n in sizes:
            net = Stack([dense_cell(kind, n, n, recurrent=recurrent) for kind in kinds], Readout(n, 10))
            room = room_for(2 * n + 1)  # columns: n inputs, a bias, n neurons
            steps, skip = (-(-args.steps // room) * room, 2 * n + 1 + 2 * room) if recurrent else (args.steps, 5)
            ms = milliseconds(net, n, steps, skip)
            exponent = "" if before is None else f"{math.log(ms / before[1]) / math.log(n / before[0]):.2f}"
            print(f"| {n} | {ms:.3f} | {exponent} |", flush=True)
            before = n, ms
        print()
    print("a sequence of the size of JSB: " + ", ".join(f"{name} {jsb_seconds(name):.3f} s" for name in ("ostl", "bptt")))


if __name__ == "__main__":
    main()
