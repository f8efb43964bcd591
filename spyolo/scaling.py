"""What training on many processes costs: bytes on the wire and seconds a batch, from a handful of numbers. docs/scaling.md explains.

Each update sums one gradient over all processes: an all-reduce of `bytes`. Online FPTT makes one update a time step, so T of them a batch;
FPTT-K makes K. A ring moves 2 (N - 1) / N of the bytes through each process and takes 2 (N - 1) messages in a row; a tree (NCCL's choice
for many processes) needs 2 log2 N. Nothing is hidden behind the backward pass here: gradients are sent when it is done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """How processes reach each other."""

    bandwidth: float  # bytes a second through one process, one way
    latency: float  # seconds a message
    tree: bool = False  # messages in a row: 2 log2 N instead of 2 (N - 1)


def allreduce_seconds(size: float, processes: int, network: Network) -> float:
    """Sum `size` bytes over the processes."""
    if processes == 1:
        return 0.0
    hops = 2 * math.log2(processes) if network.tree else 2 * (processes - 1)
    return 2 * (processes - 1) / processes * size / network.bandwidth + hops * network.latency


@dataclass(frozen=True)
class Batch:
    """One batch on one process."""

    compute: float  # seconds to show it for T steps and to learn from it
    updates: int  # reductions of the gradient: T for FPTT, K for FPTT-K, 1 for BPTT
    gradient: float  # bytes of one
    extras: float = 1.0  # further small reductions: positives, flags, norm statistics; counted as messages only


def batch_seconds(batch: Batch, processes: int, network: Network) -> float:
    """Weak scaling: each process has a batch like this one, whatever their number."""
    small = batch.extras * allreduce_seconds(0, processes, network)
    return batch.compute + batch.updates * allreduce_seconds(batch.gradient, processes, network) + small


def efficiency(batch: Batch, processes: int, network: Network) -> float:
    """Share of the time that is spent computing."""
    return batch.compute / batch_seconds(batch, processes, network)
