#!/usr/bin/env python3
"""How near each rule's gradient is to that of BPTT: the cosine between the two, layer by layer, a table and a figure.

    python tools/bench/alignment.py --out docs/images/alignment.png      [--timesteps 40] [--seeds 5] [--updates 300]

The task has an answer at every step: the sum so far of the marked numbers of the adding problem (MSE). Two layers of --units neurons and a
linear readout; the gradient of one batch, nothing updated on the way, once with first weights and once after --updates updates of BPTT with
Adam. FPTT's is the sum of its parts' gradients: what truncation leaves, before the pull toward the average.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from spyolo.learning import build_rule
from spyolo.neurons import Readout, Stack, dense_cell


class Row(NamedTuple):
    label: str
    rule: str
    cell: str
    options: dict[str, Any] = {}  # noqa: RUF012 - read only
    recurrent: bool = True


ROWS = [
    Row("FPTT, K = 4, LTC", "fptt", "ltc", {"parts": 4}),
    Row("FPTT, K = T, LTC", "fptt", "ltc"),
    Row("FPTT, K = 4, ALIF", "fptt", "alif", {"parts": 4}),
    Row("FPTT, K = T, ALIF", "fptt", "alif"),
    Row("e-prop, ALIF", "eprop", "alif"),
    Row("e-prop, random feedback, ALIF", "eprop", "alif", {"feedback": "random"}),
    Row("OSTL with H, sSNU", "ostl", "ssnu"),
    Row("OSTL without H, sSNU", "ostl", "ssnu", {"with_h": False}),
    Row("FPTT, K = T, sSNU", "fptt", "ssnu"),
    Row("OSTL with H, LSTM", "ostl", "lstm"),
    Row("FPTT, K = T, LSTM", "fptt", "lstm"),
    Row("OTTT, LIF, feed-forward", "ottt", "lif", recurrent=False),
    Row("SLTT, LIF, feed-forward", "sltt", "lif", recurrent=False),
]
LAYERS = ("cells.0", "cells.1", "readout")


def network(row: Row, units: int, seed: int) -> Stack:
    torch.manual_seed(seed)
    options = {"threshold": 0.3} if row.cell in ("ltc", "alif", "lif") else {}
    cells = [dense_cell(row.cell, n, units, recurrent=row.recurrent, **options) for n in (2, units)]
    return Stack(cells, Readout(units, 1)).double()


def batch(timesteps: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs [T, B, 2] and the sums so far [T, B, 1]."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(timesteps, size, generator=generator, dtype=torch.float64)
    marks = (torch.rand(timesteps, size, generator=generator) < 4 / timesteps).double()
    return torch.stack([numbers, marks], -1), (numbers * marks).cumsum(0)[..., None]


def show(rule: Any, data: tuple[Tensor, Tensor]) -> float:
    rule.start(len(data[0]))
    losses = [float(rule.step(x, y).loss) for x, y in zip(*data)]
    rule.finish()
    return statistics.mean(losses)


def gradient(net: Stack, name: str, options: dict[str, Any], data: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """A layer's gradient as one line, of each layer."""
    rule = build_rule(name, net, torch.optim.SGD(net.parameters(), 0.0), nn.functional.mse_loss, **options)
    rule.hold = True
    net.zero_grad()
    show(rule, data)
    of = {layer: [p for n, p in net.named_parameters() if n.startswith(layer)] for layer in LAYERS}
    return {k: torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in ps]) for k, ps in of.items()}


def cosines(row: Row, args: argparse.Namespace, seed: int) -> list[float]:
    """Of the layers with first weights, then of the layers after training."""
    net = network(row, args.units, seed)
    found = []
    for updates in (0, args.updates):
        teacher = build_rule("bptt", net, torch.optim.Adam(net.parameters(), 3e-3), nn.functional.mse_loss, mean=True, clip=1.0)
        for i in range(updates):
            show(teacher, batch(args.timesteps, args.batch, 1000 * (seed + 1) + i))
        data = batch(args.timesteps, args.batch, seed)
        exact, ours = gradient(net, "bptt", {}, data), gradient(net, row.rule, row.options, data)
        found += [float(nn.functional.cosine_similarity(exact[k], ours[k], 0)) for k in LAYERS]
    return found


def figure(table: dict[str, list[float]], timesteps: int) -> Figure:
    made = Figure(figsize=(7.5, 1.2 + 0.33 * len(table)), layout="constrained")
    axes = made.subplots()
    image = axes.imshow(list(table.values()), vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for i, values in enumerate(table.values()):
        for j, value in enumerate(values):
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.7 else "black", fontsize=9)
    axes.set_yticks(range(len(table)), list(table))
    axes.set_xticks(range(6), [f"{n}\n{when}" for when in ("at first", "trained") for n in ("layer 1", "layer 2", "readout")])
    axes.axvline(2.5, color="white", linewidth=3)
    axes.set_title(f"cosine to the gradient of BPTT, T = {timesteps}")
    made.colorbar(image)
    return made


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--timesteps", type=int, default=40)
    p.add_argument("--units", type=int, default=32)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--updates", type=int, default=300)
    p.add_argument("--out", type=Path, default=Path("runs/bench/alignment.png"))
    args = p.parse_args()
    table = {}
    print("| rule, neurons | layer 1 | layer 2 | readout | layer 1, trained | layer 2 | readout |\n|---|---|---|---|---|---|---|")
    for row in ROWS:
        seeds = list(zip(*(cosines(row, args, seed) for seed in range(args.seeds))))
        table[row.label] = [statistics.mean(values) for values in seeds]
        told = " | ".join(f"{statistics.mean(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in seeds)
        print(f"| {row.label} | {told} |", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure(table, args.timesteps).savefig(args.out, dpi=110)
    print(f"wrote {args.out}; T = {args.timesteps}, {args.units} units, batch {args.batch}, float64, PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()
