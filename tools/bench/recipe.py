#!/usr/bin/env python3
"""Ablations of the training recipe on a reduced setting of PASCAL VOC: one change a line, each with several seeds, beside the base.

    tools/bench/recipe.py --data DIR                                 all lines -> runs/recipe/recipe.md, recipe.csv, recipe.png
    tools/bench/recipe.py --data DIR --only base,BPTT --seeds 0,1    some of them
    tools/bench/recipe.py --data DIR --table                         what is there so far, as table and figure

The setting: people in VOC2007 train (all of its photographs), 96 pixels, `spyv4_lite` of half the width, T = 2, six epochs from scratch,
measured on the first 1,000 photographs of VOC2007 val. Differences are of runs with the same seed: same first weights (where the shapes are
the same), same order, same augmentation. Runs resume: the same command goes on where it was stopped. A line that fails is named, and the
others go on.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from spyolo.config import load_preset
from spyolo.errors import InputError
from spyolo.resuming import holds_this_run

ROOT = Path(__file__).resolve().parents[2]
BASE = {
    "preset": "voc_cpu", "detector": "spyv4_lite", "width": 0.5, "classes": "person", "train": "2007:train",
    "val": "2007:val", "val_limit": 1000, "size": 96, "timesteps": 2, "batch": 32, "epochs": 6, "lr": 0.003, "warmup": 0.5, "ema": 0.998,
    "box_gain": 3, "iou_target": 0, "eval_every": 1000, "eval_limit": 0, "workers": 0,
    "nms_iou": 0.5, "vote_iou": 0,
}  # fmt: skip
TWIN = "ANN twin"


class Line(NamedTuple):
    """A line of the table: the name, what it belongs to, and what differs from the base."""

    name: str
    group: str
    changes: dict[str, object]


LINES = [
    Line("base", "", {}),
    Line("BPTT", "rule", {"rule": "bptt"}),
    Line("one update", "rule", {"parts": 1}),
    Line("alpha 0.5", "rule", {"alpha": 0.5}),
    Line("alpha 0.01", "rule", {"alpha": 0.01}),
    Line("LIF", "neuron", {"kind": "lif"}),
    Line(TWIN, "neuron", {"detector": "yolov4_tiny", "rule": "bptt", "timesteps": 1}),
    Line("from the twin", "neuron", {"init": TWIN}),
    Line("gate 3x3", "gate", {"gate": "conv"}),
    Line("gate 1x1", "gate", {"gate": "pointwise"}),
    Line("gate static", "gate", {"gate": "static"}),
    Line("T = 1", "steps", {"timesteps": 1}),
    Line("T = 4", "steps", {"timesteps": 4}),
    Line("readout last", "readout", {"readout": "last"}),
    Line("readout mean", "readout", {"readout": "mean"}),
    Line("renormalised", "norm", {"norm": "renorm"}),
    Line("not recalibrated", "norm", {"recalibrate": 0}),
    Line("W", "weights kept", {"weights_of": "w"}),
    Line("W-bar", "weights kept", {"weights_of": "average"}),
    Line("EMA 0.99", "weights kept", {"ema": 0.99}),
    Line("EMA 0.9995", "weights kept", {"ema": 0.9995}),
    Line("no augmentation", "augmentation", {"augment": "eval"}),
    Line("no scale jitter", "augmentation", {"scale": "1,1"}),
    Line("no colour", "augmentation", {"colour": 0}),
    Line("mosaic", "augmentation", {"augment": "mosaic"}),
    Line("shape factor 2", "assignment", {"shape_factor": 2}),
    Line("shape factor 8", "assignment", {"shape_factor": 8}),
    Line("objectness = CIoU", "assignment", {"iou_target": 1}),
    Line("smoothing 0.1", "loss", {"smoothing": 0.1}),
    Line("rate regulariser 0.1", "loss", {"rate_weight": 0.1}),
    Line("lr 0.0015", "schedule", {"lr": 0.0015}),
    Line("lr 0.006", "schedule", {"lr": 0.006}),
    Line("constant rate", "schedule", {"lr_final": 1}),
    Line("batch 16", "schedule", {"batch": 16}),
    Line("batch 64", "schedule", {"batch": 64}),  # FPTT at T = 2 in the memory that BPTT takes for 32
    Line("batch 64 at 0.006", "schedule", {"batch": 64, "lr": 0.006}),
    Line("12 epochs", "schedule", {"epochs": 12}),
]


class Result(NamedTuple):
    ap50: float  # per cent, VOC10+
    rate: float  # firing rate of the last epoch
    minutes: float


def folder(out: Path, name: str, seed: int) -> Path:
    return out / f"{''.join(c if c.isalnum() else '-' for c in name)}-{seed}"


def planned(line: Line, seed: int, data: str, out: Path) -> dict[str, str]:
    """The options of its run."""
    options = BASE | line.changes
    if "init" in line.changes:
        options["init"] = folder(out, str(options["init"]), seed) / "best.safetensors"
    return {key: str(value) for key, value in options.items()} | {"data": data, "seed": str(seed), "out": str(folder(out, line.name, seed))}


def finished(options: dict[str, str]) -> bool:
    """Whether the run was brought to its end. Raises InputError where its folder holds another run, of a line that has changed since."""
    if result(Path(options["out"])) is None:
        return False
    changes = {key: value for key, value in options.items() if key != "preset"}
    return holds_this_run(load_preset(options["preset"]).updated(changes), "give another --out")


def train(options: dict[str, str], quiet: bool) -> bool:
    """Run it to its end, in a process of its own, from wherever it is; whether it got there."""
    words = [w for key, value in options.items() for w in (f"--{key.replace('_', '-')}", value)]
    command = [sys.executable, str(ROOT / "tools" / "train.py"), *words, "--continue", *["--quiet"] * quiet]
    return subprocess.run(command, check=False).returncode == 0 and result(Path(options["out"])) is not None


def result(run: Path) -> Result | None:
    """What a finished run reached; None before its end."""
    if not (run / "metrics.json").exists():
        return None
    rows = list(csv.DictReader((run / "log.csv").read_text().splitlines()))
    ap50 = 100 * json.loads((run / "metrics.json").read_bytes())["voc10_ap50"]
    return Result(ap50, float(rows[-1]["firing_rate"]), sum(float(r["seconds"]) for r in rows) / 60)


def report(out: Path, seeds: list[int]) -> None:
    """The table, as text and CSV, and the figure of the differences, of all that is finished."""
    found = {line.name: {s: r for s in seeds if (r := result(folder(out, line.name, s))) is not None} for line in LINES}
    base = found["base"]
    text = ["| line | AP50, %, by seed | mean | against the base, by seed | mean | firing | minutes |", "|---|---|---:|---|---:|---:|---:|"]
    rows: list[list[object]] = [["line", "group", "seed", "ap50", "firing_rate", "minutes"]]
    differences: dict[str, list[float]] = {}
    for line in LINES:
        runs = found[line.name]
        if not runs:
            continue
        rows += [[line.name, line.group, seed, *r] for seed, r in runs.items()]
        ap = [r.ap50 for r in runs.values()]
        apart = [r.ap50 - base[seed].ap50 for seed, r in runs.items() if seed in base and line.name != "base"]
        if apart:
            differences[line.name] = apart
        means = f"{statistics.mean(apart):+.1f}" if apart else ""
        rate, minutes = (statistics.mean(column) for column in list(zip(*runs.values()))[1:])
        told = f"{', '.join(f'{a:.1f}' for a in ap)} | {statistics.mean(ap):.1f} | {', '.join(f'{d:+.1f}' for d in apart)} | {means}"
        firing = f"{rate:.3f}" if rate else ""  # of the twin: none
        text.append(f"| {line.name} | {told} | {firing} | {minutes:.1f} |")
    (out / "recipe.md").write_text("\n".join(text) + "\n")
    with (out / "recipe.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    if differences:
        figure(differences, spread=statistics.stdev([r.ap50 for r in base.values()]) if len(base) > 1 else 0.0).savefig(
            out / "recipe.png", dpi=120
        )
    print("\n".join(text))


def figure(differences: dict[str, list[float]], spread: float) -> Figure:
    """A row a line: each seed's difference from the base, and their mean; the band is the base's own spread over seeds."""
    made = Figure(figsize=(7, 1 + 0.24 * len(differences)), layout="constrained")
    axes = made.subplots()
    for i, values in enumerate(differences.values()):
        axes.plot(values, [i] * len(values), "o", color="tab:blue", markersize=4, alpha=0.6)
        axes.plot(statistics.mean(values), i, "|", color="black", markersize=12)
    if spread:
        axes.axvspan(-spread, spread, color="0.9", zorder=0)
    axes.axvline(0, color="0.5", linewidth=1)
    axes.set_yticks(range(len(differences)), list(differences))
    axes.invert_yaxis()
    told = "AP50 (VOC10+) against the base with the same seed, points"
    told += "\nband: the base's standard deviation over its seeds" if spread else ""
    axes.set_xlabel(told, fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    return made


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True, help="folder that holds VOCdevkit")
    p.add_argument("--seeds", default="0,1,2", help="[%(default)s]")
    p.add_argument("--only", default="", help="names of lines, with commas; none: all")
    p.add_argument("--skip", default="", help="names of lines to leave out")
    p.add_argument("--out", type=Path, default=Path("runs/recipe"), help="[%(default)s]")
    p.add_argument("--table", action="store_true", help="train nothing: report what is there")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    args = p.parse_args()
    seeds = [int(s) for s in args.seeds.split(",")]
    named = {w for w in (args.only + "," + args.skip).split(",") if w}
    if unknown := named - {line.name for line in LINES}:
        p.error(f"no such line: {', '.join(sorted(unknown))}; lines are {'; '.join(line.name for line in LINES)}")
    chosen = [line for line in LINES if (not args.only or line.name in args.only.split(",")) and line.name not in args.skip.split(",")]
    args.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for seed in [] if args.table else seeds:  # a whole table of the first seed first
        for line in chosen:
            options = planned(line, seed, args.data, args.out)
            try:
                done = finished(options) or train(options, args.quiet)
            except InputError as error:
                sys.exit(f"error: {error}")
            if not done:
                failed.append(f"{line.name}, seed {seed}")
    report(args.out, seeds)
    if failed:
        sys.exit(f"not finished: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
