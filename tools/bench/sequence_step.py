"""One step of S-MNIST (batch 256, 256 units): an LTC cell beside an LSTMCell of the same size, forward, and forward and backward.

    python tools/bench/sequence_step.py [--batch 256] [--units 256] [--threads 2]

Each row is timed in turn, round by round, and the median taken, so that a slow moment of the machine hits all rows alike. Backward is of
one step, with gradients for the weights and for the incoming state. Target: the adaptive LTC cell within 1.2 (forward) and 1.4 (both)
times the eager LSTMCell. The optimizer's step and the compiled LSTMCell have rows of their own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from spyolo.neurons import dense_cell, leaves, map_state


def step_of(cell: nn.Module, x: Tensor, state, backward: bool) -> Callable[[], None]:
    """A call that runs one step from `state` (and back)."""
    weights = list(cell.parameters())

    def step() -> None:
        start = map_state(lambda v: v.detach().requires_grad_(backward), state)
        with torch.set_grad_enabled(backward):
            after = list(leaves(cell(x, start)))
            if backward:
                total = after[0].sum() + after[-1].sum()
                torch.autograd.grad(total, [*weights, *leaves(start)], allow_unused=True)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--units", type=int, default=256)
    parser.add_argument("--inputs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: processor time, for a machine that has other work")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--compiled-lstm", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    x = torch.rand(args.batch, args.inputs)
    lstm = nn.LSTMCell(args.inputs, args.units)
    cells: dict[str, nn.Module] = {"LSTMCell, eager": lstm}
    if args.compiled_lstm:
        cells["LSTMCell, compiled"] = torch.compile(nn.LSTMCell(args.inputs, args.units))
    cells["LTC, adaptive"] = dense_cell("ltc", args.inputs, args.units, threshold=0.1, b_start=0.1)
    cells["LTC, constant threshold"] = dense_cell("ltc", args.inputs, args.units, threshold=0.1, adaptive=False)
    cells["LTC, adaptive, not fused"] = dense_cell("ltc", args.inputs, args.units, threshold=0.1, b_start=0.1, fused=False)
    rows: dict[tuple[str, bool], Callable[[], None]] = {}
    for name, cell in cells.items():
        with torch.no_grad():
            lively = torch.rand(args.batch, args.units)
            state = (lively, lively.clone()) if "LSTM" in name else cell(x, None)[1]
        for backward in (False, True):
            rows[name, backward] = step_of(cell, x, state, backward)
    for name in ("LSTMCell, eager", "LTC, adaptive"):
        cell = cells[name]
        optimizer = torch.optim.Adam(cell.parameters(), lr=1e-3)
        for w in cell.parameters():
            w.grad = torch.randn_like(w)
        rows[f"Adam step, {name}", False] = optimizer.step
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    times: dict[tuple[str, bool], list[float]] = {key: [] for key in rows}
    for turn in range(args.rounds + 5):
        for key, step in rows.items():
            begin = clock()
            step()
            if turn >= 5:
                times[key].append(clock() - begin)
    median = {key: sorted(t)[len(t) // 2] * 1e3 for key, t in times.items()}
    print(f"batch {args.batch}, {args.units} units, {args.threads} threads, fp32, PyTorch {torch.__version__}; "
          f"{args.clock} time, median of {args.rounds}, ms")  # fmt: skip
    print(f"{'':34s}{'forward':>9s}{'/ LSTM':>8s}{'both':>9s}{'/ LSTM':>8s}")
    base = {backward: median["LSTMCell, eager", backward] for backward in (False, True)}
    for name in dict.fromkeys(name for name, _ in rows):
        line = f"{name:34s}"
        for backward in (False, True):
            if (name, backward) in median:
                ms = median[name, backward]
                line += f"{ms:9.3f}" + (f"{ms / base[backward]:8.2f}" if not name.startswith("Adam") else f"{'':8s}")
        print(line)


if __name__ == "__main__":
    main()
