"""The same graph of convolutions with the leaky integrate-and-fire neurons of other libraries: what one would build with them.

Every cell keeps its convolution and norm; its unit is the library's LIF neuron (decay 1/2, threshold 1), run step by step as its
documentation shows. Gates and readouts there are none, so these networks have less to do than ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from spyolo.detection import build_detector
from spyolo.neurons import Cell


class Foreign(nn.Module):
    """A neuron that keeps its state inside, behind the interface of a unit."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron

    def initial_state(self, current: Tensor) -> None:
        return None

    def forward(self, current: Tensor, state: None) -> tuple[Tensor, None]:
        return self.neuron(current), None


def snntorch() -> tuple[Callable[[], nn.Module], Callable[[nn.Module], Any]]:
    """(neuron, reset of a network)."""
    import snntorch as snn
    from snntorch import utils

    return lambda: snn.Leaky(beta=0.5, threshold=1.0, init_hidden=True, reset_mechanism="zero"), utils.reset


def spikingjelly() -> tuple[Callable[[], nn.Module], Callable[[nn.Module], Any]]:
    from spikingjelly.activation_based import functional, neuron, surrogate

    return (
        lambda: neuron.LIFNode(tau=2.0, v_threshold=1.0, v_reset=0.0, surrogate_function=surrogate.ATan()),
        functional.reset_net,
    )


LIBRARIES = {"snnTorch": snntorch, "SpikingJelly": spikingjelly}


def build(library: str, num_classes: int = 20) -> tuple[Any, Callable[[], Any]]:
    """A detector of that library's neurons, and what resets it before a sequence.

    Raises:
        ImportError: the library is not installed (`pip install "spyolo[bench]"`).
    """
    neuron, reset = LIBRARIES[library]()
    detector = build_detector("yolov4_tiny", num_classes)
    for module in list(detector.modules()):
        if isinstance(module, Cell):
            module.unit = Foreign(neuron())
    return detector, lambda: reset(detector)
