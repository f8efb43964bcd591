"""runs/bench/*.json as the tables of docs/performance.md, on standard output and in runs/bench/performance.md."""

from __future__ import annotations

import json
from typing import Any

from machine import RESULTS


def ms(row: dict[str, Any]) -> str:
    """Median and spread in milliseconds; a row measured once has none."""
    spread = f" ({1000 * row['low_s']:.0f}-{1000 * row['high_s']:.0f})" if row["repeats"] > 2 else f" (of {row['repeats']})"
    return f"{1000 * row['median_s']:.0f}{spread}"


def inference(found: dict[str, Any]) -> list[str]:
    rows = found["rows"]
    steps = list(next(iter(rows.values()))["T"])
    last = steps[-1]
    base = next((r["T"][last]["median_s"] for name, r in rows.items() if name == "plain eager spyv4, fp32"), None)
    out = [
        f"Inference at {found['size']}, batch {found['batch']}: ms (10-90 %); times = against the plain eager fp32 `spyv4` at T = {last}",
        "",
        "| path | " + " | ".join(f"T = {t}" for t in steps) + f" | times | pictures/s, T = {last} | of peak |",
        "|---" * (len(steps) + 4) + "|",
    ]
    for name, row in rows.items():
        at = row["T"][last]
        times = f"{base / at['median_s']:.1f}" if base and "twin" not in name else ""
        cells = [ms(row["T"][t]) for t in steps]
        cells += [times, f"{at['pictures_s']:.1f}", f"{at['of_peak']:.0%}"]
        out.append(f"| {name} | {' | '.join(cells)} |")
    for name, row in found.get("streaming", {}).items():
        out.append(f"\nStreaming, one step a frame, {name}: {1000 * row['median_s']:.1f} ms, {row['pictures_s']:.1f} frames a second.")
    return out


def training(found: dict[str, Any]) -> list[str]:
    out = [
        f"A training step at {found['size']}, batch {found['batch']}, T = {found['timesteps']}",
        "",
        "| path | ms (10-90 %) | pictures/s | of peak | saved MiB | FPTT's bookkeeping |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found["rows"].items():
        share = f"{row['bookkeeping_share']:.1%}" if "bookkeeping_share" in row else ""
        peak = f"{row['of_peak']:.0%}" if "of_peak" in row else ""
        out.append(f"| {name} | {ms(row)} | {row['pictures_s']:.2f} | {peak} | {row['saved_bytes'] / 2**20:.0f} | {share} |")
    return out


def memory(found: dict[str, Any]) -> list[str]:
    out = [
        f"Memory of a training step of `{found['detector']}` at {found['size']}, batch {found['batch']}",
        "",
        "| rule and T | saved for backward, MiB | resident above the start, MiB | seconds |",
        "|---|---|---|---|",
    ]
    for name, row in found["rows"].items():
        out.append(f"| {name} | {row['saved_bytes'] / 2**20:.1f} | {row['resident_bytes'] / 2**20:.0f} | {row['seconds']:.1f} |")
    return out


def agreement(found: dict[str, Any]) -> list[str]:
    out = [
        f"{found['weights']}, the first {found['pictures']} pictures of {found['split']}, {found['size']} pixels, T = {found['timesteps']}",
        "",
        "| path | AP50 (VOC10+), % | equal spikes | equal boxes |",
        "|---|---|---|---|",
    ]
    for name, row in found["rows"].items():
        equal = f"{row['equal_spikes']:.2%} | {row['equal_boxes']:.1%} of {row['boxes']}" if "equal_spikes" in row else " | "
        out.append(f"| {name} | {100 * row['voc10_ap50']:.2f} | {equal} |")
    return [*out, "", f"Early exit stopped after {found['steps_before_exit']:.2f} steps on average."]


def loading(found: dict[str, Any]) -> list[str]:
    data, workers = found["data"], found["workers"]
    where = f"{workers} loader process{'' if workers == 1 else 'es'}" if workers else "in the training process itself"
    alone, cpu = 1000 * found["seconds_a_picture_alone"], 1000 * found["cpu_seconds_a_picture"]
    return [
        f"Loading from {'the data given' if data == 'given' else 'the ' + data} (mosaic, {found['size']} pixels, batch {found['batch']}, "
        f"T = {found['timesteps']}, {where}): a picture takes {alone:.0f} ms, {cpu:.0f} ms of processor time.",
        f"A training step fed by the loader takes {found['loaded_s']:.2f} s, on a batch that is there already {found['cached_s']:.2f} s: "
        f"{found['ratio']:.2f} times.",
    ]


PARTS = {"inference": inference, "training_memory": memory, "training": training, "agreement": agreement, "loading": loading}


def main() -> None:
    lines: list[str] = []
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text())
        part = next((PARTS[p] for p in PARTS if path.stem.startswith(p)), None)
        if part is None:
            continue
        lines += [*part(found), ""]
        machine = found["machine"]
    if not lines:
        raise SystemExit(f"no results in {RESULTS}; run one of the benches first")
    lines.append(f"Machine: {machine['threads']} threads of {machine['processor']}, PyTorch {machine['torch']}.")
    text = "\n".join(lines)
    print(text)
    (RESULTS / "performance.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
