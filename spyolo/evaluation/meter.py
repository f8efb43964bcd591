"""EnergyMeter: hooks that count what a network really does, layer by layer and step by step.

    with EnergyMeter(model) as meter:
        ...  # evaluate the model as usual, any number of batches
    counts = meter.counts()

No model file is imported; a layer is known by what it is:

- A *synapse* is a convolution or a linear layer.
- A *unit* is a module with a method `initial_state`, called as `unit(current, state) -> (output, state after)`. A state of None after the
  call: a plain activation. Otherwise neurons: outputs, 0 or 1, are spikes, a third field of the state that is not None is an
  adaptation, the attributes `gate` and `adaptation_gate` are the modules that set time constants, and the synapses inside the unit are the
  gates' weights.
- A *readout* is a module called as `(x, state) -> (output, state after)` whose state has a field `o`.
- Batch norm folds into the synapse before it, and a bias is what the accumulator starts from: no operations. A gate whose logit does not
  depend on the data is a constant: none either. Pooling, concatenation and resampling move values and are not counted. Other modules that
  own parameters are listed in `Counts.uncounted`.

A sequence starts where a unit is asked for its initial state; that is also how pictures are counted. Values are counted where they are, by
adding to small integer tensors: nothing waits for the device before `counts()`. Run the model eagerly: a compiled graph calls no hooks.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from spyolo.evaluation.synapses import MEASURED, FanOut, fan_out, geometry, is_synapse, measure
from spyolo.evaluation.tallies import Counts, LayerCounts, Tally


class _Ledger:
    """A layer while it is being counted: what is known from shapes in `steps`, what is known on the device in tensors."""

    def __init__(self, name: str, part: str, weights: int) -> None:
        self.name, self.part, self.weights = name, part, weights
        self.steps: defaultdict[int, Tally] = defaultdict(Tally)
        self.measured: dict[int, Tensor] = {}  # step -> [5] int64, see MEASURED
        self.channels: dict[int, Tensor] = {}  # step -> [C] int64, spikes of each channel

    def add(self, step: int, tally: Tally, measured: Tensor | None = None, channels: Tensor | None = None) -> None:
        self.steps[step] += tally
        for store, values in ((self.measured, measured), (self.channels, channels)):
            if values is not None:
                store[step] = store[step] + values if step in store else values

    def read(self) -> LayerCounts:
        """Fetch everything from the device."""
        steps = [self.steps.get(step, Tally()) for step in range(max(self.steps, default=-1) + 1)]
        for step, values in self.measured.items():
            steps[step] += Tally(**dict(zip(MEASURED, values.tolist())))
        for step, channels in self.channels.items():
            steps[step] += Tally(spikes=int(channels.sum()))
        by_channel = None
        if self.channels:
            none = torch.zeros_like(next(iter(self.channels.values())))
            by_channel = torch.stack([self.channels.get(step, none) for step in range(len(steps))]).cpu()
        return LayerCounts(self.name, self.part, self.weights, tuple(steps), by_channel)


class EnergyMeter:
    """Counts the operations of a module tree while it is open; see the head of this file.

    Args:
        model: any module.
        pictures: stop counting after the batch that reaches so many pictures; None counts all.
    """

    def __init__(self, model: nn.Module, pictures: int | None = None) -> None:
        self.model, self.limit, self.pictures = model, pictures, 0
        self.units = {name: module for name, module in model.named_modules() if is_unit(module)}
        self._ledgers: dict[str, _Ledger] = {}
        self._fans: dict[tuple[str, torch.Size, torch.device], FanOut] = {}
        self._fresh: set[str] = set()  # units that were asked for their initial state and have not run since
        self._at: dict[str, int] = {}  # the step each unit is at
        self._step = 0  # the step of the unit that ran last
        self._lead: str | None = None  # what counts the pictures: the first unit that ran, or the first synapse where there are no units
        self._early: set[str] = set()  # synapses that run before the first unit: their step is that of the unit to come
        self._waiting: list[tuple[_Ledger, Tally, Tensor]] = []  # their calls, until it comes
        self._full = False
        self._undo: list[Callable[[], Any]] = []

    def __enter__(self) -> EnergyMeter:
        for name, module in self.model.named_modules():
            if name in self.units:
                self._watch_unit(name, module)
            elif is_synapse(module):
                part = "gate" if self._in_unit(name) else "synapse"
                self._undo.append(module.register_forward_hook(self._synapse_hook(name, part)).remove)
            else:
                self._undo.append(module.register_forward_hook(self._readout_hook(name)).remove)
        return self

    def __exit__(self, *_: object) -> None:
        while self._undo:
            self._undo.pop()()

    def counts(self) -> Counts:
        """Read the counters."""
        self._place_waiting()
        uncounted = tuple(
            name
            for name, module in self.model.named_modules()
            if next(module.parameters(recurse=False), None) is not None
            and not (is_synapse(module) or isinstance(module, _NormBase) or self._in_unit(name) or name in self._ledgers)
        )
        return Counts(self.pictures, tuple(ledger.read() for ledger in self._ledgers.values()), uncounted)

    def _in_unit(self, name: str) -> bool:
        return any(name == unit or name.startswith(f"{unit}.") for unit in self.units)

    def _ledger(self, name: str, part: str, weights: int = 0) -> _Ledger:
        return self._ledgers.setdefault(name, _Ledger(name, part, weights))

    def _start_sequence(self, rows: int) -> None:
        """The lead begins a new batch: count it, or stop if there are enough pictures."""
        if self.limit is not None and self.pictures >= self.limit:
            self._full = True
            self._waiting.clear()
        else:
            self.pictures += rows

    def _place_waiting(self) -> None:
        for ledger, tally, measured in self._waiting:
            ledger.add(self._step, tally, measured)
        self._waiting.clear()

    def _synapse_hook(self, name: str, part: str) -> Callable[..., None]:
        def hook(layer: Any, args: tuple[Tensor, ...], out: Tensor) -> None:
            x = args[0].detach()
            if not self.units and self._lead in (None, name):
                self._lead = name
                self._start_sequence(x.shape[0])
            if self._full:
                return
            key = (name, x.shape, x.device)
            if key not in self._fans:
                self._fans[key] = fan_out(layer, x.shape, x.device)
            tally = geometry(layer, self._fans[key], x.shape, out.numel())
            call = (self._ledger(name, part, sum(p.numel() for p in layer.parameters())), tally, measure(x, self._fans[key], tally))
            if self._lead is None:
                self._early.add(name)
            if name in self._early:
                self._waiting.append(call)
            else:
                call[0].add(self._step, *call[1:])

        return hook

    def _watch_unit(self, name: str, unit: Any) -> None:
        initial_state = unit.initial_state

        def noted(current: Tensor) -> Any:
            self._fresh.add(name)
            return initial_state(current)

        unit.initial_state = noted  # on the instance, so that taking it off again uncovers the method
        self._undo.append(lambda: delattr(unit, "initial_state"))
        self._undo.append(unit.register_forward_pre_hook(self._before_unit(name)).remove)
        self._undo.append(unit.register_forward_hook(self._after_unit(name)).remove)
        for gate in (getattr(unit, "gate", None), getattr(unit, "adaptation_gate", None)):
            if isinstance(gate, nn.Module):
                self._undo.append(gate.register_forward_hook(self._gate_hook(name)).remove)

    def _before_unit(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            fresh = name in self._fresh or args[1] is None
            self._fresh.discard(name)
            self._step = self._at[name] = 0 if fresh else self._at.get(name, -1) + 1
            self._lead = self._lead or name
            if self._lead == name and self._step == 0:
                self._start_sequence(args[0].shape[0])
            self._place_waiting()
            if not self._full:
                self._ledger(name, "unit")  # listed before its gate

        return hook

    def _after_unit(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], output: tuple[Tensor, Any]) -> None:
            if self._full:
                return
            out, state = output
            n, ledger = out.numel(), self._ledger(name, "unit")
            if state is None:
                ledger.add(self._step, Tally(rows=out.shape[0], activations=n))
                return
            adaptations = n if len(state) > 2 and state[2] is not None else 0
            tally = Tally(rows=out.shape[0], neurons=n, adaptation_updates=adaptations)
            ledger.add(self._step, tally, channels=None if out.is_meta else spikes_of(out))

        return hook

    def _gate_hook(self, unit: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], logit: Tensor) -> None:
            if not self._full and logit.shape == args[0].shape:  # a smaller logit, one for each channel, does not depend on the data
                self._ledger(unit, "unit").add(self._step, Tally(gate_updates=logit.numel()))

        return hook

    def _readout_hook(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if self._full or not (isinstance(output, tuple) and len(output) == 2 and hasattr(output[1], "o")):
                return
            first = len(args) < 2 or args[1] is None  # the first step only copies
            updates = 0 if first else output[0].numel()
            self._ledger(name, "readout").add(self._step, Tally(rows=output[0].shape[0], readout_updates=updates))

        return hook


def is_unit(module: nn.Module) -> bool:
    """By the protocol at the head of this file."""
    return callable(getattr(module, "initial_state", None))


def spikes_of(out: Tensor) -> Tensor:
    """[B, C, ...] of 0 and 1 -> spikes of each channel, [C] int64 on the device."""
    out = out.detach()
    if out.dim() > 2:  # in fp32, exact up to 2^24 a map and many times as fast as in whole numbers
        out = out.flatten(2).sum(2, dtype=torch.promote_types(out.dtype, torch.float32))
    return out.long().sum(0)


def dense_counts(model: nn.Module, *inputs: Tensor) -> Counts:
    """Counts from shapes alone, every operand taken for real numbers: a plain network's price without running it on data.

    The model is copied to the meta device, so it neither runs nor changes. `inputs` gives shapes and types only.
    """
    ghost = copy.deepcopy(model).to("meta").eval()
    with torch.inference_mode(), torch.compiler.set_stance("force_eager"), EnergyMeter(ghost) as meter:  # nothing is worth compiling here
        ghost(*(x.to("meta") for x in inputs))
    return meter.counts()
