"""Which rule goes with which cell: docs/rules.md has a table of it, and every pair in it is built here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spyolo.errors import InputError
from spyolo.learning import build_rule
from spyolo.neurons import Cell, ConvGate, LeakyReLUUnit, LIFUnit, LTCUnit, Readout, Stack, dense_cell


def table() -> dict[str, dict[str, str]]:
    """What the page says: {row: {column: text}}."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "rules.md").read_text()
    lines = page.split("## Which rule goes with which cell\n")[1].strip().partition("\n\n")[0].splitlines()
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


TABLE = table()

# Columns: the rules that one speaks of, with their options, and whether layers are recurrent.
COLUMNS: dict[str, tuple[list[tuple[str, dict[str, Any]]], tuple[bool, ...]]] = {
    "bptt, fptt (K), sltt": ([("bptt", {}), ("fptt", {}), ("fptt", {"parts": 2}), ("sltt", {})], (False, True)),
    "eprop": ([("eprop", {}), ("eprop", {"feedback": "random"})], (False, True)),
    "ostl, feed-forward": ([("ostl", {})], (False,)),
    "ostl with H": ([("ostl", {})], (True,)),
    "ostl without H": ([("ostl", {"with_h": False})], (True,)),
    "ottt": ([("ottt", {})], (False,)),
}


class OwnUnit(LIFUnit):
    """Neurons that no rule knows."""


class LearnedUnit(LIFUnit):
    """The same, with a parameter of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, current, state):
        return super().forward(self.gain * current, state)


Made = tuple[Stack, Tensor]  # a network and an input of it


def dense(kind: str, readout: str = "linear", **options: Any) -> Callable[[bool], Made]:
    return lambda recurrent: (Stack([dense_cell(kind, 3, 4, recurrent=recurrent, **options)], Readout(4, 2, readout)), torch.randn(2, 3))


def of(unit: Callable[[], nn.Module], *maps: int, back: bool = True) -> Callable[[bool], Made]:
    """`maps`: channels and rows of which the synapse sees one row at a time."""
    return lambda recurrent: (
        Stack([Cell(nn.Linear(3, 4), unit(), nn.Linear(4, 4) if recurrent and back else None)], Readout(4 * math.prod(maps), 2)),
        torch.randn(2, *maps, 3),
    )  # fmt: skip


def convolution(unit: Callable[[], nn.Module], *norm: nn.Module) -> Callable[[bool], Made]:
    def made(recurrent: bool) -> Made:
        synapse, back = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *norm), nn.Conv2d(4, 4, 3, padding=1) if recurrent else None
        return Stack([Cell(synapse, unit(), back)], Readout(4 * 9, 2)), torch.randn(2, 1, 3, 3)

    return made


# Rows: the networks that one speaks of, by name.
ROWS: dict[str, dict[str, Callable[[bool], Made]]] = {
    "LIF": {"lif": dense("lif")},
    "adaptive LIF": {"alif": dense("alif")},
    "SNU, sSNU": {kind: dense(kind) for kind in ("snu", "ssnu")},
    "LSTM, GRU": {kind: dense(kind) for kind in ("lstm", "gru")},
    "LTC, static gate": {"adaptive": dense("ltc", gate="static"), "constant": dense("ltc", gate="static", adaptive=False)},
    "LTC, dense gate": {gate: dense("ltc", gate=gate) for gate in ("concat_linear", "sum_linear")},
    "LTC, convolutional gate": {"gate": of(lambda: LTCUnit(ConvGate(4)), 4, 3), "all of it": convolution(lambda: LTCUnit(ConvGate(4)))},
    "LeakyReLU (no state)": {"dense": of(LeakyReLUUnit, back=False)},  # there is nothing that it could send itself
    "convolutional synapse": {"affine": convolution(LIFUnit), "normalised": convolution(LIFUnit, nn.BatchNorm2d(4))},
    "any other cell": {"bare": of(OwnUnit), "with parameters": of(LearnedUnit)},
    "readout linear / leaky": {kind: dense("lif", kind) for kind in ("linear", "leaky")},
    "readout learned / gated": {kind: dense("lif", kind) for kind in ("learned", "gated")},
}
bare = "bare, feed-forward", "bare, recurrent"
ONLY = {  # texts that hold for some of a row's networks: which
    "feed-forward only": ("lif, feed-forward",),
    "linear": ("linear, feed-forward",),
    "yes, if affine (no norm)": ("affine, feed-forward",),
    "if its neurons see each other through the recurrent synapse alone and it has no parameters of its own": bare,
    "the same": bare,
    "as e-prop": bare,
}


def test_the_table_speaks_of_what_is_built_here():
    assert list(TABLE) == list(ROWS) and all(list(row) == list(COLUMNS) for row in TABLE.values())
    assert set(ONLY) <= {text for row in TABLE.values() for text in row.values()}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", ROWS)
def test_a_pair_learns_where_the_table_says_so_and_says_why_not_elsewhere(row, column):
    text, (rules, recurrences) = TABLE[row][column], COLUMNS[column]
    for recurrent in (False, True) if "feed-forward only" in text else recurrences:
        for variant, made in ROWS[row].items():
            variant += ", recurrent" if recurrent else ", feed-forward"
            defined = not re.match(r"no\b", text) and variant in ONLY.get(text, (variant,))
            for name, options in rules:
                network, x = made(recurrent)
                options = options | ({"jacobian": True} if "`jacobian=True`" in text else {})
                if defined:
                    learns(name, network, x, options)
                    continue
                with pytest.raises(InputError, match=rf"^{name}: .{{20,}}"):
                    build_rule(name, network, torch.optim.SGD(network.parameters(), lr=0.1), nn.functional.mse_loss, **options)


def learns(name: str, network: Stack, x: Tensor, options: dict[str, Any]) -> None:
    """Two steps leave a gradient in the cell's synapse."""
    rule = build_rule(name, network, torch.optim.SGD(network.parameters(), lr=0.1), nn.functional.mse_loss, **options)
    rule.hold = True
    rule.start(2)
    for _ in range(2):
        rule.step(5 * x, torch.zeros(2, 2))
    rule.finish()
    for w in network.cells[0].synapse.parameters():
        assert w.grad is not None and w.grad.isfinite().all()
    assert next(network.cells[0].synapse.parameters()).grad.any()
