"""The table of docs/energy.md, from files of metrics written here."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from spyolo.cli import run
from spyolo.evaluation.energy import energy_table
from spyolo.evaluation.tallies import Counts, LayerCounts, Tally

PROTOCOL = {"detector": "spyv4_lite", "split": "2007:val", "input": "416 x 416, letterboxed"}


def plain(macs):
    """A network of one layer, a picture long: so many MACs."""
    tally = Tally(rows=1, dense_macs=macs, macs=macs, values=100, nonzero=100, activations=10)
    return Counts(1, (LayerCounts("conv", "synapse", 10, (tally,)),))


def spiking():
    """Two steps of a million connections that carry a spike, and of a thousand neurons."""
    arriving = Tally(rows=1, dense_macs=10**7, acs=10**6, values=100, nonzero=10, binary_values=100)
    synapse = LayerCounts("cell", "synapse", 10, (arriving, arriving))
    unit = LayerCounts("cell.unit", "unit", 0, (Tally(rows=1, neurons=1000, spikes=100, gate_updates=1000),) * 2)
    return Counts(1, (synapse, unit))


@pytest.fixture
def write(tmp_path):
    def write(name, table, **protocol):
        path = tmp_path / name
        path.write_text(json.dumps({"energy": table, "protocol": PROTOCOL | protocol}))
        return path

    return write


def test_the_table_of_a_spiking_network_beside_its_twins(write, tmp_path, capsys):
    twin = plain(10**9)
    ours = write("ours.json", energy_table(spiking(), twins={"ann_twin": twin}, ap50={1: 0.30, 2: 0.40}))
    files = [
        f"spiking={ours}",
        f"twin={write('twin.json', energy_table(twin, ap50={1: 0.42}))}",
        f"narrow={write('narrow.json', energy_table(plain(10**8), ap50={1: 0.33}))}",
    ]
    assert run("energy_table", [*files, "--out", str(tmp_path / "table.md")]) == 0
    text = (tmp_path / "table.md").read_text()
    one, two = (next(line.split(" | ") for line in text.splitlines() if line.startswith(f"| {t} |")) for t in (1, 2))
    neurons = 1000 * (5.5 + 46.9 + 1.8) * 1e-9
    assert float(one[8]) == pytest.approx(0.9e6 * 1e-9 + neurons, abs=5e-4)
    assert float(two[8]) == pytest.approx(2 * (0.9e6 * 1e-9 + neurons), abs=5e-4)
    assert (one[-2], two[-2]) == ("-12.0", "-2.0")  # AP50 less the twin's, the largest plain network
    assert one[-1].startswith("narrow: 0.460 (int8 0.023)")  # 0.33 is enough for 0.30
    assert two[-1].startswith("twin: 4.600")  # and not for 0.40
    assert "| twin | 42.0 |" in text
    assert "| narrow | 33.0 |" in text


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({}, ""),
        ({"split": "2007:test"}, "warning: not measured alike, split: ours 2007:val; twin 2007:test\n"),
        ({"input": "64 x 64, letterboxed"}, "warning: not measured alike, input: ours 416 x 416, letterboxed; twin 64 x 64, letterboxed\n"),
        ({"pictures": 20}, "warning: not measured alike, pictures measured: ours 80; twin 20\n"),
        ({"pictures": None}, "warning: not measured alike, pictures measured: ours 80; twin unknown\n"),
    ],
)
def test_runs_that_were_not_measured_alike_are_told(write, capsys, other, told):
    ours = write("ours.json", energy_table(spiking(), ap50={1: 0.30}), pictures=80)
    twin = write("twin.json", energy_table(plain(10**9), ap50={1: 0.42}), **{"pictures": 80} | other)
    assert run("energy_table", [f"ours={ours}", f"twin={twin}"]) == 0
    assert capsys.readouterr().err == told


def test_operations_counted_on_other_pictures_are_told(write, capsys):
    files = [write(f"{n}.json", energy_table(replace(plain(10**8), pictures=n)), pictures=80) for n in (1, 2)]
    assert run("energy_table", [f"{path.stem}={path}" for path in files]) == 0
    assert capsys.readouterr().err == "warning: not measured alike, pictures counted: 1 1; 2 2\n"


def test_a_cheap_sigmoid_takes_nine_macs_off_every_gate_update(write, capsys):
    table = energy_table(replace(spiking(), pictures=1))
    assert run("energy_table", [str(write("ours.json", table))]) == 0
    cells = next(line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| 2 |"))
    assert float(cells[8]) - float(cells[9]) == pytest.approx(2000 * 9 * 4.6e-9, abs=1e-3)
    assert cells[-1].startswith("-")  # no plain network to compare with


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda m: m["energy"].update(by_price={}), "field 'int8' is missing"),
        (lambda m: m["energy"].update(per_timestep=[{}]), "field 'membrane_updates' is missing"),
        (lambda m: m["energy"].update(per_timestep={"1": 2}), "is not what eval writes"),
        (lambda m: m["energy"]["per_timestep"][0].update(timesteps=9), "is not what eval writes"),
        (lambda m: m["energy"]["per_timestep"][0].update(macs="many"), "is not what eval writes"),
        (lambda m: m["energy"].pop("prices"), "field 'prices' is missing"),
        (lambda m: m.update(protocol=[]), "is not what eval writes"),
    ],
)
@pytest.mark.parametrize("network", ["plain", "spiking"])
def test_files_whose_energy_is_of_another_shape_are_refused_by_name(write, capsys, network, spoil, told):
    good = write("good.json", energy_table(spiking(), ap50={1: 0.3}))
    path = write("metrics.json", energy_table(plain(10**8) if network == "plain" else spiking(), ap50={1: 0.3}))
    metrics = json.loads(path.read_text())
    spoil(metrics)
    path.write_text(json.dumps(metrics))
    assert run("energy_table", [str(good), str(path)]) == 2
    error = capsys.readouterr().err
    assert f"error: {path}: " in error and told in error and error.count("\n") == 1


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"energy": {"per_timestep": []}}'])
def test_files_without_energy_are_refused_by_name(tmp_path, capsys, content):
    path = tmp_path / "metrics.json"
    path.write_text(content)
    assert run("energy_table", [f"x={path}"]) == 2
    assert "metrics.json" in capsys.readouterr().err
    assert run("energy_table", [str(tmp_path / "none.json")]) == 2
