"""Processes that train one detector together, as torchrun starts them: tools/train.py asks it for its `Peers` and is otherwise the same.

Every process holds the whole detector and sees its share of each batch. What they exchange is little: the number of positives of a batch,
the gradient of each update (summed, since each process divides its loss by the positives of the WHOLE batch), means of the norms'
running statistics, and whether to stop. Weights, W-bar, lambda, EMA and moments are never sent: equal gradients keep them equal bit for
bit, which is checked before every checkpoint. Alone (`ALONE`), each call does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from spyolo.errors import InputError
from spyolo.files import one_line, shortened
from spyolo.neurons import norms
from spyolo.settings import limits

T = TypeVar("T")
Model = TypeVar("Model", bound=nn.Module)
START = "torchrun sets all that several processes need; to run alone, unset RANK and WORLD_SIZE"
BUCKET = 8 << 20  # numbers that are reduced at a time: 32 MB in fp32


class Peers:
    """This process among `world` that work together.

    Args:
        rank: its number, from 0; process 0 alone writes and prints.
        world: how many there are on all machines.
        local_rank: its number on this machine: the GPU it takes.
        local_world: how many there are on this machine.
    """

    def __init__(self, rank: int = 0, world: int = 1, local_rank: int = 0, local_world: int = 1) -> None:
        self.rank, self.world, self.local_rank, self.local_world = rank, world, local_rank, local_world

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share_of(self, items: list[T]) -> list[T]:
        """This process's share of a batch: equal runs of it, in the order of the processes."""
        share = len(items) // self.world
        return items[self.rank * share : (self.rank + 1) * share] if self.world > 1 else items

    def deal_batches(self, count: int, batch: int) -> list[list[int]]:
        """Of the batches of `count` pictures in order, a short last one among them, every world-th: this process's."""
        return [list(range(i, min(i + batch, count))) for i in range(self.rank * batch, count, self.world * batch)]

    def sum_(self, values: Tensor) -> Tensor:
        """Sum over the processes, in place, the same bits on each."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def counts(self, mine: Sequence[int], device: torch.device) -> Sequence[int | Tensor]:
        """Counts summed over the processes; tensors on `device` where they would have to be waited for."""
        return mine if self.world == 1 else self.sum_(torch.tensor(mine, device=device)).unbind()

    def sum_gradients(self, weights: Sequence[Tensor]) -> None:
        """Replace each weight's gradient by its sum over the processes. Which weights have one must not depend on the data."""
        if self.world > 1:
            self._over([w.grad for w in weights if w.grad is not None], lambda flat: None)

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over the processes."""
        if self.world > 1:
            self._over(list(tensors), lambda flat: flat.div_(self.world))

    def own_rows(self, saved: Tensor) -> Tensor:
        """Of sums by process, [world, ...], this process's row and zeros; where the world has changed, all belongs to the first."""
        rows = saved
        if len(rows) != self.world:
            rows = torch.cat([rows.sum(0, keepdim=True), rows.new_zeros(self.world - 1, rows.shape[1])])
        return rows * (torch.arange(self.world, device=rows.device).unsqueeze(1) == self.rank)

    def mean_statistics(self, model: nn.Module) -> None:
        """Share the norms' running statistics. Means and variances are averaged: the scatter of the processes' means is left out."""
        if self.world > 1:
            self.mean_([b for m in norms(model) for b in (m.running_mean, m.running_var) if b is not None])

    def agree(self, flags: Sequence[bool], device: torch.device) -> list[bool]:
        """Flags that any process has raised."""
        if self.world == 1:
            return list(flags)
        return [raised > 0 for raised in self.sum_(torch.tensor(flags, dtype=torch.int32, device=device)).tolist()]

    def share(self, value: T) -> T:
        """The first process's value, on all."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def first_does(self, work: Callable[[], T]) -> T:
        """Work that one process does for all, such as reading a checkpoint: its result, on all.

        Raises:
            InputError: as `work` does, on the first process; the others leave without a word.
        """
        if self.world == 1:
            return work()
        result, error = None, None
        if self.first:
            try:
                result = work()
            except InputError as raised:
                error = raised
        result, failed = self.share((result, error is not None))
        if error is not None:
            raise error
        if failed:
            raise SystemExit(2)
        return result  # type: ignore[return-value]

    def refuse(self, message: str) -> None:
        """Bad input that all processes see alike: said once.

        Raises:
            InputError: on the first process; the others leave without a word.
        """
        if self.first:
            raise InputError(message)
        raise SystemExit(2)

    def refuse_all(self, message: str, told: bool = True) -> None:
        """Trouble that some processes have met (`told`) and none can go on with: the first of their messages is raised everywhere.

        Raises:
            InputError: on the first process; the others leave without a word.
        """
        messages = [m for m, known in self.gather((message, told)) if known]
        self.refuse(messages[0] if messages else message)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in their order, on the first; nothing on the others."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.gather_object(value, values if self.first else None)
        return values if self.first else []

    def copy_first_(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors with the first process's."""
        if self.world > 1:
            for t in tensors:
                plain = t.detach().contiguous()
                dist.broadcast(plain, src=0)
                t.detach().copy_(plain)

    def check_same(self, tensors: Mapping[str, Tensor]) -> None:
        """See that tensors hold the same bits on all processes, by a checksum each.

        Raises:
            InputError: they do not; names the first that differs.
        """
        if self.world == 1:
            return
        device = next(iter(tensors.values())).device  # some optimizers keep their step counts on the CPU
        sums = torch.stack([checksum(t).to(device) for t in tensors.values()])
        extremes = torch.cat([sums, -sums])
        dist.all_reduce(extremes, dist.ReduceOp.MAX)
        high, low = extremes.chunk(2)
        differing = (high != -low).nonzero().flatten().tolist()
        if differing:
            name = list(tensors)[differing[0]]
            self.refuse(
                f"the processes no longer hold the same {name} ({len(differing)} of {len(tensors)} tensors differ): a device or the "
                "network made a mistake, or the machines run different versions; --resume goes on from the last checkpoint"
            )

    def _over(self, tensors: list[Tensor], finish: Callable[[Tensor], Any]) -> None:
        """Sum tensors over the processes through few large buffers: many small messages would cost their latency each."""
        waiting = []
        for bucket in buckets(tensors):
            flat = torch.cat([t.detach().reshape(-1) for t in bucket])
            waiting.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        for bucket, flat, work in waiting:
            work.wait()
            finish(flat)
            parts = flat.split([t.numel() for t in bucket])
            torch._foreach_copy_([t.detach() for t in bucket], [p.view(t.shape) for p, t in zip(parts, bucket)])


ALONE = Peers()


def buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in groups of one type and at most BUCKET numbers (or one tensor)."""
    group: list[Tensor] = []
    for t in tensors:
        if group and (group[0].dtype != t.dtype or sum(g.numel() for g in group) + t.numel() > BUCKET):
            yield group
            group = []
        group.append(t)
    if group:
        yield group


def checksum(tensor: Tensor) -> Tensor:
    """A number that depends on every bit of a tensor and on where it stands, int64 on its device."""
    t = tensor.detach().contiguous().reshape(-1)
    bits = t.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[t.element_size()]).long()
    place = torch.arange(len(bits), device=bits.device) * 2 + 1  # odd: a changed bit cannot be multiplied away
    return (bits * place).sum()


@contextmanager
def joined() -> Iterator[Peers]:
    """The peers that torchrun's environment names; ALONE without it.

    GPUs talk through NCCL, CPUs (and what is not worth a GPU) through gloo.

    Raises:
        InputError: a variable of that environment that is missing or no number that fits, processes that do not find each other, or
            one of them that has gone.
    """
    world = told_by("WORLD_SIZE", 1, low=1) if "RANK" in os.environ else 1
    if world == 1:
        yield ALONE
        return
    rank, local_rank = told_by("RANK", 0, high=world - 1), told_by("LOCAL_RANK", 0)
    local_world = told_by("LOCAL_WORLD_SIZE", 1, low=1)
    told_by("MASTER_PORT", None, high=65535)
    if not os.environ.get("MASTER_ADDR"):
        raise InputError(f"the environment variable MASTER_ADDR is missing; {START}")
    if torch.cuda.is_available() and local_rank < torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
    # Connections when they are first used. All at once, as is the default, processes that torchrun started anew after the first of them
    # was killed waited for each other for ever (PyTorch 2.14).
    os.environ.setdefault("TORCH_GLOO_LAZY_INIT", "1")
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    except (dist.DistError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise InputError(f"the {world} processes do not find each other at MASTER_ADDR:MASTER_PORT, {where} ({one_line(error)})") from error
    try:
        yield Peers(rank, world, local_rank, local_world)
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        reason = str(error).split("This is typically")[0].strip()
        raise InputError(f"another process of this run has gone ({reason}); torchrun --max-restarts N starts all anew") from error
    dist.destroy_process_group()  # not after an error: the others may never come to say goodbye


def told_by(variable: str, otherwise: int | None, low: int = 0, high: int | None = None) -> int:
    """A whole number of torchrun's environment; `otherwise`: where it is not there, None if it must be.

    Raises:
        InputError: it is missing, or no whole number of these limits; names the variable.
    """
    text = os.environ.get(variable)
    if text is None and otherwise is not None:
        return otherwise
    try:
        number = int(text or "")
    except ValueError:
        number = low - 1
    if number < low or (high is not None and number > high):
        what = "is missing" if text is None else f"must be a whole number {limits(low, high)}, got {shortened(text)}"
        raise InputError(f"the environment variable {variable} {what}; {START}")
    return number


def synchronised(model: Model, device: torch.device) -> Model:
    """The model with norms whose statistics are those of the batches of all processes.

    Raises:
        InputError: not on CUDA, the only device that torch has them for.
    """
    if device.type != "cuda":
        raise InputError("sync_norm needs CUDA; on a CPU each process's norms see its own share of the batch (docs/scaling.md)")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def restarted() -> bool:
    """Whether torchrun has started this process anew after another one died. Raises InputError where it does not say so in a number."""
    return told_by("TORCHELASTIC_RESTART_COUNT", 0) > 0
