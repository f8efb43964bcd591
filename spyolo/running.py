"""What every training run needs, whatever it trains: a device, an order of samples, an optimizer, a way to stop, weights to evaluate."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from tqdm import tqdm

from spyolo.distributed import ALONE, Peers
from spyolo.errors import InputError
from spyolo.learning import swapped
from spyolo.settings import Settings


def choose_device(name: str, peers: Peers = ALONE) -> torch.device:
    """`auto` is CUDA where there is one; of several processes on a machine each takes a GPU of its own.

    Raises:
        InputError: a device this machine or torch does not have, or one GPU for several processes.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if peers.local_world > 1 and name.startswith("cuda:"):
        peers.refuse(f"device {name} is one GPU, for {peers.local_world} processes: give cuda, and each takes its own")
    if peers.world > 1 and name == "cuda":
        name = f"cuda:{peers.local_rank}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} is not to be had here: {str(error).splitlines()[0]}") from error
    return device


class EpochOrder(Sampler[list[int]]):
    """Batches of indices: a permutation that is a function of (seed, epoch).

    Args:
        count: size of the data set.
        batch: pictures a batch; a short last batch is left out unless it is the only one.
        first: batches of the epoch to skip (they were seen before an interruption).
        most: stop after so many batches; 0: at the end.
        peers: whose share of each batch it gives: the batches are the same whatever the number of processes.
    """

    def __init__(self, count: int, batch: int, seed: int, epoch: int, first: int = 0, most: int = 0, peers: Peers = ALONE) -> None:
        self.batch, self.first, self.peers = batch, first, peers
        self.order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).tolist()
        whole = max(1, count // batch)
        self.per_epoch = min(whole, most) if most else whole

    def __len__(self) -> int:
        return self.per_epoch - self.first

    def __iter__(self) -> Iterator[list[int]]:
        for i in range(self.first, self.per_epoch):
            yield self.peers.share_of(self.order[i * self.batch : (i + 1) * self.batch])


def build_optimizer(config: Settings, model: nn.Module) -> torch.optim.Optimizer:
    """Weight decay on matrices and kernels only: norms, biases and leaks are left free."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    betas = (config.momentum, 0.999)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
    if config.optimizer == "adamax":
        return torch.optim.Adamax(groups, config.lr, betas=betas)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, config.lr, betas=betas, fused=True)


def cosine_rate(config: Settings, done: float) -> float:
    """From `lr` down to `lr_final` of it along a cosine; `done`: share of the run that is over, in [0, 1]."""
    return float(config.lr * (config.lr_final + (1 - config.lr_final) * (1 + math.cos(math.pi * done)) / 2))


class Stoppable(Protocol):
    stopping: bool  # set on a signal; the run looks at it between batches


@contextmanager
def stop_on_signals(run: Stoppable) -> Iterator[None]:
    """SIGINT and SIGTERM end the run after the present batch, with a checkpoint; a second one ends it at once."""

    asked = False  # not `run.stopping`, which running out of time sets too: the first signal after that is still the first

    def stop(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = run.stopping = True
        tqdm.write("stopping after this batch; press Ctrl-C again to stop at once")

    try:
        before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller handles signals
        before = {}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Inside, SIGTERM (service managers, `kill`) raises KeyboardInterrupt: what is open is closed, what was found is kept."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread: the caller handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def evaluated(model: nn.Module, weights: list[Tensor], shown: list[Tensor], retake: Callable[[], None]) -> Iterator[None]:
    """Inside, `weights` hold the values of `shown` and the norms the statistics that `retake()` takes for them; afterwards all is as it
    was, and the model in training mode."""
    buffers = {k: v.clone() for k, v in model.named_buffers()}
    with swapped(weights, shown):
        try:
            retake()
            yield
        finally:
            for k, v in model.named_buffers():
                v.copy_(buffers[k])
            model.train()
