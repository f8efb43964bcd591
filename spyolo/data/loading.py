"""Batches of a data set, read by other processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.context import BaseContext
from typing import Any

from torch.utils.data import DataLoader

from spyolo.data.dataset import Batch, DetectionDataset, collate


def load_batches(dataset: DetectionDataset, workers: int, **how: Any) -> DataLoader[Batch]:
    """A DataLoader of `Batch`; `how` takes its `batch_size`, `batch_sampler`, `pin_memory` ..."""
    how |= {"num_workers": workers, "multiprocessing_context": _context(workers), "worker_init_fn": _init_worker}
    return DataLoader(dataset, collate_fn=collate, **how)  # type: ignore[arg-type]


def _context(workers: int) -> BaseContext | None:
    """Workers start from a clean server process, never as a fork of one that already runs threads: such a fork can wait for ever on a lock
    that nobody holds."""
    if not workers:
        return None
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["spyolo.data"])  # imported once, in the server
    return context


def _init_worker(_: int) -> None:
    """Ctrl-C and SIGTERM reach the whole group: the process that trains decides what they mean, the workers go when it goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_go_with_parent, daemon=True).start()


def _go_with_parent() -> None:
    """Leave when the process that trains is killed. torch's own watch looks at the server instead, which lives as long as its workers do:
    they would keep each other, and their memory, for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
