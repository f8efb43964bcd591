"""Weights files of sequence networks: what a run says of its network, and the network again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from spyolo.errors import InputError
from spyolo.files import one_line, shortened
from spyolo.neurons import Stack
from spyolo.sequence.config import SequenceConfig
from spyolo.sequence.networks import build_network
from spyolo.sequence.published import resolve
from spyolo.sequence.tasks import build_task
from spyolo.sequence.tasks.base import Sizes
from spyolo.settings import flattened
from spyolo.tensors import is_checkpoint, read_tensors, under

FORMAT = "spyolo-sequence-1"


def description(config: SequenceConfig, sizes: Sizes, notes: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata with which `load` builds the network again, without the task's data."""
    return {"format": FORMAT, "config": config.to_dict(), "sizes": sizes._asdict(), "notes": dict(notes)}


def load(path: str | Path) -> tuple[Stack, SequenceConfig]:
    """The network of a run on sequences, in evaluation mode, and the run's config.

    Args:
        path: a name of published weights (weights/sequence), a run's best.safetensors (the weights that were evaluated), or its
            last.safetensors (W).

    Raises:
        InputError: no such file, cut off, of a detector or another format, or tensors that do not fit its description; names the first.
    """
    path = resolve(path)
    tensors, metadata = read_tensors(path)
    config, sizes = described(metadata, path)
    if is_checkpoint(tensors):
        tensors = under("model.", tensors)
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):  # building seeds all generators: the caller's go on as they were
            with torch.device("meta"):  # shapes alone: nothing is made of a size that the file does not hold
                wanted = build_network(config, sizes).state_dict()
            for name, tensor in wanted.items():
                if name not in tensors or tensors[name].shape != tensor.shape:
                    held = f"has shape {tuple(tensors[name].shape)}" if name in tensors else "is missing"
                    raise InputError(f"{path}: tensor {name} {held}, expected {tuple(tensor.shape)}")
                if not bool(tensors[name].isfinite().all()):
                    raise InputError(f"{path}: tensor {name} holds values that are not finite; take an earlier checkpoint")
            network = build_network(config, sizes)
    except InputError:
        raise
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise InputError(f"{path}: its description cannot be built: {one_line(error)}") from error
    network.load_state_dict({k: v for k, v in tensors.items() if k in wanted})
    return network.eval(), config


def initialise(network: Stack, path: str | Path) -> None:
    """Put the weights of another run (a file, or a published name) into `network`, which is of the same layers.

    Raises:
        InputError: as `load`, or a network of other layers; names the first tensor that differs.
    """
    found, wanted = load(path)[0].state_dict(), network.state_dict()
    for name in [*wanted, *found]:
        if name not in found or name not in wanted or found[name].shape != wanted[name].shape:
            held, own = (f"shape {tuple(there[name].shape)}" if name in there else "none" for there in (found, wanted))
            raise InputError(f"{path} is of another network: of tensor {name} it has {held}, this run {own}")
    network.load_state_dict(found)


def described(metadata: Mapping[str, str], path: str | Path) -> tuple[SequenceConfig, Sizes]:
    """What a file's metadata say of its network.

    Raises:
        InputError: another format, or a field that is missing or malformed.
    """
    found = metadata.get("format", "")
    if found != FORMAT:
        kind = "a detector" if found == "spyolo-1" else f"of format {shortened(found)}" if found else "without a description"
        raise InputError(f"{path}: {kind}, not a sequence network ({FORMAT}), which train_sequence writes as best.safetensors")
    try:
        base = SequenceConfig()
        config = base.updated(flattened(json.loads(metadata["config"]), base, str(path)), str(path))
        if "sizes" not in metadata:  # of an earlier version: its task's data tell
            return config, build_task(config).sizes
        tree = json.loads(metadata["sizes"])
        sizes = Sizes(tuple(int(n) for n in tree["inputs"]), int(tree["outputs"]), int(tree["vocabulary"]))
        if min(sizes.outputs, *sizes.inputs, 1) < 1 or sizes.vocabulary < 0:
            raise ValueError("sizes must be positive")
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise InputError(f"{path}: its metadata is malformed ({one_line(error)})") from error
    return config, sizes
