"""Energy of what ran, from counted operations and a table of prices. docs/energy.md tells the whole formula.

    with EnergyMeter(model) as meter:                       # counts, see spyolo.evaluation.meter
        ...  # evaluate as usual
    table = energy_table(meter.counts(), twins={"ann_twin": dense_counts(twin, picture)}, ap50={1: 0.31, 2: 0.40})
    print(format_energy(table))                             # `table` is JSON-safe

Two totals stand side by side. *Synaptic* is the convention of the literature: the weighted layers between neurons, one MAC for every
product of a real operand, one AC for every connection that carries a spike; the inside of a neuron is free. *Total* is everything: the
synaptic part, the weights inside the neurons (gates), and the neurons' own arithmetic (sigmoid, membrane, comparison, reset, readout).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from spyolo.evaluation.columns import columns, number
from spyolo.evaluation.files import json_safe
from spyolo.evaluation.meter import EnergyMeter, dense_counts
from spyolo.evaluation.prices import COSTS, PRICES, Cost, Prices, read_prices
from spyolo.evaluation.sparsity import firing_rate, layer_sparsity, sparsity_summary
from spyolo.evaluation.tallies import Counts, LayerCounts, Tally

__all__ = ["COSTS", "PRICES", "Cost", "EnergyMeter", "Prices", "dense_counts", "energy_table", "format_energy", "read_prices"]


def events(tally: Tally) -> dict[str, int]:
    """How often each entry of COSTS happened."""
    return {
        "membrane_update": tally.neurons,
        "gate_update": tally.gate_updates,
        "comparison": tally.neurons,
        "reset": tally.neurons,
        "adaptation_update": tally.adaptation_updates,
        "activation": tally.activations,
        "readout_update": tally.readout_updates,
    }


def tally_energy(tally: Tally, prices: Prices, costs: Mapping[str, Cost] = COSTS) -> float:
    """pJ of one tally: zeros are skipped where the operand was binary, and only there."""
    neuron = sum(n * costs[event].energy(prices) for event, n in events(tally).items() if n)
    return tally.macs * prices.mac + tally.acs * prices.add + neuron


def memory_bits(layer: LayerCounts, bits: int, timesteps: int | None = None) -> int:
    """Bits moved by one layer over all pictures, each value once a step, pictures one at a time.

    Weights and operands are read (a spike is one bit), membranes and adaptations read and written, outputs of units written. Nothing is
    kept in registers between steps, and nothing is fetched twice within one.
    """
    t = layer.total(timesteps)
    weights = layer.weights * t.rows * bits
    operands = t.binary_values + (t.values - t.binary_values) * bits
    states = 2 * (t.neurons + t.adaptation_updates) * bits
    return weights + operands + states + t.neurons + t.activations * bits


def network_energy(counts: Counts, prices: Prices, costs: Mapping[str, Cost] = COSTS, timesteps: int | None = None) -> dict[str, float]:
    """mJ a picture when stopped after `timesteps` steps (None: all): the parts, the two totals, and the memory's optional line."""
    to_mj = 1e-9 / max(counts.pictures, 1)
    part = {name: tally_energy(counts.total(name, timesteps), prices, costs) * to_mj for name in ("synapse", "gate", "unit", "readout")}
    bits = sum(memory_bits(layer, prices.bits, timesteps) for layer in counts.layers) * to_mj
    return {
        "synaptic_mj": part["synapse"],
        "gates_mj": part["gate"],
        "neurons_mj": part["unit"] + part["readout"],
        "total_mj": sum(part.values()),
        "memory_sram_mj": bits * prices.sram_bit,
        "memory_dram_mj": bits * prices.dram_bit,
    }


def operations(counts: Counts, timesteps: int | None = None) -> dict[str, float]:
    """Operations a picture when stopped after `timesteps` steps (None: all)."""
    synapses, n = counts.total("synapse", timesteps) + counts.total("gate", timesteps), max(counts.pictures, 1)
    named = {name: getattr(synapses, name) / n for name in ("dense_macs", "macs", "macs_nonzero", "acs")}
    return named | {f"{event}s": times / n for event, times in events(counts.total(None, timesteps)).items()}


def layer_rows(counts: Counts, prices: Prices, costs: Mapping[str, Cost] = COSTS) -> list[dict[str, Any]]:
    """Every layer by step, a picture: operations, energy, rates. What the plots are drawn from."""
    n, rows = max(counts.pictures, 1), []
    for layer in counts.layers:
        row: dict[str, Any] = {"name": layer.name, "part": layer.part}
        if layer.part in ("synapse", "gate"):
            row |= {name: [getattr(t, name) / n for t in layer.steps] for name in ("dense_macs", "macs", "macs_nonzero", "acs")}
        else:
            row |= {f"{event}s": [events(t)[event] / n for t in layer.steps] for event, times in events(layer.total()).items() if times}
        row["energy_mj"] = [tally_energy(t, prices, costs) * 1e-9 / n for t in layer.steps]
        rows.append(row | layer_sparsity(layer))
    return rows


def energy_table(
    counts: Counts,
    prices: Prices = PRICES["fp32"],
    *,
    costs: Mapping[str, Cost] = COSTS,
    twins: Mapping[str, Counts] | None = None,
    ap50: Mapping[int, float] | None = None,
) -> dict[str, Any]:
    """Everything a report says about energy, JSON-safe; energies in mJ a picture.

    Args:
        counts: what ran, all steps in one pass; stopping after T steps costs the first T.
        prices: of the main figures.
        costs: operations an event inside a neuron takes.
        twins: plain networks to compare with (see `dense_counts`); the one named `ann_twin` gives `ann_twin_mj`.
        ap50: AP50 after each number of steps; energy should not stand without it.
    """
    steps, twins, price_lists = range(1, counts.timesteps + 1), twins or {}, {p.name: p for p in (prices, PRICES["fp16"], PRICES["int8"])}
    table: dict[str, Any] = {"pictures": counts.pictures, "timesteps": counts.timesteps} | network_energy(counts, prices, costs)
    table |= sparsity_summary(counts)
    table["per_timestep"] = [
        {"timesteps": t, "ap50": (ap50 or {}).get(t), "firing_rate": firing_rate(counts, t)}
        | network_energy(counts, prices, costs, t)
        | operations(counts, t)
        for t in steps
    ]
    table["twins"] = {
        name: {"ap50": None} | network_energy(twin, prices, costs) | operations(twin)  # its AP50 is for the caller to put in
        for name, twin in twins.items()
    }
    if "ann_twin" in twins:
        table["ann_twin_mj"] = table["twins"]["ann_twin"]["synaptic_mj"]
    table["by_price"] = {
        name: {
            "per_timestep": [{"timesteps": t} | network_energy(counts, p, costs, t) for t in steps],
            "twins": {twin: network_energy(c, p, costs) for twin, c in twins.items()},
        }
        for name, p in price_lists.items()
    }
    table["layers"] = layer_rows(counts, prices, costs)
    table["uncounted"] = list(counts.uncounted)
    table["prices"] = {name: asdict(p) | {"compare": p.compare, "sigmoid": p.sigmoid} for name, p in price_lists.items()}
    table["main_price"] = prices.name
    table["costs"] = {event: asdict(cost) for event, cost in costs.items()}
    return json_safe(table)


def format_energy(table: Mapping[str, Any], *, memory: bool = False) -> str:
    """The table as text: a line for each number of steps, then the twins; `memory` adds the two memory columns."""
    twin = table.get("ann_twin_mj")
    head = ["T", "AP50", "firing", "G MAC", "G AC", "synaptic", "gates", "neurons", "total", "ANN/total"] + ["SRAM", "DRAM"] * memory
    lines = [[str(row["timesteps"]), *_cells(row, row["firing_rate"], twin, memory)] for row in table["per_timestep"]]
    lines += [[name, *_cells(row, None, None, memory)] for name, row in table["twins"].items()]
    price, priced = table["prices"][table["main_price"]], table.get("priced", "picture")
    notes = [
        f"energy in mJ a {priced} over {table['pictures']} {priced}s; {price['name']}: MAC {price['mac']} pJ, AC {price['add']} pJ, "
        f"sigmoid {price['sigmoid']:g} pJ ({price['source']})",
        "synaptic: the literature's convention; total: with the gates' weights and the neurons' own arithmetic",
        "zeros are skipped in binary operands, and only there",
    ]
    notes += [f"at {name} prices: " + _price_line(row) for name, row in table["by_price"].items() if name != table["main_price"]]
    if table["uncounted"]:
        notes.append("not counted, of a kind unknown here: " + ", ".join(table["uncounted"]))
    return "\n".join([columns([head, *lines]), *notes])


def _cells(row: Mapping[str, Any], rate: float | None, twin: float | None, memory: bool) -> list[str]:
    ratio = twin / row["total_mj"] if twin and row["total_mj"] else None
    shown = [
        number(row["ap50"], 3), number(rate, 3), f"{row['macs'] / 1e9:.3f}", f"{row['acs'] / 1e9:.3f}",
        *(f"{row[key]:.3f}" for key in ("synaptic_mj", "gates_mj", "neurons_mj", "total_mj")), number(ratio, 2),
    ]  # fmt: skip
    return shown + [f"{row[key]:.2f}" for key in ("memory_sram_mj", "memory_dram_mj") if memory]


def _price_line(row: Mapping[str, Any]) -> str:
    shown = {f"T={line['timesteps']}": line["total_mj"] for line in row["per_timestep"][-1:]}
    shown |= {name: line["total_mj"] for name, line in row["twins"].items()}
    return ", ".join(f"{name} {value:.3f} mJ" for name, value in shown.items())
