"""Going on with a run: whether it is the same one, and its state as named tensors.

Names in a checkpoint: `model.<tensor>`, `<kind>.<weight>` for each kind of memory (FPTT's average and lambda, the EMA), and
`optim.<weight>.<moment>`. Both trainers save and restore by these; what else their runs keep they add themselves.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spyolo.errors import InputError
from spyolo.files import is_there, one_line, shortened
from spyolo.settings import Settings, load_settings, plain
from spyolo.tensors import under

# What may differ between a run and its continuation: none of it changes what is learned.
FREE = ("out", "device", "workers", "cache", "save_seconds", "max_minutes")

Memory = Mapping[str, Sequence[Tensor]]  # kind -> a tensor for each weight, in their order


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
    other = [name for name in other if not (there.unread(name) and config.unread(name))]
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
    if position["batch"] and position["epoch"] >= config.epochs:
        raise InputError(
            f"{last} stands in the middle of epoch {position['epoch'] + 1}, so a run of {config.epochs} has no end here: give --epochs "
            f"{position['epoch'] + 1} or more"
        )
    if position["batch"] and (position["per_epoch"] != per_epoch or changed(kept, config, order)):
        raise InputError(
            f"{last} stands at batch {position['batch']} of {position['per_epoch']} in its epoch; {', '.join(order[:-1])} and {order[-1]} "
            "can be changed between two epochs only"
        )


def check_same_network(last: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises InputError where a checkpoint's detector is built otherwise: tensors of one shape would mean another thing.

    Args:
        before, now: the two specs, as trees; what an older one does not name passes for unchanged.
    """
    was, wanted = ({**spec, **spec["units"]} for spec in (before, plain(now)))
    other = [name for name in was if name != "units" and name in wanted and was[name] != wanted[name]]
    if other:
        raise InputError(
            f"{last} is of a detector with {other[0]} {shortened(was[other[0]])}, not {shortened(wanted[other[0]])}; to train another, "
            "start a new run with --init"
        )


def changed(kept: Mapping[str, Any], config: Settings, names: Sequence[str]) -> list[str]:
    """Which of these fields are not as a checkpoint's config has them, but for those of which nothing is made. `kept`: that config, as
    JSON; what an older one does not name passes for unchanged."""
    now, sections = plain(config.to_dict()), {name: config.fields()[name][0] for name in names if not config.unread(name)}
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


def state_tensors(model: nn.Module, weights: Sequence[Tensor], memory: Memory, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of a checkpoint.

    Args:
        weights: those of the model that are learned, in the optimizer's order.
    """
    names = weight_names(model, weights)
    tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"{kind}.{name}": v for kind, name, v in remembered(memory, names)}
    return tensors | moments(optimizer, names)


@torch.no_grad()
def restore(
    tensors: Mapping[str, Tensor], model: nn.Module, weights: Sequence[Tensor], memory: Memory, optimizer: torch.optim.Optimizer
) -> None:
    """Put back, in place, what `state_tensors` gave."""
    names = weight_names(model, weights)
    model.load_state_dict(under("model.", tensors))
    for kind, name, v in remembered(memory, names):
        v.copy_(tensors[f"{kind}.{name}"])
    load_moments(optimizer, tensors, names)


@contextmanager
def taking_up(path: Path) -> Iterator[None]:
    """Inside, what a checkpoint holds is read: anything that does not fit is an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except (LookupError, TypeError, RuntimeError, ValueError, ArithmeticError, AttributeError) as error:
        raise InputError(f"{path}: not a checkpoint of this run ({one_line(error)})") from error


def remembered(memory: Memory, names: Sequence[str]) -> Iterator[tuple[str, str, Tensor]]:
    """Each kind of memory of each weight: kind, the weight's name, and the tensor."""
    for kind, values in memory.items():
        for name, v in zip(names, values):
            yield kind, name, v


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
        found = under(f"optim.{name}.", tensors)
        if found:
            state[i] = {k: laid_out_as(weights[i], v) for k, v in found.items()}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def laid_out_as(weight: Tensor, moment: Tensor) -> Tensor:
    """A moment in the memory order of its weight: the fused optimizers walk both as they lie in memory, whatever their strides say."""
    return torch.empty_like(weight).copy_(moment) if moment.shape == weight.shape else moment
