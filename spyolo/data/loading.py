"""Batches of a data set, read by other processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from typing import Any

from torch.utils.data import DataLoader, Dataset

from spyolo.data.dataset import Batch, DetectionDataset, Sample, collate
from spyolo.errors import InputError


class Batches:
    """The batches of a data set, read by `workers` other processes (0: by this one); `how` takes a DataLoader's options.

    Bad input met in another process is raised here as it was there: a DataLoader would wrap it in a page of traceback.
    """

    def __init__(self, dataset: DetectionDataset, workers: int, **how: Any) -> None:
        how |= {"num_workers": workers, "multiprocessing_context": _context(workers), "worker_init_fn": _init_worker}
        self.loader: DataLoader[Any] = DataLoader(_Carrying(dataset), collate_fn=_collate, **how)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch


def load_batches(dataset: DetectionDataset, workers: int, **how: Any) -> Batches:
    """Batches in the order of the data set, or of a `batch_sampler`."""
    return Batches(dataset, workers, **how)


class _Carrying(Dataset[Sample | InputError]):
    """Samples, and in the place of one that cannot be had the reason."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Sample | InputError:
        try:
            return self.dataset[i]
        except InputError as error:
            return error


def _collate(samples: list[Sample | InputError]) -> Batch | InputError:
    bad = [s for s in samples if isinstance(s, InputError)]
    return bad[0] if bad else collate(samples)  # type: ignore[arg-type]


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
