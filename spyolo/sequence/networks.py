"""From a config to a network for a task (convolutional cells, dense cells, a readout), and to the rule that trains it."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor, nn

from spyolo.errors import InputError
from spyolo.files import shortened
from spyolo.learning import SequenceRule, build_rule
from spyolo.neurons import SURROGATES, ALIFUnit, Cell, LIFUnit, LTCUnit, Readout, Stack, build_gate, dense_cell
from spyolo.running import build_optimizer
from spyolo.sequence.config import SequenceConfig
from spyolo.sequence.objectives import Objective
from spyolo.sequence.tasks.base import Sizes, Task

SPIKING = ("ltc", "lif", "alif", "snu")
LAYER = re.compile(r"(?:(\d{1,99})c(\d{1,99})|p(\d{1,99}))")
MOST_CHANNELS, MOST_KERNEL, MOST_WEIGHTS = 4096, 127, 1 << 28  # of a convolutional layer


def build_network(config: SequenceConfig, task: Task | Sizes) -> Stack:
    """The config's network with weights drawn from its seed.

    Raises:
        InputError: layers that make no sense for the task or the neurons.
    """
    torch.manual_seed(config.seed)
    shape = task.inputs
    cells: list[Cell] = []
    if config.conv:
        cells, shape = conv_cells(config, shape)
    elif len(shape) > 1:
        raise InputError(f"task {config.task} shows pictures of {shape}: give conv, for example --conv 32c3-p2-64c3-p2")
    features = config.embed if task.vocabulary else math.prod(shape)
    for size in config.hidden:
        cell = dense_cell(config.cell, features, size, recurrent=config.recurrent, **unit_options(config))
        if "snu" in config.cell:
            cell.synapse.register_parameter("bias", None)  # the unit has one: its threshold
        if len(shape) > 1:  # maps of convolutional cells
            cell.synapse = nn.Sequential(nn.Flatten(), cell.synapse)
        elif task.vocabulary and not cells:
            cell.synapse = nn.Sequential(nn.Embedding(task.vocabulary, config.embed), cell.synapse)
        cells.append(cell)
        shape, features = (size,), size
    readout: nn.Module = Readout(features, task.outputs, config.readout, decay=config.readout_decay, reads=config.reads)
    network = Stack(cells, readout, config.amp)
    if config.init == "xavier":
        xavier(network)
    if config.slowest:
        if not gate_biases(network):
            raise InputError("slowest is for LTC neurons whose gates have biases: cell ltc, and a gate that is not static")
        spread_gates(network, config.slowest)
    elif config.gate_bias is not None:
        bias_gates(network, config.gate_bias)
    return network.to(getattr(torch, config.dtype))


def rule_for(
    config: SequenceConfig, network: nn.Module, objective: Objective, optimizer: torch.optim.Optimizer | None = None
) -> SequenceRule:
    """The config's rule, around the config's optimizer (None: a new one).

    Raises:
        InputError: a rule that is not defined for these neurons, with the reason.
    """
    options: dict[str, Any] = {}
    if config.rule == "fptt":
        options = {"alpha": config.alpha, "form": config.form}
    elif config.rule == "sltt":
        options = {"steps": config.sltt_steps or None, "seed": config.seed}
    elif config.rule == "eprop":
        options = {"feedback": config.feedback, "seed": config.seed}
    elif config.rule == "ostl":
        options = {"with_h": config.with_h}
    optimizer = optimizer or build_optimizer(config, network)
    return build_rule(
        config.rule, network, optimizer, objective.loss, parts=config.parts or None, mean=config.mean, clip=config.clip or None, **options
    )


def unit_options(config: SequenceConfig) -> dict[str, Any]:
    """What the config says of the neurons, as options of their unit; fields that the neuron does not have are left to its own values."""
    if config.cell in ("lstm", "gru"):
        return {}
    chosen: dict[str, Any] = {}
    if config.threshold is not None:
        chosen["threshold"] = config.threshold
    if config.surrogate is not None and config.cell != "ssnu":
        chosen["surrogate"] = SURROGATES[config.surrogate]
    if config.cell == "ltc":
        chosen |= {"gate": config.gate, "adaptive": config.adaptive}
    elif config.decay is not None:
        chosen["decay" if "snu" in config.cell else "alpha"] = config.decay
    return chosen


def conv_cells(config: SequenceConfig, shape: tuple[int, ...]) -> tuple[list[Cell], tuple[int, ...]]:
    """Cells of `conv`: convolution with "same" padding and a batch norm shared over the steps; a pooling takes the current of the layer
    before it, as in the reference.

    Args:
        shape: of the task's pictures, (C, H, W).

    Returns:
        The cells, and the shape (C, H, W) that comes out of the last one.

    Raises:
        InputError: no pictures, neurons without convolutional layers, or a word of `conv` that is no layer, too large or does not fit;
            names it.
    """
    if len(shape) != 3:
        raise InputError(f"task {config.task} shows no pictures: conv does not go with it")
    if config.cell not in ("ltc", "lif", "alif"):
        raise InputError(f"convolutional layers are of ltc, lif or alif neurons, not of {config.cell}")
    channels, height, width = shape
    cells: list[Cell] = []
    for word in config.conv.split("-"):
        match = LAYER.fullmatch(word)
        if not match:
            raise InputError(f"conv: {shortened(word)} is no layer; 32c3 is 32 channels 3x3, p2 a pooling")
        if match[3]:
            pool = int(match[3])
            if not cells or pool < 1 or min(height, width) < pool:
                raise InputError(f"conv: {word} does not fit: pictures are {height} x {width} here, and a convolution comes first")
            cells[-1].synapse = nn.Sequential(*cells[-1].synapse, nn.MaxPool2d(pool))  # type: ignore[misc]
            height, width = height // pool, width // pool
            continue
        out, kernel = int(match[1]), int(match[2])
        if not out or kernel % 2 == 0:
            raise InputError(f"conv: {word} needs channels and an odd kernel")
        if out > MOST_CHANNELS or kernel > MOST_KERNEL or channels * out * kernel**2 > MOST_WEIGHTS:
            raise InputError(
                f"conv: {shortened(word)} is too large behind {channels} channels: a layer has at most {MOST_CHANNELS} channels, a kernel "
                f"of {MOST_KERNEL} and {MOST_WEIGHTS:,} weights"
            )
        synapse = nn.Sequential(nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(out))
        cells.append(Cell(synapse, conv_unit(config, out)))
        channels = out
    return cells, (channels, height, width)


def conv_unit(config: SequenceConfig, channels: int) -> nn.Module:
    chosen = {k: v for k, v in unit_options(config).items() if k not in ("gate", "adaptive")}
    if config.cell == "ltc":
        adaptation = build_gate(config.conv_gate, channels) if config.adaptive else None
        return LTCUnit(build_gate(config.conv_gate, channels), adaptation_gate=adaptation, **chosen)
    return (LIFUnit if config.cell == "lif" else ALIFUnit)(**chosen)


@torch.no_grad()
def xavier(network: nn.Module) -> None:
    """Glorot uniform for every matrix and kernel, zero biases: the reference's."""
    for m in network.modules():
        if isinstance(m, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


@torch.no_grad()
def bias_gates(network: nn.Module, bias: float) -> None:
    """Start the membrane's gates of dense LTC neurons at this bias."""
    for found in gate_biases(network):
        found.fill_(bias)


@torch.no_grad()
def spread_gates(network: nn.Module, slowest: int) -> None:
    """Start dense LTC neurons with time constants n of their own, evenly drawn from 2 to `slowest` steps: sigma(bias) = 1 / n, as
    Tallec & Ollivier (2018, chrono initialization) start the forget gates of an LSTM."""
    for found in gate_biases(network):
        found.copy_(-torch.log(torch.empty_like(found).uniform_(2, slowest) - 1))


def gate_biases(network: nn.Module) -> list[Tensor]:
    """Of the membrane's gates of dense LTC neurons."""
    units = [m for m in network.modules() if isinstance(m, LTCUnit) and isinstance(getattr(m.gate, "linear", None), nn.Linear)]
    return [unit.gate.linear.bias for unit in units]  # type: ignore[union-attr,misc]
