"""LIF sequence models as NIR: the graph, run by NIR's own equations, is the model; and what comes back from a file is the model again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spyolo.cli import run
from spyolo.detection import build_detector
from spyolo.errors import InputError
from spyolo.neurons import ALIFUnit, Cell, LIFUnit, LTCUnit, StaticGate, dense_ltc
from spyolo.neurons.readout import Readout
from spyolo.neurons.stack import Stack
from spyolo.published import FOLDER_VARIABLE
from spyolo.sequence import load
from spyolo.sequence.config import SequenceConfig
from spyolo.sequence.tasks import adding
from spyolo.sequence.trainer import SequenceTrainer

nir = pytest.importorskip("nir")

from spyolo.export.nir import from_nir, read_nir, refuse_detector, to_nir, write_nir  # noqa: E402


def lif_cell(kind: str, inputs: int, features: int, recurrent: bool) -> Cell:
    if kind == "hard":
        gate = StaticGate(features)
        nn.init.normal_(gate.logit)
        unit: nn.Module = LTCUnit(gate, threshold=0.4)
    else:
        unit = LIFUnit(0.8, 0.7, normalise=kind == "soft normalised")
    return Cell(nn.Linear(inputs, features), unit, nn.Linear(features, features, bias=False) if recurrent else None)


def model(kind: str, readout: str, recurrent: bool = True) -> Stack:
    torch.manual_seed(0)
    cells = [lif_cell(kind, 5, 16, recurrent), lif_cell(kind, 16, 12, False)]
    return Stack(cells, Readout(12, 3, readout, decay=0.7, bias=readout != "learned")).double()


def show(network: Stack, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs [T, B, 3] and the first cell's spikes."""
    state, outputs, spikes = None, [], []
    for x in inputs:
        out, state = network(x, state)
        outputs.append(out)
        spikes.append(state.cells[0][1])
    return torch.stack(outputs), torch.stack(spikes)


def euler(graph: Any, inputs: np.ndarray, dt: float) -> np.ndarray:
    """NIR by its documentation, one Euler step at a time; what comes back along a loop comes one step later. [T, 5] -> [T, 3]."""
    v: dict[str, Any] = dict.fromkeys(graph.nodes, 0.0)
    held: dict[str, Any] = dict.fromkeys(graph.nodes, 0.0)  # outputs of the step before
    order = list(graph.nodes)
    outputs = []
    for x in inputs:
        now: dict[str, Any] = {}
        for name in order:
            node = graph.nodes[name]
            i = sum((now if a in now else held)[a] for a, b in graph.edges if b == name)
            kind = type(node).__name__
            if kind == "Input":
                now[name] = x
            elif kind in ("Affine", "Linear"):
                now[name] = node.weight @ i + getattr(node, "bias", 0.0) if np.ndim(i) else 0.0
            elif kind == "Scale":
                now[name] = node.scale * i
            elif kind == "Threshold":
                now[name] = (i > node.threshold).astype(float)
            elif kind in ("LI", "LIF"):
                v[name] = v[name] + dt / node.tau * ((node.v_leak - v[name]) + node.r * i)
                now[name] = v[name]
                if kind == "LIF":
                    now[name] = (v[name] > node.v_threshold).astype(float)
                    v[name] = np.where(now[name] > 0, node.v_reset, v[name])
            else:
                now[name] = i
        held = now
        outputs.append(now["output"])
    return np.stack(outputs)


@pytest.mark.parametrize("kind", ["hard", "soft", "soft normalised"])
@pytest.mark.parametrize("readout", ["linear", "leaky", "learned"])
def test_the_graph_is_the_model_and_comes_back(kind: str, readout: str, tmp_path: Path):
    network = model(kind, readout)
    inputs = 3 * torch.randn(40, 1, 5, dtype=torch.float64)
    wanted, spikes = show(network, inputs)
    assert 0.02 < spikes.mean() < 0.9
    again = read_nir(write_nir(network, tmp_path / "model.nir", dt=2e-3))
    outputs, same = show(again.double(), inputs)
    assert torch.equal(same, spikes)
    torch.testing.assert_close(outputs, wanted, atol=1e-9, rtol=1e-9)
    np.testing.assert_allclose(euler(to_nir(network, 2e-3), inputs[:, 0].numpy(), 2e-3), wanted[:, 0].detach(), atol=1e-9)


def test_a_second_export_says_the_same(tmp_path: Path):
    first = to_nir(model("soft", "leaky"))
    second = to_nir(from_nir(first))
    assert set(first.edges) == set(second.edges) and list(first.nodes) == list(second.nodes)
    np.testing.assert_allclose(first.nodes["cells_0_neuron"].tau, second.nodes["cells_0_neuron"].tau)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (dense_ltc(5, 8), "time constant depends on input and membrane"),
        (Cell(nn.Linear(5, 8), LTCUnit(StaticGate(8), adaptation_gate=StaticGate(8))), "adaptive thresholds"),
        (Cell(nn.Linear(5, 8), ALIFUnit()), "no counterpart of ALIFUnit"),
        (Cell(nn.Sequential(nn.Linear(5, 8)), LIFUnit()), "cells.0.synapse is a Sequential"),
        (Cell(nn.Linear(5, 8), LIFUnit(), nn.Linear(8, 8)), "recurrent has a bias"),
    ],
)
def test_what_nir_cannot_say_is_refused_by_name(part: Cell, message: str):
    with pytest.raises(InputError, match=message):
        to_nir(Stack([part], Readout(8, 2)))


def test_gated_readouts_and_other_modules_are_refused():
    with pytest.raises(InputError, match="gated"):
        to_nir(Stack([lif_cell("soft", 5, 8, False)], Readout(8, 2, "gated")))
    with pytest.raises(InputError, match="not Linear"):
        to_nir(nn.Linear(2, 2))


def test_a_detector_is_refused_with_what_is_missing():
    detector = build_detector("spyv4_lite", 3, width=0.05)
    with pytest.raises(InputError, match=r"LTC's gate.*max pooling.*concatenation.*upsampling.*ONNX") as told:
        to_nir(detector)
    assert "LeakyReLU" not in str(told.value)
    with pytest.raises(InputError, match="LeakyReLU"):
        refuse_detector(build_detector("yolov4_tiny", 3, width=0.05))
    for name in ("MaxPool2d", "Concat", "Upsample"):  # still true of the installed version
        assert not hasattr(nir, name)


def test_bad_files_and_foreign_graphs_are_told(tmp_path: Path):
    (tmp_path / "x.nir").write_bytes(b"no graph")
    with pytest.raises(InputError, match="no such file"):
        read_nir(tmp_path / "none.nir")
    with pytest.raises(InputError, match="not a NIR file"):
        read_nir(tmp_path / "x.nir")
    ones = np.ones(2)
    with pytest.raises(InputError, match="only chains of LIF layers"):
        from_nir(nir.NIRGraph.from_list(nir.Linear(np.eye(2)), nir.IF(ones, ones)))
    with pytest.raises(InputError, match="v_reset"):
        from_nir(nir.NIRGraph.from_list(nir.Linear(np.eye(2)), nir.LIF(ones, ones, 0 * ones, ones, ones), nir.Linear(np.eye(2))))


def test_layers_in_a_ring_are_refused():
    """Walked on and on, a chain of them would have no end."""
    ones = np.ones(2)
    lif = {f"n{k}": nir.LIF(2e-3 * ones, ones, 0 * ones, ones, 0 * ones) for k in range(2)}
    nodes = {"input": nir.Input(np.array([2])), "output": nir.Output(np.array([2]))}
    nodes |= {name: nir.Linear(np.eye(2)) for name in "abc"} | lif
    edges = [("input", "a"), ("a", "n0"), ("n0", "b"), ("b", "n1"), ("n1", "c"), ("c", "n0")]
    with pytest.raises(InputError, match="node n0: it is behind itself, through other layers"):
        from_nir(nir.NIRGraph(nodes, edges, type_check=False))


@pytest.mark.parametrize("factor", [np.nan, np.inf, 1j])
def test_weights_that_are_no_numbers_are_refused_by_name(factor: complex):
    graph = chain(2e-3)
    graph.nodes["linear"].weight = factor * np.ones((2, 2))
    with pytest.raises(InputError, match="node linear: its weights must be finite numbers"):
        from_nir(graph)


def test_whole_numbers_are_weights():
    graph = chain(2e-3)
    graph.nodes["linear"].weight = np.eye(2, dtype=int)
    assert from_nir(graph).cells[0].synapse.weight.tolist() == [[1, 0], [0, 1]]


def chain(tau: float, dt: Any = 1e-3, readout_tau: float = 2e-3) -> Any:
    """A LIF layer and a leaky readout of two neurons each."""
    ones = np.ones(2)
    nodes = (
        nir.Linear(np.eye(2)), nir.LIF(tau * ones, ones, 0 * ones, ones, 0 * ones), nir.Linear(np.eye(2)),
        nir.LI(readout_tau * ones, ones, 0 * ones),
    )  # fmt: skip
    graph = nir.NIRGraph.from_list(*nodes)
    graph.metadata["dt"] = dt
    return graph


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"tau": 5e-4}, "node lif: its tau must be finite and at least one step of 0.001 s"),
        ({"tau": 0.0}, "node lif: its tau"),
        ({"tau": -2e-3}, "node lif: its tau"),
        ({"tau": float("inf")}, "node lif: its tau"),
        ({"tau": float("nan")}, "node lif: its tau"),
        ({"tau": 2e-3, "readout_tau": 0.0}, "node li: its tau"),
        ({"tau": 2e-3, "readout_tau": 9e-4}, "node li: its tau"),
        ({"tau": 2e-3, "dt": 0.0}, "dt must be a number of seconds"),
        ({"tau": 2e-3, "dt": "fast"}, "dt must be a number of seconds"),
    ],
)
def test_neurons_that_would_not_be_numbers_are_refused_by_name(graph: dict, message: str):
    with pytest.raises(InputError, match=message):
        from_nir(chain(**graph))


def test_neurons_that_go_all_the_way_in_a_step_are_read():
    network, inputs = from_nir(chain(1e-3, readout_tau=1e-3)).double(), 2 * torch.rand(6, 1, 2, dtype=torch.float64)
    outputs, spikes = show(network, inputs)
    assert torch.equal(spikes, (inputs > 1).double()) and torch.equal(outputs, spikes)


def test_the_command_line_writes_the_network_of_a_run(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(adding, "EPOCH", 1)
    monkeypatch.setattr(adding, "TESTS", 4)
    changes = {"cell": "lif", "hidden": "6", "timesteps": 5, "batch": 2, "epochs": 1, "device": "cpu", "out": str(tmp_path / "run")}
    assert SequenceTrainer(SequenceConfig().updated(changes), quiet=True).fit()
    weights, out = str(tmp_path / "run" / "best.safetensors"), str(tmp_path / "out")
    assert run("export", ["--format", "nir", "--weights", weights, "--out", out]) == 0
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "shelf"))
    assert run("eval_sequence", ["--weights", weights, "--publish", "tiny", "--device", "cpu"]) == 0
    assert run("export", ["--format", "nir", "--weights", "tiny", "--out", str(tmp_path / "named")]) == 0
    assert f"wrote {out}/model.nir" in capsys.readouterr().out
    again, x = read_nir(tmp_path / "out" / "model.nir"), torch.rand(3, 2)
    torch.testing.assert_close(again(x)[0], load(weights)[0](x)[0])
    assert run("export", ["--weights", weights, "--out", out]) == 2  # as ONNX: no detector
    assert capsys.readouterr().err.count("\n") == 1
