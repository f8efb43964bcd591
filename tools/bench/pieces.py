"""How a published file got better, piece by piece: its figures against the minutes of training behind it, as a table and a figure.

    python tools/bench/pieces.py --out docs/images/pieces.png [--name spyv4_lite_voc]

Every version of weights/manifest.json in the git history is read, so a clone with its history is needed. Minutes are those of the log of
pieces in the file, by the clock of each run. The last column is what went with a doubling of the minutes since the version before: larger
pictures and a better reading too.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

MANIFEST = "weights/manifest.json"
FIGURES = (("voc10_ap50", "AP50", "tab:blue"), ("voc10_ap50_95", "AP50:95", "tab:orange"))
MARKS = {128: "v", 192: "s", 256: "o"}


def versions(name: str) -> list[dict[str, Any]]:
    """A row a published version, the oldest first; of those re-measured without further training the latest."""
    commits = subprocess.run(["git", "log", "--format=%H", "--reverse", "--", MANIFEST], capture_output=True, text=True, check=True).stdout
    rows: dict[int, dict[str, Any]] = {}
    for commit in commits.split():
        told = subprocess.run(["git", "show", f"{commit}:{MANIFEST}"], capture_output=True, text=True, check=True).stdout
        for entry in json.loads(told)["models"]:
            if entry["name"] == name:
                pieces = entry["training"]["pieces"]
                rows[len(pieces)] = row_of(entry, pieces)
    return list(rows.values())


def row_of(entry: dict[str, Any], pieces: list[dict[str, Any]]) -> dict[str, Any]:
    protocol = entry["protocol"]
    return {
        "pieces": len(pieces), "minutes": sum(p["minutes"] for p in pieces), "epochs": sum(p["epochs"] for p in pieces),
        "size": entry["config"]["size"], "timesteps": entry["config"]["timesteps"], "vote": protocol.get("vote_iou") or 0,
        "nms": protocol["nms_iou"], "split": protocol["split"], "pictures": protocol["pictures"],
        **{key: 100 * entry["metrics"][key] for key, _, _ in FIGURES},
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> list[str]:
    head = "| pieces in it | minutes | epochs | size | T | NMS, vote from | AP50 | AP50:95 | AP50 a doubling of the minutes |"
    lines = [head, "|---:" * 9 + "|"]
    for before, row in zip([None, *rows], rows):
        gain = f"{doubling(before, row):+.1f}" if before else ""
        lines.append(
            f"| {row['pieces']} | {row['minutes']:.0f} | {row['epochs']:.0f} | {row['size']} | {row['timesteps']} "
            f"| {row['nms']}, {row['vote'] or '-'} | {row['voc10_ap50']:.2f} | {row['voc10_ap50_95']:.2f} | {gain} |"
        )
    return lines


def doubling(before: dict[str, Any], row: dict[str, Any]) -> float:
    """Points of AP50 that twice the minutes would bring if they went on as between these two."""
    return (row["voc10_ap50"] - before["voc10_ap50"]) / math.log2(row["minutes"] / before["minutes"])


def draw(rows: list[dict[str, Any]], out: Path, name: str) -> None:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    minutes = [row["minutes"] for row in rows]
    for key, label, colour in FIGURES:
        axes.plot(minutes, [row[key] for row in rows], color=colour, label=label)
        for row in rows:
            mark, inside = MARKS.get(row["size"], "D"), colour if row["vote"] else "white"
            axes.plot(row["minutes"], row[key], mark, color=colour, markerfacecolor=inside)
    sizes = sorted({row["size"] for row in rows})
    for size in sizes:
        axes.plot([], [], MARKS.get(size, "D"), color="grey", markerfacecolor="white", label=f"{size} pixels")
    axes.plot([], [], "o", color="grey", label="read with box voting")
    measured_on = f"{rows[-1]['pictures']:,} photographs of {rows[-1]['split']}"
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda minutes, _: f"{minutes:.0f}")
    axes.set_xticks([100 * 2**k for k in range(math.ceil(math.log2(max(minutes) / 100)) + 1)])
    axes.set(xlabel="minutes of training, one core", ylabel=f"% on {measured_on}")
    axes.set_title(f"{name}, as published after each piece", fontsize=10)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.savefig(out, dpi=110)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--name", default="spyv4_lite_voc")
    p.add_argument("--out", type=Path, required=True, help="where the figure goes; docs/images/pieces.png is of spyv4_lite_voc")
    args = p.parse_args()
    rows = versions(args.name)
    if not rows:
        raise SystemExit(f"{args.name}: no version of it in the history of {MANIFEST} (a shallow clone?)")
    draw(rows, args.out, args.name)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
