"""The energy table of docs/energy.md, from what `eval` measured: no figure is typed by hand.

    tools/eval.py --weights spyv4_lite.safetensors --data DEVKIT --split 2007:val --timesteps 1..8 --out runs/lite
    tools/eval.py --weights yolov4_tiny.safetensors --data DEVKIT --split 2007:val --out runs/twin
    tools/energy_table.py spyv4_lite=runs/lite/metrics.json twin=runs/twin/metrics.json --out docs/energy_table.md

Plain networks among the files (the twin, narrower twins) are what the spiking ones are compared with: the largest is the twin, and for
every number of steps the cheapest of them that reaches the same AP50 is named.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spyolo.cli.options import Parser
from spyolo.errors import InputError
from spyolo.evaluation.columns import number
from spyolo.files import one_line, read_limited

CHEAP_SIGMOID = 1  # MACs, of a sigmoid made of straight lines


@dataclass(frozen=True)
class Run:
    """One network's metrics.json."""

    label: str
    energy: Mapping[str, Any]
    protocol: Mapping[str, Any]

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """One for each number of steps."""
        return self.energy["per_timestep"]

    @property
    def spiking(self) -> bool:
        return any(row["membrane_updates"] for row in self.rows)

    def at_price(self, name: str, row: Mapping[str, Any]) -> float:
        """Everything counted, mJ, at another price list."""
        return self.energy["by_price"][name]["per_timestep"][row["timesteps"] - 1]["total_mj"]

    def cheap_sigmoid(self, row: Mapping[str, Any]) -> float:
        """Everything counted, mJ, with sigmoids of CHEAP_SIGMOID MACs."""
        price = self.energy["prices"][self.energy["main_price"]]
        return row["total_mj"] - row["gate_updates"] * (price["sigmoid"] - CHEAP_SIGMOID * price["mac"]) * 1e-9


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="energy_table", description=__doc__)
    p.add_argument("runs", nargs="+", metavar="[LABEL=]METRICS.JSON", help="what eval wrote; the label is the detector's name unless given")
    p.add_argument("--out", metavar="FILE", help="Markdown file [standard output]")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    runs = [read_run(argument) for argument in args.runs]
    text = document(runs)
    for told in differences(runs):
        print(f"warning: {told}", file=sys.stderr)
    if args.out:
        from spyolo.files import write_whole

        print(f"wrote {write_whole(args.out, text)}")
    else:
        print(text, end="")
    return 0


def read_run(argument: str) -> Run:
    """`LABEL=PATH` or `PATH`.

    Raises:
        InputError: it cannot be read, or is not what eval writes; names the file.
    """
    label, path = ("", argument) if "=" not in argument or Path(argument).exists() else argument.split("=", 1)
    try:
        metrics = json.loads(read_limited(path, 1 << 30))
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot read the metrics: {one_line(error)}") from error
    energy = metrics.get("energy") if isinstance(metrics, dict) else None
    if not isinstance(energy, dict) or "by_price" not in energy or not energy.get("per_timestep"):
        raise InputError(f"{path}: field energy is missing; write it with eval --weights, without --energy-pictures 0")
    try:
        protocol = metrics.get("protocol", {})
        run = Run(label or str(protocol.get("detector", Path(path).parent.name)), energy, protocol)
        document([run])  # whatever a table asks of it is there
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        missing = f"field {error} is missing" if isinstance(error, KeyError) else one_line(error)
        raise InputError(f"{path}: its energy is not what eval writes ({missing}); write it again with eval --weights") from None
    return run


def differences(runs: Sequence[Run]) -> list[str]:
    """What the runs were not measured alike on: their figures cannot be compared."""
    known = {
        "split": [run.protocol.get("split") for run in runs],
        "input": [run.protocol.get("input") for run in runs],
        "pictures measured": [run.protocol.get("pictures") for run in runs],
        "pictures counted": [run.energy["pictures"] for run in runs],
    }
    return [
        f"not measured alike, {name}: " + "; ".join(f"{run.label} {'unknown' if v is None else v}" for run, v in zip(runs, values))
        for name, values in known.items()
        if any(value != values[0] for value in values)
    ]


def document(runs: Sequence[Run]) -> str:
    """All tables, as Markdown."""
    plain = sorted((run for run in runs if not run.spiking), key=lambda run: -run.rows[0]["dense_macs"])
    parts = [spiking_table(run, plain) for run in runs if run.spiking]
    return "\n".join([*parts, plain_table(plain)] if plain else parts)


def spiking_table(run: Run, plain: Sequence[Run]) -> str:
    """One network after every number of steps."""
    twin = plain[0] if plain else None
    head = (
        "T", "AP50", "firing", "G MAC", "G AC", "synaptic", "gates", "neurons", "**total**", "total, cheap sigmoid", "total, int8",
        "memory, SRAM", "memory, DRAM", "twin / total", "AP50 - twin's", "cheapest plain network of that AP50",
    )  # fmt: skip
    lines = [_row(head), _row(["---:"] * len(head))]
    for row in run.rows:
        ratio = run.energy["ann_twin_mj"] / row["total_mj"] if run.energy.get("ann_twin_mj") and row["total_mj"] else None
        behind = _ap50(row) - _ap50(twin.rows[0]) if twin and row["ap50"] is not None and twin.rows[0]["ap50"] is not None else None
        energies = [row[key] for key in ("synaptic_mj", "gates_mj", "neurons_mj", "total_mj")]
        energies += [run.cheap_sigmoid(row), run.at_price("int8", row), row["memory_sram_mj"], row["memory_dram_mj"]]
        cells = [str(row["timesteps"]), _percent(row["ap50"]), number(row["firing_rate"]), _giga(row["macs"]), _giga(row["acs"])]
        cells += [number(value) for value in (*energies, ratio)]
        lines.append(_row([*cells, "-" if behind is None else f"{behind:+.1f}", cheapest(row, plain)]))
    return "\n".join([f"### {run.label}", "", _source(run), "", *lines, ""])


def cheapest(row: Mapping[str, Any], plain: Sequence[Run]) -> str:
    """The plain network that reaches this AP50 for the least energy, at fp32 and int8 prices."""
    able = [run for run in plain if None not in (row["ap50"], run.rows[0]["ap50"]) and run.rows[0]["ap50"] >= row["ap50"]]
    if not able:
        return "-"
    best = min(able, key=lambda run: run.rows[0]["total_mj"])
    return f"{best.label}: {number(best.rows[0]['total_mj'])} (int8 {number(best.at_price('int8', best.rows[0]))})"


def plain_table(plain: Sequence[Run]) -> str:
    """The networks they are compared with."""
    head = ("network", "AP50", "G MAC", "synaptic", "**total**", "total, int8", "memory, SRAM", "memory, DRAM")
    lines = [_row(head), _row(["---"] + ["---:"] * (len(head) - 1))]
    for run in plain:
        row = run.rows[0]
        figures = (row["synaptic_mj"], row["total_mj"], run.at_price("int8", row), row["memory_sram_mj"], row["memory_dram_mj"])
        lines.append(_row([run.label, _percent(row["ap50"]), _giga(row["macs"]), *(number(value) for value in figures)]))
    return "\n".join(["### Plain networks", "", _source(plain[0]), "", *lines, ""])


def _source(run: Run) -> str:
    p = run.protocol
    price = run.energy["prices"][run.energy["main_price"]]
    return (
        f"{run.energy['pictures']} pictures of {p.get('split', 'an unknown split')}, {p.get('input', 'input unknown')}; AP50 is VOC10+; "
        f"mJ a picture at {price['name']} prices (MAC {price['mac']} pJ, AC {price['add']} pJ); a cheap sigmoid takes {CHEAP_SIGMOID} MAC "
        f"instead of {price['sigmoid_macs']:g}."
    )


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _giga(value: float) -> str:
    return number(value / 1e9)


def _ap50(row: Mapping[str, Any]) -> float:
    return 100 * row["ap50"]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
