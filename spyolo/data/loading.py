"""Batches of a data set, read by other processes."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from typing import Any

from torch.utils.data import DataLoader, Dataset

from spyolo.data.dataset import collate
from spyolo.errors import InputError


class Batches:
    """The batches of a data set (joined by its own `collate`, if it has one), read by `workers` other processes (0: by this one); `how`
    takes a DataLoader's options.

    Bad input met in another process is raised here as it was there: a DataLoader would wrap it in a page of traceback.
    """

    def __init__(self, dataset: Dataset[Any], workers: int, **how: Any) -> None:
        how |= {"num_workers": workers, "multiprocessing_context": _context(workers), "worker_init_fn": _init_worker}
        together = functools.partial(_collate, getattr(dataset, "collate", collate))
        self.loader: DataLoader[Any] = DataLoader(_Carrying(dataset), collate_fn=together, **how)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch


def load_batches(dataset: Dataset[Any], workers: int, **how: Any) -> Batches:
    """Batches in the order of the data set, or of a `batch_sampler`."""
    return Batches(dataset, workers, **how)


class _Carrying(Dataset[Any]):
    """Samples, and in the place of one that cannot be had the reason."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, i: int) -> Any:
        try:
            return self.dataset[i]
        except InputError as error:
            return error


def _collate(join: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    bad = [s for s in samples if isinstance(s, InputError)]
    return bad[0] if bad else join(samples)


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
