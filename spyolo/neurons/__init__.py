"""Neurons: pure steps with explicit state, surrogates, gates, and the cell that puts them together."""

from spyolo.neurons.cells import DENSE, ALIFUnit, Cell, LeakyReLUUnit, LIFUnit, LTCUnit, dense_cell, dense_ltc
from spyolo.neurons.gated import GRUState, GRUUnit, LSTMState, LSTMUnit
from spyolo.neurons.gates import CONV_GATES, DENSE_GATES, GATES, ConcatLinearGate, ConvGate, StaticGate, SumLinearGate, build_gate
from spyolo.neurons.lif import ALIFState, LIFState, alif_step, leaky_readout_step, lif_step
from spyolo.neurons.ltc import LTCState, ltc_step
from spyolo.neurons.norm import BatchRenorm2d, build_norm, fresh_statistics, frozen_statistics, norms
from spyolo.neurons.precision import autocast, choose_amp, has_bf16
from spyolo.neurons.readout import READOUTS, Readout
from spyolo.neurons.snu import SNUState, SNUUnit, snu_step
from spyolo.neurons.stack import Stack, StackState
from spyolo.neurons.state import detach, first_not_finite, leaves, map_state, start, sum_of
from spyolo.neurons.surrogate import SURROGATES, multi_gaussian, spike

__all__ = [
    "CONV_GATES", "DENSE", "DENSE_GATES", "GATES", "READOUTS", "SURROGATES", "ALIFState", "ALIFUnit", "BatchRenorm2d", "Cell",
    "ConcatLinearGate", "ConvGate", "GRUState", "GRUUnit", "LIFState", "LIFUnit", "LSTMState", "LSTMUnit", "LTCState", "LTCUnit",
    "LeakyReLUUnit", "Readout", "SNUState", "SNUUnit", "Stack", "StackState", "StaticGate", "SumLinearGate", "alif_step", "autocast",
    "build_gate", "build_norm", "choose_amp", "dense_cell", "dense_ltc", "detach", "first_not_finite", "fresh_statistics",
    "frozen_statistics", "has_bf16", "leaky_readout_step", "leaves", "lif_step", "ltc_step", "map_state", "multi_gaussian", "norms",
    "snu_step", "spike", "start", "sum_of",
]  # fmt: skip
