"""Prices times counts, by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from spyolo.detection import build_detector
from spyolo.errors import InputError
from spyolo.evaluation.energy import COSTS, PRICES, EnergyMeter, dense_counts, energy_table, format_energy, read_prices
from spyolo.evaluation.prices import Cost
from spyolo.evaluation.tallies import Counts, LayerCounts, Tally
from spyolo.neurons import Cell, LIFUnit

FP32 = PRICES["fp32"]
ENCODER = 37_380_096


def one_of_each():
    """Two pictures, two steps: an encoder that runs once, spikes into a second layer, gates, neurons, a readout."""
    return Counts(
        pictures=2,
        layers=(
            LayerCounts("encoder", "synapse", 10, (Tally(rows=2, dense_macs=1000, macs=1000, values=50, nonzero=50),)),
            LayerCounts(
                "cell", "synapse", 20, (Tally(rows=2, dense_macs=4000, acs=400, values=64, nonzero=8, binary_values=64),) * 2
            ),
            LayerCounts("cell.unit.gate", "gate", 5, (Tally(rows=2, dense_macs=90, macs=90, values=30, nonzero=30),) * 2),
            LayerCounts(
                "cell.unit", "unit", 0, (Tally(rows=2, neurons=30, spikes=6, gate_updates=30),) * 2, torch.tensor([[6, 0, 0], [6, 0, 0]])
            ),
            LayerCounts("head", "readout", 0, (Tally(rows=2), Tally(rows=2, readout_updates=8))),
        ),
    )


def test_two_totals_by_hand():
    table = energy_table(one_of_each())
    first, second = table["per_timestep"]
    picojoule = 1e-9
    assert first["synaptic_mj"] == pytest.approx((1000 * 4.6 + 400 * 0.9) / 2 * picojoule)
    assert second["synaptic_mj"] == pytest.approx((1000 * 4.6 + 800 * 0.9) / 2 * picojoule)  # the encoder is paid once
    assert first["gates_mj"] == pytest.approx(90 * 4.6 / 2 * picojoule)
    neuron = (4.6 + 0.9) + (0.9 + 46) + 0.9 + 0.9  # membrane, gate with its sigmoid, comparison, reset
    assert first["neurons_mj"] == pytest.approx(30 * neuron / 2 * picojoule)
    assert second["neurons_mj"] == pytest.approx((60 * neuron + 8 * 5.5) / 2 * picojoule)
    assert second["total_mj"] == pytest.approx(second["synaptic_mj"] + second["gates_mj"] + second["neurons_mj"])
    assert (table["synaptic_mj"], table["total_mj"]) == (second["synaptic_mj"], second["total_mj"])
    assert (first["macs"], first["acs"], first["dense_macs"]) == (545, 200, 2545)
    assert table["firing_rate"] == pytest.approx(0.2)


def test_layers_add_up_to_the_total():
    table = energy_table(one_of_each())
    assert sum(sum(layer["energy_mj"]) for layer in table["layers"]) == pytest.approx(table["total_mj"])
    unit = table["layers"][3]
    assert unit["firing_rate"] == [0.2, 0.2]
    assert (unit["silent_channels"], unit["saturated_channels"], unit["channels"]) == (2, 0, 3)
    assert table["layers"][1]["operand_density"] == [0.125, 0.125]


def test_memory_line_by_hand():
    """Bits of two pictures, two steps: weights and operands read, membranes read and written, a spike is one bit."""
    encoder = 2 * 10 * 32 + 50 * 32
    cell = 2 * (2 * 20 * 32 + 64)
    gate = 2 * (2 * 5 * 32 + 30 * 32)
    unit = 2 * (2 * 30 * 32 + 30)
    table = energy_table(one_of_each())
    bits = (encoder + cell + gate + unit) / 2
    assert table["memory_sram_mj"] == pytest.approx(bits * 100 / 64 * 1e-9)
    assert table["memory_dram_mj"] == pytest.approx(bits * 20 * 1e-9)


def test_costs_and_prices_can_be_changed():
    free = COSTS | {"gate_update": Cost()}
    assert energy_table(one_of_each(), costs=free)["neurons_mj"] < energy_table(one_of_each())["neurons_mj"]
    cheap = energy_table(one_of_each(), replace(FP32, name="lookup", sigmoid_macs=1))
    assert cheap["neurons_mj"] == pytest.approx(energy_table(one_of_each())["neurons_mj"] - 60 * 9 * 4.6 / 2 * 1e-9)
    assert cheap["main_price"] == "lookup"


def test_the_ann_twin_costs_15_67_millijoules_at_416():
    twin = dense_counts(build_detector("yolov4_tiny"), torch.zeros(1, 3, 416, 416))
    table = energy_table(one_of_each(), twins={"ann_twin": twin}, ap50={1: 0.3, 2: 0.4})
    table["twins"]["ann_twin"]["ap50"] = 0.45
    assert table["ann_twin_mj"] == pytest.approx(15.67, abs=0.005)
    assert table["by_price"]["int8"]["twins"]["ann_twin"]["synaptic_mj"] == pytest.approx(3_407_213_056 * 0.23e-9)
    assert table["twins"]["ann_twin"]["total_mj"] == pytest.approx(table["ann_twin_mj"] + 6_186_752 * 4.6e-9)
    text = format_energy(table, memory=True)
    for word in ("AP50", "0.400", "0.450", "15.673", "ann_twin", "DRAM", "Horowitz"):
        assert word in text, word


def test_facts_figure_of_spyv4_lite_at_ten_percent():
    """2.41 mJ at T=4: encoder and gates as MACs, the rest as ACs from 10 % of its dense products."""
    dense = dense_counts(build_detector("spyv4_lite", readout="last"), torch.zeros(1, 3, 416, 416))

    def spiking(layer):
        t = layer.total()
        if layer.part == "synapse" and layer.name != "backbone.conv1.synapse.conv":
            t = replace(t, macs=0, acs=round(0.1 * t.dense_macs))
        return replace(layer, steps=(t,) if layer.name == "backbone.conv1.synapse.conv" else (t,) * 4)

    table = energy_table(replace(dense, layers=tuple(spiking(layer) for layer in dense.layers)))
    assert table["synaptic_mj"] + table["gates_mj"] == pytest.approx(2.41, abs=0.005)
    assert table["neurons_mj"] == pytest.approx(4 * 6_186_752 * 54.2e-9)


def density_that_costs(share_of_twin, timesteps, sigmoid_macs):
    """Density of the operands at which spyv4_lite at 416 pixels costs this share of its twin, everything counted (docs/energy.md)."""
    twin, prices = 3_407_213_056 * 4.6e-9, replace(FP32, sigmoid_macs=sigmoid_macs)
    dense = energy_table(dense_counts(build_detector("spyv4_lite"), torch.zeros(1, 3, 416, 416)), prices)
    fixed = ENCODER * 4.6e-9 + timesteps * (dense["gates_mj"] + dense["neurons_mj"])
    return (share_of_twin * twin - fixed) / (timesteps * (3_407_213_056 - ENCODER) * 0.9e-9)


@pytest.mark.parametrize(
    ("timesteps", "sigmoid_macs", "quarter", "even"), [(4, 10, 11.4, 108), (8, 10, -4.1, 44), (4, 1, 19.8, 117), (8, 1, 4.4, 53)]
)
def test_break_even_densities_told_in_the_docs(timesteps, sigmoid_macs, quarter, even):
    assert 100 * density_that_costs(1 / 4, timesteps, sigmoid_macs) == pytest.approx(quarter, abs=0.1)
    assert 100 * density_that_costs(1, timesteps, sigmoid_macs) == pytest.approx(even, abs=0.5)


def test_the_table_is_json():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with EnergyMeter(net) as meter, torch.no_grad():
        net(torch.rand(2, 3))
    for counts in (one_of_each(), meter.counts(), Counts(0, ())):
        table = energy_table(counts, twins={"ann_twin": counts})
        assert json.loads(json.dumps(table, allow_nan=False)) == table
        assert format_energy(table)


def test_measured_cell_from_hooks_to_millijoules():
    """Linear 2 -> 3 on real numbers, shown to three neurons for two steps."""
    cell = Cell(nn.Linear(2, 3), LIFUnit())
    with torch.no_grad(), EnergyMeter(cell) as meter:
        state = None
        for _ in range(2):
            _, state = cell(torch.tensor([[0.3, 0.7]]), state)
    table = energy_table(meter.counts())
    assert table["synaptic_mj"] == pytest.approx(2 * 6 * 4.6e-9)
    assert table["neurons_mj"] == pytest.approx(2 * 3 * (5.5 + 0.9 + 0.9) * 1e-9)


def test_price_lists_from_a_file(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("ours: {mac: 2.0, add: 0.5, bits: 16, source: measured, sigmoid_macs: 2}\n")
    prices = read_prices(path)["ours"]
    assert (prices.mac, prices.compare, prices.sigmoid, prices.bits) == (2.0, 0.5, 4.0, 16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ours: {mac: 2.0, add: 0.5, bits: 16}", "missing source"),
        ("ours: {mac: 2.0, ad: 0.5, bits: 16, source: x}", "unknown field 'ad'"),
        ("ours: {mac: high, add: 0.5, bits: 16, source: x}", "field mac: expected a number"),
        ("ours: {mac: -1, add: 0.5, bits: 16, source: x}", "field mac: expected a number"),
        ("ours: {mac: .nan, add: 0.5, bits: 16, source: x}", "field mac: expected a number"),
        ("- 4.6", "expected price lists"),
        ("ours: {mac: ", "cannot read the price lists"),
    ],
)
def test_bad_price_lists_say_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_prices(path)
    assert "prices.yaml" in str(error.value)


def test_missing_price_file(tmp_path):
    with pytest.raises(InputError, match="cannot read the price lists"):
        read_prices(tmp_path / "none.yaml")
