"""What every training run needs, whatever it trains: a device, an order of samples, a way to stop, and the optimizer's memory on file."""

from __future__ import annotations

import math
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from tqdm import tqdm

from spyolo.distributed import ALONE, Peers
from spyolo.errors import InputError
from spyolo.files import is_there
from spyolo.learning import swapped
from spyolo.settings import Settings, load_settings, plain

# What may differ between a run and its continuation: none of it changes what is learned.
FREE = ("out", "device", "workers", "cache", "save_seconds", "max_minutes")


def choose_device(name: str, peers: Peers = ALONE) -> torch.device:
    """`auto` is CUDA where there is one; of several processes on a machine each takes a GPU of its own.

    Raises:
        InputError: a device this machine or torch does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
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

    def stop(number: int, frame: Any) -> None:
        if run.stopping:
            raise KeyboardInterrupt
        run.stopping = True
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


def holds_this_run(config: Settings, otherwise: str = "--resume it, or give another --out") -> bool:
    """Whether the run folder was begun with this very config, `FREE` fields aside; False where it holds no run.

    Args:
        otherwise: what to do about another run.

    Raises:
        InputError: it holds another run; names what differs.
    """
    path = Path(config.out) / "config.yaml"
    if not is_there(path):
        return False
    there = load_settings(path, type(config)(), path.parent)
    other = [name for name in config.fields() if name not in FREE and getattr(there, name) != getattr(config, name)]
    if other:
        told = ", ".join(f"{name} {getattr(there, name)!r}, not {getattr(config, name)!r}" for name in other[:5])
        raise InputError(f"{config.out} already holds another run ({told}); {otherwise}")
    return True


def check_same_run(
    last: Path, position: Mapping[str, Any], kept: Mapping[str, Any], config: Settings, per_epoch: int, *, anew: str, order: Sequence[str]
) -> None:
    """Options may change on resuming, but not those that the checkpoint's contents depend on.

    Args:
        last: the checkpoint; `position` and `kept`: what it says of itself, and its config as JSON.
        per_epoch: batches an epoch has by the config.
        anew: what to do for another rule, optimizer or lambda.
        order: fields that decide which samples an epoch shows when: they cannot change within one.

    Raises:
        InputError: they have.
    """
    learning = kept["learning"]
    for name in ("rule", "optimizer"):
        if learning[name] != getattr(config, name):
            raise InputError(f"{last} is of {name} {learning[name]}; {anew}")
    form = learning.get("form", "feddyn")
    if config.rule == "fptt" and (form == "paper") != (config.form == "paper"):  # lambda is a gradient there, a multiplier in the others
        raise InputError(f"{last} is of form {form}, whose lambda means another thing than that of {config.form}; {anew}")
    if position["batch"] and (position["per_epoch"] != per_epoch or changed(kept, config, order)):
        raise InputError(
            f"{last} stands at batch {position['batch']} of {position['per_epoch']} in its epoch; {', '.join(order[:-1])} and {order[-1]} "
            "can be changed between two epochs only"
        )


def changed(kept: Mapping[str, Any], config: Settings, names: Sequence[str]) -> list[str]:
    """Which of these fields are not as a checkpoint's config has them. `kept`: that config, as JSON; what an older one does not name passes
    for unchanged."""
    now, sections = plain(config.to_dict()), {name: config.fields()[name][0] for name in names}
    return [name for name, section in sections.items() if kept[section].get(name, now[section][name]) != now[section][name]]


def measured_otherwise(kept: Mapping[str, Any], config: Settings, names: Sequence[str], best: Path, tell: bool = True) -> bool:
    """Whether a resumed run's scores are of something else than the checkpoint's, so that its best is no rival any more; `tell`: warn.

    Args:
        kept: the checkpoint's config, as JSON.
        names: fields that decide what a score is of.
        best: the weights that are chosen by it.
    """
    differ = changed(kept, config, names)
    if differ and tell:
        warnings.warn(f"{', '.join(differ)}: not as before, so {best.name} is chosen anew", stacklevel=4)
    return bool(differ)


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


def weight_names(model: nn.Module, weights: Sequence[Tensor]) -> list[str]:
    """The model's names of these weights of it, in their order."""
    by_id = {id(p): name for name, p in model.named_parameters()}
    return [by_id[id(w)] for w in weights]


def moments(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """What the optimizer remembers of each weight, as `optim.<weight>.<moment>`; `names` are its weights' in its order."""
    state = optimizer.state_dict()["state"]
    return {f"optim.{names[i]}.{k}": torch.as_tensor(v) for i, kept in state.items() for k, v in kept.items()}


def load_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], names: list[str]) -> None:
    """Give the optimizer back what `moments` wrote."""
    weights = [w for group in optimizer.param_groups for w in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for i, name in enumerate(names):
        prefix = f"optim.{name}."
        found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if found:
            state[i] = {k: laid_out_as(weights[i], v) for k, v in found.items()}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def laid_out_as(weight: Tensor, moment: Tensor) -> Tensor:
    """A moment in the memory order of its weight: the fused optimizers walk both as they lie in memory, whatever their strides say."""
    return torch.empty_like(weight).copy_(moment) if moment.shape == weight.shape else moment
