"""Put weights among the published ones: half precision, measured as they will be downloaded, with checksum, manifest entry and card.

    tools/publish.py --weights runs/voc/best.safetensors --name spyv4_lite_voc --data DEVKIT --split 2007:val --timesteps 1..4

What is measured is the file that is published. A published file is only replaced by one of its kind (detector, origin, rule) with a higher
VOC10+ AP50 on the same split, or with --replace; the log of training pieces comes along in the file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spyolo.cli.options import NMS_IOU, VOTE_IOU, Parser, check_shares
from spyolo.errors import InputError
from spyolo.ranges import SIZES, STEPS, check_whole

if TYPE_CHECKING:
    from spyolo.checkpoint import WeightsInfo
    from spyolo.detection import SpikingYOLO
    from spyolo.published import Entry

DTYPES = ("bf16", "fp16", "fp32")
KEPT = (  # of the protocol: all but paths of this machine
    "split", "pictures", "input", "confidence_floor", "nms_iou", "max_detections", "vote_iou", "precision_of_convolutions", "device",
    "coco_backend", "operating_confidence", "processor", "threads", "torch",
)  # fmt: skip
FIGURES = (
    "voc07_ap50", "voc10_ap50", "voc10_ap50_95", "coco_ap", "coco_ap50", "coco_ap75", "precision", "recall", "f1", "latency_ms",
    "per_class",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="publish", description=__doc__)
    p.add_argument("--weights", required=True, metavar="FILE", help="trained weights: best.safetensors of a run, or a published name")
    p.add_argument("--name", required=True, help="name to publish under, such as spyv4_lite_voc")
    p.add_argument("--data", required=True, metavar="DIR", help="folder that holds VOCdevkit, to measure on")
    p.add_argument("--split", default="2007:val", help="pictures measured on [%(default)s]")
    p.add_argument("--timesteps", default="1..4", help="steps measured [%(default)s]")
    p.add_argument("--steps", type=int, metavar="T", help="steps that the published file is used with [as trained]")
    p.add_argument("--size", type=int, help="input side that the published file is used with [as trained]")
    p.add_argument("--vote-iou", type=float, metavar="IOU", help=VOTE_IOU)
    p.add_argument("--nms-iou", type=float, metavar="IOU", help=NMS_IOU)
    p.add_argument("--dtype", default="bf16", choices=DTYPES, help="precision of the file [%(default)s]")
    note = "what a reader must know of the data, such as their resolution [that of the file replaced, if of the same pictures]"
    p.add_argument("--note", default=argparse.SUPPRESS, help=note)  # may be empty: without one
    p.add_argument("--to", metavar="DIR", help="folder of published weights [weights/]")
    p.add_argument("--out", default="runs/publish", metavar="DIR", help="where the evaluation and its report go [%(default)s]")
    p.add_argument("--replace", action="store_true", help="replace a published file even by a worse one")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from spyolo.published import folder, place, read_manifest

    if not args.name.isidentifier():
        raise InputError(f"--name must be letters, digits and underscores, got {args.name!r}")
    check_use(args)
    refuse_checkpoint(args.weights)
    where = Path(args.to) if args.to else folder()
    entries = read_manifest(where)
    with tempfile.TemporaryDirectory() as temporary:
        candidate = Path(temporary) / f"{args.name}.safetensors"
        detector, info = convert(args, candidate)
        refuse_another_kind(args, info, entries)
        steps = check_steps(args, info)
        metrics = measured(args, candidate, info.spec.stepped)
        row = next(row for row in metrics["anytime"] if row["timesteps"] == steps)  # of the steps that the file is used with
        refuse_worse(args, row, entries, metrics["protocol"]["pictures"])
        finish(args, candidate, row, metrics["protocol"]["pictures"])
        entry = entry_of(args, candidate, detector, info, row, metrics, note_of(args, entries.get(args.name), metrics["protocol"]))
        place(candidate, entry, where, entries.get(args.name))
    from spyolo.files import write_whole
    from spyolo.model_card import card

    write_whole(where / f"{entry.name}.md", card(entry))
    said = f"VOC10+ AP50 {100 * entry.metrics['voc10_ap50']:.2f} at T = {entry.protocol['timesteps']}"
    print(f"published {where / entry.file} (sha256 {entry.sha256[:12]}...), {said}")
    return 0


def check_use(args: argparse.Namespace) -> None:
    """Steps, input side and overlaps asked for. Raises InputError for what no file may say."""
    if args.steps is not None:
        check_whole("--steps", args.steps, *STEPS)
    if args.size is not None:
        check_whole("--size", args.size, *SIZES)
    check_shares(args, ["vote_iou", "nms_iou"])


def refuse_checkpoint(weights: str) -> None:
    """Raises InputError for a training checkpoint: its own tensors are W, and the run's figures are of the weights that were evaluated."""
    from spyolo.checkpoint import load_tensors
    from spyolo.tensors import is_checkpoint

    if is_checkpoint(load_tensors(weights)[0]):
        raise InputError(f"{weights} is a training checkpoint; publish the run's final.safetensors or best.safetensors")


def refuse_another_kind(args: argparse.Namespace, info: WeightsInfo, entries: dict[str, Entry]) -> None:
    """Weights from scratch, from a plain network and by another rule have names of their own, and other weights than the published are
    compared with them as they are read. Raises InputError, before minutes of measuring."""
    from spyolo.checkpoint import OVERLAPS
    from spyolo.pieces import pieces_in

    before = rival_of(args, entries)
    if before is None:
        return
    log, pieces = before.training.get("pieces") or [], pieces_in(info.notes, info.spec.name)
    was, now = kind_of(str(before.config.get("name")), log), kind_of(info.spec.name, pieces)
    if was != now:
        raise InputError(f"{args.name} is {was}, {args.weights} is {now}: give it another --name (or --replace)")
    overlaps = {name: (getattr(info, name), before.protocol.get(name) or 0) for name in OVERLAPS}
    other = [f"{name} {value:g}, not {known:g}" for name, (value, known) in overlaps.items() if value != known]
    if other and pieces != log:
        raise InputError(
            f"{args.name}: {args.weights} is read with {', '.join(other)}, and a better reading would pass for better weights: publish the "
            f"present ones with that reading first (--weights {args.name}), or --replace"
        )


def kind_of(detector: str, pieces: list[dict[str, Any]]) -> str:
    """What is kept apart by names: `spyv4_lite, scratch, fptt`."""
    from spyolo.pieces import origin

    rules = dict.fromkeys(str(piece.get("rule", "unknown")) for piece in pieces if piece.get("detector") == detector)
    return ", ".join([detector, origin(pieces), " and ".join(rules) or "unknown"])


def note_of(args: argparse.Namespace, before: Entry | None, protocol: dict[str, Any]) -> str:
    """The note given, or else that of the file replaced where as many pictures of the same split were measured, which is told."""
    if "note" in args:
        return str(args.note)
    if before is None or any(before.protocol.get(key) != protocol[key] for key in ("split", "pictures")):
        return ""
    kept = str(before.protocol.get("note", ""))
    if kept:
        print(f"its note stays (--note gives another): {kept}")
    return kept


def convert(args: argparse.Namespace, path: Path) -> tuple[SpikingYOLO, WeightsInfo]:
    """Write the weights in the precision published, with the steps, side and overlaps they are used with; returns what was written."""
    import torch

    from spyolo.checkpoint import load_detector, save_weights

    detector, info = load_detector(args.weights)
    asked = {"timesteps": args.steps, "size": args.size, "vote_iou": args.vote_iou, "nms_iou": args.nms_iou}
    info = replace(info, **{name: value for name, value in asked.items() if value is not None})
    info = replace(info, timesteps=detector.steps_of(info.timesteps))
    save_weights(path, detector, info, {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}[args.dtype])
    return detector, info


def check_steps(args: argparse.Namespace, info: WeightsInfo) -> int:
    """The steps that the file is used with. Raises InputError, before minutes of measuring, where they would not be measured."""
    from spyolo.cli.eval_model import parse_timesteps

    measured_at = parse_timesteps(args.timesteps)
    if not info.spec.stepped:  # a recording is shown a window a step, and measured so
        return 1
    if info.timesteps not in measured_at:
        raise InputError(f"--timesteps {args.timesteps} leaves out {info.timesteps}, the steps that the file is used with (--steps)")
    return info.timesteps


def measured(args: argparse.Namespace, candidate: Path, stepped: bool) -> dict[str, Any]:
    """metrics.json of the candidate, as `eval` writes it, after every step asked for."""
    from spyolo.cli import eval as evaluation

    steps = ["--timesteps", args.timesteps] if stepped else []
    quiet = ["--quiet"] if args.quiet else []
    files = ["--weights", str(candidate), "--data", args.data, "--split", args.split, "--out", args.out]
    evaluation.main([*files, "--report", "--latency", *steps, *quiet])
    return json.loads((Path(args.out) / "metrics.json").read_bytes())


def refuse_worse(args: argparse.Namespace, row: dict[str, Any], entries: dict[str, Entry], pictures: int) -> None:
    """A published file is only replaced by a better one, on as many pictures, and nothing is published that no figure speaks for.
    Raises InputError."""
    before, now = rival_of(args, entries), row["voc10_ap50"]
    if now is None:
        raise InputError(f"{args.split} has no objects of the file's classes, so there is no AP50 to publish; give another --split")
    if before is None:
        return
    known, published = before.protocol.get("pictures"), before.metrics.get("voc10_ap50")
    if known != pictures:
        raise InputError(
            f"{args.name}: the published AP50 is of {known or 'an unknown number of'} pictures of {args.split}, which one of {pictures} "
            "cannot be compared with; nothing was replaced (another --name, or --replace)"
        )
    if published is not None and now <= published:
        raise InputError(
            f"{args.name}: AP50 {100 * now:.2f} is no better than the published {100 * published:.2f} on {args.split}; "
            "nothing was replaced (--replace does it all the same)"
        )


def rival_of(args: argparse.Namespace, entries: dict[str, Entry]) -> Entry | None:
    """The published entry that must be beaten; None where there is none, or with --replace. Raises InputError: it is of another split."""
    before = None if args.replace else entries.get(args.name)
    known = before and before.protocol.get("split")
    if before and known != args.split:
        raise InputError(
            f"{args.name}: the published AP50 is of {known}, with which one of {args.split} cannot be compared; "
            f"nothing was replaced (--split {known}, or --replace)"
        )
    return before


def finish(args: argparse.Namespace, candidate: Path, row: dict[str, Any], pictures: int) -> None:
    """Write the figures into the file itself, where `predict` and the demo show them."""
    from spyolo.checkpoint import load_tensors, save_tensors

    tensors, metadata = load_tensors(candidate)
    keys = ("voc07_ap50", "voc10_ap50", "voc10_ap50_95", "coco_ap")
    figures = {k: row[k] for k in keys} | {"split": args.split, "pictures": pictures}
    save_tensors(candidate, tensors, metadata | {"metrics": json.dumps(figures)})


def entry_of(
    args: argparse.Namespace, candidate: Path, detector: SpikingYOLO, info: WeightsInfo, row: dict[str, Any], metrics: dict[str, Any],
    note: str,
) -> Entry:  # fmt: skip
    """The manifest's entry: no path of this machine in it."""
    from spyolo.pieces import origin, pieces_in
    from spyolo.published import Entry, sha256_of

    protocol = metrics["protocol"]
    parameters = sum(p.numel() for p in detector.parameters())
    config = {"size": info.size, "timesteps": row["timesteps"], "parameters": parameters, "dtype": args.dtype, **asdict(info.spec)}
    training = {k: v for k, v in info.notes.items() if k != "pieces"} | {"pieces": pieces_in(info.notes, info.spec.name)}
    training["origin"] = origin(training["pieces"])
    told = {k: protocol[k] for k in KEPT} | {"timesteps": row["timesteps"], "note": note}
    energy = {"synaptic_mj": row.get("synaptic_mj"), "total_mj": row.get("energy_mj")} if "energy_mj" in row else {}
    energy["ann_twin_mj"] = metrics.get("energy", {}).get("ann_twin_mj")
    anytime = [{k: v for k, v in each.items() if k != "per_class"} for each in metrics["anytime"]]
    figures = {k: row[k] for k in FIGURES} | {"anytime": anytime}
    return Entry(
        args.name, candidate.name, sha256_of(candidate), config, info.classes, training, told, figures, row.get("firing_rate"), energy
    )
