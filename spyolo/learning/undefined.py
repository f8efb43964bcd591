"""Pairs of rule and network that are not defined, each with its reason."""

from __future__ import annotations

from torch import nn

from spyolo.errors import InputError
from spyolo.neurons.cells import ALIFUnit, Cell, LeakyReLUUnit, LIFUnit, LTCUnit
from spyolo.neurons.gated import GRUUnit, LSTMUnit
from spyolo.neurons.gates import ConcatLinearGate, StaticGate, SumLinearGate
from spyolo.neurons.readout import Readout
from spyolo.neurons.snu import SNUUnit
from spyolo.neurons.stack import Stack

KNOWN = (LTCUnit, LIFUnit, ALIFUnit, SNUUnit, LSTMUnit, GRUUnit, LeakyReLUUnit)  # units whose own parameters the traces follow, if any


def check_stack(rule: str, network: nn.Module) -> Readout:
    """The readout of a network that a local rule can train.

    Raises:
        InputError: not a Stack of cells, products in bf16, or a readout with a memory of its own that is learned.
    """
    if not isinstance(network, Stack):
        raise InputError(f"{rule}: needs a Stack of cells, whose layers it sees; {type(network).__name__} trains with bptt, fptt or sltt")
    strange = next((type(cell).__name__ for cell in network.cells if not isinstance(cell, Cell)), "")
    if strange:
        raise InputError(f"{rule}: a layer is a {strange}, not a Cell of synapse and unit; such a network trains with bptt, fptt or sltt")
    if network.amp != "none":
        raise InputError(f"{rule}: works through the layers itself, in their own dtype: amp {network.amp} goes with bptt, fptt and sltt")
    if not isinstance(network.readout, Readout) or network.readout.kind not in ("linear", "leaky"):
        kind = network.readout.kind if isinstance(network.readout, Readout) else type(network.readout).__name__
        raise InputError(f"{rule}: a {kind} readout has a memory whose gradient no trace here follows; use linear or leaky")
    return network.readout


def check_traceable(rule: str, network: nn.Module, *, jacobian: bool = False) -> Readout:
    """The same for rules with a trace a synapse (e-prop, OSTL): their synapses must be dense.

    Args:
        jacobian: traces of all the parameters of a cell, whatever they are.

    Raises:
        InputError: convolutional or normalised synapses, units without a state or with parameters that no trace follows, gates that are
            not dense.
    """
    readout = check_stack(rule, network)
    assert isinstance(network, Stack)
    for i, cell in enumerate(network.cells):
        where = f"{rule}: layer {i}"
        for synapse in (cell.synapse, cell.recurrent):
            if synapse is not None and type(synapse) is not nn.Linear:
                raise InputError(
                    f"{where} has a {type(synapse).__name__} synapse; a trace a synapse is kept for nn.Linear alone (a convolution would "
                    "need one for every place it is used at): use fptt, sltt or ottt"
                )
        if isinstance(cell.unit, LeakyReLUUnit):
            raise InputError(f"{where} has LeakyReLU units, which have no state to trace: use bptt")
        if type(cell.unit) not in KNOWN and not jacobian and any(True for _ in cell.unit.parameters()):
            raise InputError(
                f"{where} has {type(cell.unit).__name__} units, whose own parameters no trace here follows: use ostl with jacobian=True, "
                "fptt or bptt"
            )
        if isinstance(cell.unit, LTCUnit):
            for gate in (cell.unit.gate, cell.unit.adaptation_gate):
                if gate is not None and not isinstance(gate, ConcatLinearGate | SumLinearGate | StaticGate):
                    raise InputError(f"{where} has a {type(gate).__name__}, which mixes neighbours: use fptt, or a dense or static gate")
    return readout
