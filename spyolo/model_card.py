"""A model card from a manifest entry: what the file is, what it can do by which protocol, how it came about. No figure is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spyolo.evaluation.metrics import percent
from spyolo.published import Entry
from spyolo.tables import markdown

PIECE_COLUMNS = (
    "from", "detector", "rule", "form", "timesteps", "size", "batch", "lr", "augment", "seed", "epochs", "minutes", "device", "amp",
    "pictures", "voc10_ap50",
)  # fmt: skip


def card(entry: Entry) -> str:
    """Markdown."""
    c, m, p = entry.config, entry.metrics, entry.protocol
    training, precision = entry.training, p["precision_of_convolutions"]
    steps = f" --timesteps 1..{m['anytime'][-1]['timesteps']}" if len(m["anytime"]) > 1 else ""
    shown = f"{training['pictures']:,}" if "pictures" in training else "an unknown number of"
    lines = [
        f"# {entry.name}", "",
        f"`{c['name']}`, width {c['width']:g}, {c['parameters']:,} parameters, {len(entry.classes)} classes, "
        f"input {c['size']} x {c['size']}, T = {c['timesteps']}; {c['dtype']}, sha256 `{entry.sha256}`.", "",
        f"Trained on {shown} pictures of `{training.get('train', 'unknown')}`; "
        f"{origin(training)}.", "",
        f"    tools/eval.py --weights {entry.name} --data DIR --split {p['split']}{steps} --latency", "",
        f"Measured on {p['pictures']:,} pictures of `{p['split']}`, {p['input']}, confidence floor {p['confidence_floor']}, NMS "
        f"{p['nms_iou']}, {vote(p)}, at most {p['max_detections']} boxes a picture, convolutions in "
        f"{'fp32' if precision == 'none' else precision}. {p.get('note', '')}".rstrip(), "",
        *anytime(m["anytime"]), "",
    ]  # fmt: skip
    if any(row.get("latency_ms") is not None for row in m["anytime"]):
        lines += [timed_on(p), ""]
    if entry.energy.get("total_mj"):
        lines += [energy(entry), ""]
    if m.get("f1") is not None and "operating_confidence" in p:
        shares = f"precision {percent(m['precision'])}, recall {percent(m['recall'])}, F1 {percent(m['f1'])}"
        coco = f"COCO AP50 {percent(m['coco_ap50'])}, AP75 {percent(m['coco_ap75'])}"
        lines += [f"At T = {c['timesteps']}: {coco}; at a confidence of {p['operating_confidence']}: {shares}.", ""]
    if "per_class" in m:
        names = ", ".join(f"{name} {percent(value)}" for name, value in m["per_class"].items())
        lines += [f"VOC10+ AP50 by class: {names}.", ""]
    lines += ["## Pieces of training", "", *table(PIECE_COLUMNS, [as_read(piece) for piece in training["pieces"]])]
    return "\n".join(lines) + "\n"


def energy(entry: Entry) -> str:
    """What the energies are of, and a plain network of the same shape and input beside them."""
    priced, twin, c = "Energy at 45 nm fp32 prices (docs/energy.md)", entry.energy.get("ann_twin_mj"), entry.config
    if entry.firing_rate is None:
        return f"{priced}. A plain network: no spikes, every operand is a real number."
    beside = f"; the synapses of a plain network of this shape and input ({c['size']} x {c['size']}): {twin:.2f} mJ" if twin else ""
    return f"{priced}{beside}."


def as_read(piece: Mapping[str, Any]) -> dict[str, Any]:
    """Without the form of FPTT where the rule is another: older logs name it all the same."""
    return {name: value for name, value in piece.items() if name != "form" or piece.get("rule") == "fptt"}


def vote(protocol: Mapping[str, Any]) -> str:
    """Whether boxes were moved by a vote; entries of before there was one have none."""
    iou = protocol.get("vote_iou")
    return f"box voting from {iou:g}" if iou else "no box voting"


def origin(training: Mapping[str, Any]) -> str:
    """Where the weights come from, and which of the run's they are (its `weights_of`: `w`, `average` or `ema`)."""
    known = {"scratch": "from scratch", "unknown": "from an unknown start"}
    which = f"; the weights are the run's `{training['weights_of']}`" if training.get("weights_of") else ""
    return known.get(training["origin"], training["origin"]) + which


def timed_on(protocol: Mapping[str, Any]) -> str:
    """What the times were taken on; entries of before it was recorded know the device alone."""
    p, which = protocol, "not recorded which"
    if all(p.get(key) for key in ("processor", "threads", "torch")):
        which = f"{p['processor']}, {p['threads']} thread(s), PyTorch {p['torch']}"
    return f"Times: one picture at a time, median of several passes; on {p['device']}: {which}."


def anytime(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line a number of steps."""
    columns = ("T", "VOC07 AP50", "VOC10+ AP50", "VOC10+ AP50:95", "COCO AP", "firing rate", "synaptic, mJ", "all, mJ", "ms a picture")
    keys = ("voc07_ap50", "voc10_ap50", "voc10_ap50_95", "coco_ap")
    body = []
    for row in rows:
        costs = [row.get("firing_rate"), row.get("synaptic_mj"), row.get("energy_mj")]
        cells = [str(row["timesteps"]), *(percent(row[k]) for k in keys), *("-" if v is None else f"{v:.3f}" for v in costs)]
        body.append([*cells, "-" if row.get("latency_ms") is None else f"{row['latency_ms']:.0f}"])
    return markdown(columns, body)


def table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[str]:
    """Dictionaries as rows; what a row lacks is a dash."""
    return markdown(columns, [[_cell(row.get(name)) for name in columns] for row in rows])


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
