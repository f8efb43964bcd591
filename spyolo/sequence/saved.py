"""Weights files of sequence networks: what a run says of its network, and the network again."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
BEHAVIOUR = (  # of a network: what the same tensors do
    "cell", "conv", "gate", "adaptive", "threshold", "decay", "surrogate", "readout", "readout_decay", "reads",
)  # fmt: skip


def description(config: SequenceConfig, sizes: Sizes, notes: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata with which `load` builds the network again, without the task's data."""
    return {"format": FORMAT, "config": config.to_dict(), "sizes": sizes._asdict(), "notes": dict(notes)}


class Saved(NamedTuple):
    """What a weights file holds."""

    network: Stack  # in evaluation mode
    config: SequenceConfig  # of its run; `weights_of` says which weights these are
    sizes: Sizes  # of its task
    notes: dict[str, Any]


def load(path: str | Path) -> tuple[Stack, SequenceConfig]:
    """The network of a run on sequences, in evaluation mode, and the run's config.

    Args:
        path: a name of published weights (weights/sequence), a run's best.safetensors (the weights that were evaluated), or its
            last.safetensors (W).

    Raises:
        InputError: no such file, cut off, of a detector or another format, or tensors that do not fit its description; names the first.
    """
    return read(path)[:2]


def read(path: str | Path) -> Saved:
    """All that a weights file holds, as `load`."""
    path = resolve(path)
    tensors, metadata = read_tensors(path)
    config, sizes, notes = described(metadata, path)
    if is_checkpoint(tensors):
        tensors, config = under("model.", tensors), config.updated({"weights_of": "w"})
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
    return Saved(network.eval(), config, sizes, notes)


def initialise(network: Stack, config: SequenceConfig, sizes: Sizes, *, held_out: bool = False) -> dict[str, Any]:
    """Put the weights of another run (`config.init`: a file, or a published name) into `network`, which is of the same layers.

    Args:
        held_out: the run is judged by training sequences that it holds out; then these weights must have held them out too.

    Returns:
        The notes of the file.

    Raises:
        InputError: as `load`, a network of other layers (names the first tensor that differs), of another task's tokens, or one that has
            learned from what is to be judged by.
    """
    saved = read(config.init)
    found, wanted = saved.network.state_dict(), network.state_dict()
    for name in [*wanted, *found]:
        if name not in found or name not in wanted or found[name].shape != wanted[name].shape:
            held, own = (f"shape {tuple(there[name].shape)}" if name in there else "none" for there in (found, wanted))
            raise InputError(f"{config.init} is of another network: of tensor {name} it has {held}, this run {own}")
    check_tokens(config.init, saved.sizes, sizes)
    if saved.config.task == config.task == "digits" and set(saved.config.test_speakers) != set(config.test_speakers):
        raise InputError(
            f"{config.init} has learned from all speakers but {', '.join(saved.config.test_speakers)}; they stay the test: "
            f"give --test-speakers {','.join(saved.config.test_speakers)}"
        )
    if held_out:
        check_held_out(config.init, saved.config, config)
    other = [f"{name} {getattr(saved.config, name)}" for name in BEHAVIOUR if getattr(saved.config, name) != getattr(config, name)]
    if other:
        warnings.warn(f"the weights of {config.init} were trained with {', '.join(other)}; this run has others", stacklevel=3)
    network.load_state_dict(found)
    return saved.notes


def check_held_out(name: str | Path, its: SequenceConfig, config: SequenceConfig) -> None:
    """Raises InputError where weights, of a run `its`, have learned from the training sequences that `config` holds out to judge by."""
    if (its.judge, its.limit, its.task) != (config.judge, config.limit, config.task):
        limit = f" and --limit {its.limit}" if its.judge == "validation" else ""
        raise InputError(
            f"{name} has learned from training sequences that --judge validation would hold out: it was trained on {its.task} with "
            f"--judge {its.judge}{limit}; judge it by the test, or take weights of a run with --judge validation --limit {config.limit}"
        )


def check_tokens(name: str | Path, its: Sizes, wanted: Sizes) -> None:
    """Raises InputError where both sizes are of texts, and not of the same characters or words in the same order."""
    if its.tokens and wanted.tokens and its.tokens != wanted.tokens:
        raise InputError(f"{name} is of a text of other characters or words: its numbers mean others than those of these data")


def check_sizes(name: str | Path, its: Sizes, wanted: Sizes) -> None:
    """Raises InputError where a network of sizes `its` is no network for data of sizes `wanted`."""
    for what, own, there in zip(Sizes._fields[:3], its, wanted):
        if own != there:
            raise InputError(f"{name} does not fit these data: its {what} are {own}, theirs {there}; give data such as it was trained on")
    check_tokens(name, its, wanted)


def described(metadata: Mapping[str, str], path: str | Path) -> tuple[SequenceConfig, Sizes, dict[str, Any]]:
    """What a file's metadata say of its network, and its notes.

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
        notes = dict(json.loads(metadata.get("notes", "{}")))
        if "sizes" not in metadata:  # of an earlier version: its task's data tell
            return config, build_task(config).sizes, notes
        sizes = sizes_from(json.loads(metadata["sizes"]))
        if min(sizes.outputs, *sizes.inputs, 1) < 1 or sizes.vocabulary < 0:
            raise ValueError("sizes must be positive")
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise InputError(f"{path}: its metadata is malformed ({one_line(error)})") from error
    return config, sizes, notes


def sizes_from(tree: Mapping[str, Any]) -> Sizes:
    """Sizes from a file's metadata. Raises KeyError, TypeError or ValueError where they are none."""
    inputs, tokens = tuple(int(n) for n in tree["inputs"]), str(tree.get("tokens", ""))  # files of earlier versions do not tell tokens
    return Sizes(inputs, int(tree["outputs"]), int(tree["vocabulary"]), tokens)
