#!/usr/bin/env python3
"""Measure training on one and on several processes beside the model of docs/scaling.md, or print the model's table.

    tools/bench/scaling.py                                                one process: milliseconds a batch
    torchrun --nproc-per-node 2 tools/bench/scaling.py                    two: the same share of pictures each, reductions timed alone too
    tools/bench/scaling.py --table --compute-ms 120 --gbit 200 --us 10    the model, up to 1,024 processes

Pictures are noise, boxes drawn at random; what is timed is `engine.train_batch`, the median over --batches after two to warm up.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from spyolo import engine
from spyolo.boxes import Objects
from spyolo.detection import DetectionLoss, build_detector
from spyolo.distributed import Peers, joined
from spyolo.learning import FPTT, split_steps
from spyolo.neurons import choose_amp
from spyolo.running import choose_device
from spyolo.scaling import Batch, Network, batch_seconds, efficiency

WARM_UP = 2


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--detector", default="spyv4_lite")
    p.add_argument("--width", type=float, default=1.0)
    p.add_argument("--size", type=int, default=128)
    p.add_argument("--share", type=int, default=4, help="pictures a process [%(default)s]")
    p.add_argument("--timesteps", type=int, default=4)
    p.add_argument("--parts", type=int, default=4, help="updates a batch (K) [%(default)s]")
    p.add_argument("--batches", type=int, default=7)
    p.add_argument("--amp", default="auto", choices=("auto", "bf16", "none"))
    p.add_argument("--device", default="auto")
    p.add_argument("--table", action="store_true", help="print the model instead of measuring")
    p.add_argument("--compute-ms", type=float, default=120, help="--table: a batch on one process, T steps [%(default)s]")
    p.add_argument("--gbit", type=float, default=200, help="--table: bandwidth of a process, Gbit/s [%(default)s]")
    p.add_argument("--us", type=float, default=10, help="--table: microseconds a message [%(default)s]")
    return p


def median_ms(work, batches: int) -> float:
    times = []
    for _ in range(WARM_UP + batches):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[WARM_UP:])


def measure(args: argparse.Namespace, peers: Peers) -> None:
    device = choose_device(args.device, peers)
    args.amp = choose_amp(args.amp, device)
    torch.manual_seed(0)
    detector = build_detector(args.detector, 20, width=args.width).to(device, memory_format=torch.channels_last).train()
    rule, loss = FPTT(torch.optim.AdamW(detector.parameters(), 1e-4, fused=True), clip=10.0), DetectionLoss()
    torch.manual_seed(peers.rank)
    images = torch.randint(0, 256, (args.share, 3, args.size, args.size), dtype=torch.uint8, device=device)
    corners = torch.rand(args.share, 3, 2, 2).sort(2).values.flatten(2) * args.size
    objects = [Objects(boxes, torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.bool)) for boxes in corners]
    plan = split_steps(args.timesteps, args.parts)

    def batch(of: Peers) -> None:
        engine.train_batch(detector, loss, rule, images, objects, plan, amp=args.amp, peers=of)

    batch(peers)
    gradient = 4 * sum(w.grad.numel() for w in rule.weights if w.grad is not None)
    with_others = median_ms(lambda: (batch(peers), peers.mean_statistics(detector)), args.batches)
    alone = median_ms(lambda: batch(Peers()), args.batches) if peers.world > 1 else with_others
    grads = [w.grad for w in rule.weights if w.grad is not None]
    one = median_ms(lambda: peers.sum_gradients(grads_of(grads)), args.batches)
    small = median_ms(lambda: peers.sum_(torch.zeros(1, device=device)), 20)
    if not peers.first:
        return
    pictures = args.share * peers.world
    what = f"{args.detector} width {args.width:g}, {args.size} pixels, {args.share} pictures a process, T = {args.timesteps}"
    print(f"{what}, {args.parts} updates a batch, {args.amp}, {peers.world} process(es) on {device.type}")
    print(f"a batch                      {with_others:9.1f} ms   ({1000 * pictures / with_others:.2f} pictures a second)")
    if peers.world == 1:
        return
    # From two sizes, the two numbers of the network; from them and the time without others, what the model says.
    hops = 2 * (peers.world - 1)
    latency = small / hops / 1000
    seconds = max(1e-9, (one - small) / 1000)
    network = Network(2 * (peers.world - 1) / peers.world * gradient / seconds, latency)
    said = 1000 * batch_seconds(Batch(alone / 1000, args.parts, gradient, extras=2), peers.world, network)
    print(f"the same without reductions  {alone:9.1f} ms")
    print(f"a reduction of {gradient / 1e6:5.1f} MB      {one:9.1f} ms   ({network.bandwidth / 1e9:.2f} GB/s)")
    print(f"a reduction of one number    {small:9.3f} ms")
    print(f"the model says               {said:9.1f} ms a batch ({100 * (said / with_others - 1):+.0f} %)")


def grads_of(grads: list[torch.Tensor]) -> list[torch.Tensor]:
    """Stand-ins for weights that have these gradients."""
    stand_ins = [torch.empty(0, device=g.device) for g in grads]
    for w, g in zip(stand_ins, grads):
        w.data = g
        w.grad = g
    return stand_ins


def table(args: argparse.Namespace) -> None:
    network = Network(args.gbit * 1e9 / 8, args.us * 1e-6, tree=True)
    parameters = sum(p.numel() for p in build_detector(args.detector, 20, width=args.width).parameters())
    counts = (1, 2, 8, 64, 256, 1024)
    print(f"{args.detector}: {4 * parameters / 1e6:.1f} MB a reduction; {args.compute_ms:g} ms of computing a batch, {args.gbit:g} Gbit/s, "
          f"{args.us:g} us a message")
    print("updates a batch   " + "".join(f"{n:>9,}" for n in counts) + "   processes: share of the time spent computing")
    for updates in (8, 4, 2, 1):
        batch = Batch(args.compute_ms / 1000, updates, 4 * parameters, extras=3)
        print(f"{updates:>15}   " + "".join(f"{100 * efficiency(batch, n, network):8.0f}%" for n in counts))


def main() -> None:
    args = parser().parse_args()
    if args.table:
        table(args)
        return
    with joined() as peers:
        measure(args, peers)


if __name__ == "__main__":
    main()
