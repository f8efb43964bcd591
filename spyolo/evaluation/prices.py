"""What an operation costs, and how many operations a neuron's events take. Both tables are meant to be changed: see `read_prices`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from spyolo.errors import InputError
from spyolo.files import one_line, read_limited, shortened

HOROWITZ = "M. Horowitz, Computing's energy problem, ISSCC 2014, 45 nm, 0.9 V"


@dataclass(frozen=True)
class Prices:
    """Energy of one operation in pJ, and of moving one bit."""

    name: str
    mac: float  # multiply and accumulate
    add: float  # accumulate (AC)
    bits: int  # of a weight or a membrane potential
    source: str
    sigmoid_macs: float = 10  # exp: range reduction and a polynomial of degree 4 (5); 1 + it (1); reciprocal: two Newton steps (4)
    sram_bit: float = 100 / 64  # a 1 MB cache gives 64 bits for 100 pJ
    dram_bit: float = 640 / 32  # external memory gives 32 bits for 640 pJ

    @property
    def compare(self) -> float:
        """A comparison is a subtraction."""
        return self.add

    @property
    def sigmoid(self) -> float:
        return self.sigmoid_macs * self.mac


PRICES = {
    "fp32": Prices("fp32", mac=4.6, add=0.9, bits=32, source=f"{HOROWITZ}: multiply 3.7, add 0.9"),
    "fp16": Prices("fp16", mac=1.5, add=0.4, bits=16, source=f"{HOROWITZ}: multiply 1.1, add 0.4"),
    "int8": Prices("int8", mac=0.23, add=0.03, bits=8, source=f"{HOROWITZ}: multiply 0.2, add 0.03; 8-bit sums, a 32-bit one would be 0.1"),
}


@dataclass(frozen=True)
class Cost:
    """Operations that one event takes."""

    macs: int = 0
    adds: int = 0
    compares: int = 0
    sigmoids: int = 0

    def energy(self, prices: Prices) -> float:
        """pJ an event."""
        return self.macs * prices.mac + self.adds * prices.add + self.compares * prices.compare + self.sigmoids * prices.sigmoid


COSTS = {
    "membrane_update": Cost(macs=1, adds=1),  # u + tau (x - u)
    "gate_update": Cost(adds=1, sigmoids=1),  # tau = sigma(logit), and the sum x + u that its weights read
    "comparison": Cost(compares=1),  # u > threshold
    "reset": Cost(adds=1),  # u (1 - s): a choice between u and 0, priced as an addition
    "adaptation_update": Cost(macs=2, adds=1),  # s + tau (b - s), threshold + beta b; its sigmoid counts as a gate update
    "activation": Cost(macs=1),  # a plain network's LeakyReLU: one comparison, one multiplication
    "readout_update": Cost(macs=1, adds=1),  # o + kappa (x - o)
}


def read_prices(path: str | Path) -> dict[str, Prices]:
    """Price lists from a YAML or JSON file, `name: {mac: pJ, add: pJ, bits: n, source: text, ...}`; more fields as in `Prices`.

    Raises:
        InputError: the file cannot be read, or a list has a field that is unknown, missing or not a number of 0 or more.
    """
    try:
        found = yaml.safe_load(read_limited(path, 1 << 20).decode())
    except InputError:
        raise
    except Exception as error:  # besides its own errors, the library lets through what int(), date() and deep nesting raise
        raise InputError(f"{path}: cannot read the price lists: {one_line(error)}") from error
    if not isinstance(found, Mapping) or not found or not all(isinstance(entry, Mapping) for entry in found.values()):
        raise InputError(f"{path}: expected price lists as `name: {{mac: 4.6, add: 0.9, bits: 32, source: text}}`")
    return {str(name): _price_list(f"{path}: price list {shortened(name)}", str(name), entry) for name, entry in found.items()}


def _price_list(where: str, name: str, entry: Mapping[str, object]) -> Prices:
    known = [f.name for f in fields(Prices) if f.name != "name"]
    for key, value in entry.items():
        if key not in known:
            raise InputError(f"{where}: unknown field {shortened(key)}; known: {', '.join(known)}")
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
        if key != "source" and not number:
            raise InputError(f"{where}, field {key}: expected a number of 0 or more, got {shortened(value)}")
    missing = [key for key in ("mac", "add", "bits", "source") if key not in entry]
    if missing:
        raise InputError(f"{where}: missing {', '.join(missing)}")
    return Prices(name=name, **entry)  # type: ignore[arg-type]
