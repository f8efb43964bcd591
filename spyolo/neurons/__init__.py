"""Neurons: pure steps with explicit state, surrogates, gates, and the cell that puts them together."""

from spyolo.neurons.cells import ALIFUnit, Cell, LeakyReLUUnit, LIFUnit, LTCUnit, dense_ltc
from spyolo.neurons.gates import GATES, ConcatLinearGate, ConvGate, StaticGate, SumLinearGate, build_gate
from spyolo.neurons.lif import ALIFState, LIFState, alif_step, leaky_readout_step, lif_step
from spyolo.neurons.ltc import LTCState, ltc_step
from spyolo.neurons.norm import BatchRenorm2d, build_norm, frozen_statistics, norms
from spyolo.neurons.state import detach, leaves, map_state, start
from spyolo.neurons.surrogate import SURROGATES, multi_gaussian, spike

__all__ = [
    "GATES", "SURROGATES", "ALIFState", "ALIFUnit", "BatchRenorm2d", "Cell", "ConcatLinearGate", "ConvGate", "LIFState", "LIFUnit",
    "LTCState", "LTCUnit", "LeakyReLUUnit", "StaticGate", "SumLinearGate", "alif_step", "build_gate", "build_norm", "dense_ltc", "detach",
    "frozen_statistics", "leaky_readout_step", "leaves", "lif_step", "ltc_step", "map_state", "multi_gaussian", "norms", "spike", "start",
]  # fmt: skip
