"""Sequence models of LIF neurons as NIR (Pedersen et al., Nat. Commun. 15:8122, 2024), and back.

NIR describes neurons in continuous time; our steps are its Euler steps of length `dt`. What maps onto what, exactly:

    LTC with a static gate (update fraction f, hard reset)      LIF, tau = dt / f, r = 1, v_reset = 0
    LIF with decay a (soft reset, one step later)               LI, tau = dt / (1 - a), then Threshold, and a Scale that feeds each spike
                                                                back to take the threshold off (NIR's own LIF resets hard)
    synapses and readouts                                       Affine or Linear; a leak is an LI
    recurrent synapse                                           Linear, from the spikes back to the neuron, one step later

Everything else is refused by name rather than approximated.
"""

from __future__ import annotations

from spyolo.export.nir_reading import from_nir, read_nir
from spyolo.export.nir_writing import refuse_detector, to_nir, write_nir

__all__ = ["from_nir", "read_nir", "refuse_detector", "to_nir", "write_nir"]
