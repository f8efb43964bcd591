"""Work in other processes: several that work together over gloo, as torchrun would start them (`together`), or a fresh one (`apart`)."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any


@contextmanager
def apart() -> Iterator[Callable[..., Any]]:
    """A function that runs `work(*args)` in one fresh process, for looks at memory: after a thousand tests this one's heap is in so many
    pieces that malloc takes milliseconds to count them, each time it is asked. `work`: of a module, so that the process can import it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield lambda work, *args: pool.submit(work, *args).result()


def together(world: int, work: Callable[..., Any], *args: Any, timeout: float = 300) -> list[Any]:
    """`work(peers, *args)` in `world` processes; what each returned. A function of a test module, so that they can import it."""
    context = multiprocessing.get_context("forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn")
    if context.get_start_method() == "forkserver":  # imported once, in the server; in vain where one runs already
        context.set_forkserver_preload(["spyolo.trainer", "spyolo.cli.eval_model", "spyolo.summary"])
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    ends, processes = [], []
    for rank in range(world):
        here, there = context.Pipe(duplex=False)
        processes.append(context.Process(target=_one, args=(there, rank, world, port, work, args), daemon=True))
        processes[-1].start()
        there.close()
        ends.append(here)
    try:
        results = []
        for rank, end in enumerate(ends):
            assert end.poll(timeout), f"process {rank} says nothing"
            try:
                results.append(pickle.loads(end.recv_bytes()))
            except EOFError:
                raise AssertionError(f"process {rank} died") from None
        for process in processes:
            process.join(timeout)
        return results
    finally:
        for process in processes:
            process.kill()


def _one(end: Any, rank: int, world: int, port: int, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    import torch

    from spyolo.distributed import joined
    from spyolo.neurons.fused import Compiling

    torch.set_num_threads(1)
    Compiling.enabled = False
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    with joined() as peers:
        end.send_bytes(pickle.dumps(work(peers, *args)))  # plain bytes: tensors would otherwise wait in this process's memory
