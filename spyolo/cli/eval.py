"""Measure a detector, or a file of predictions.

    tools/eval.py --predictions preds.json --data DEVKIT --split 2007:test       any detector's file; no model, no pictures on disk
    tools/eval.py --predictions results/ --data DEVKIT --split 2007:val          VOC's text files, comp4_det_test_CLASS.txt
    tools/eval.py --weights best.safetensors --data DEVKIT --out runs/eval --report
    tools/eval.py --weights best.safetensors --data DEVKIT --timesteps 1..8      after every step, all from one pass
    tools/eval.py --weights best.safetensors --data DEVKIT --stream              on pseudo-video, the state carried from frame to frame
    torchrun --nproc-per-node 4 tools/eval.py --weights ...                      several processes: the same figures, sooner

VOC07 (11-point), VOC10+ (area) and COCO AP are reported under their own names, with the protocol beside them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spyolo.cli.eval_output import write
from spyolo.cli.eval_stream import add_stream_options, check_stream, stream_score
from spyolo.cli.noted import noted
from spyolo.cli.options import NMS_IOU, VOTE_IOU, Parser, check_shares, refuse_unread
from spyolo.config import Evaluation
from spyolo.errors import InputError
from spyolo.files import read_limited
from spyolo.ranges import SIZES, check_whole

if TYPE_CHECKING:
    from spyolo.cli.eval_model import Measured
    from spyolo.data import VOCSet
    from spyolo.evaluation.metrics import Assessment

OUT = "runs/eval"
OF_WEIGHTS = (
    "timesteps", "nms", "max_detections", "vote_iou", "weights_of", "recalibrate", "size", "limit", "device", "amp", "fast", "batch",
    "workers", "energy_pictures", "latency", "compare",
)  # fmt: skip
ANYTIME = (  # figures after every number of steps
    "voc07_ap50", "voc10_ap50", "voc10_ap50_95", "coco_ap", "coco_ap50", "coco_ap75", "precision", "recall", "f1",
)  # fmt: skip
OF_PREDICTIONS = ("classes", "allow_duplicates")


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="eval", description=__doc__)
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--weights", metavar="FILE", help="measure this detector")
    what.add_argument("--predictions", metavar="PATH", help="judge this COCO results file, or this folder of VOC text files")
    p.add_argument("--data", required=True, metavar="DIR", help="folder that holds VOCdevkit, or any set in its format")
    p.add_argument("--split", default="2007:val", help="pictures to measure on, such as 2007:test or 2007:val+2012:val [%(default)s]")
    p.add_argument("--classes", help="of --predictions: names in the detector's order: voc, sample, cat,dog or a file, one a line [voc]")
    p.add_argument("--at-confidence", type=float, default=0.5, metavar="C", help="where precision, recall and F1 are read [%(default)s]")
    p.add_argument("--coco-backend", default="auto", help="auto, pycocotools or faster_coco_eval; the figures are the same [%(default)s]")
    p.add_argument("--allow-duplicates", action="store_true", help="judge rows that are there twice instead of refusing the file")
    p.add_argument("--strict", action="store_true", help="fail on a bad annotation instead of warning")

    model = p.add_argument_group("with --weights")
    defaults = Evaluation()
    model.add_argument("--timesteps", metavar="T", help="4, 1,2,4 or 1..8: read out after these steps, all from one pass [as trained]")
    floor = f"floor: lower scores are dropped [{defaults.confidence}; with --predictions: none]"
    model.add_argument("--confidence", type=float, metavar="C", help=floor)
    model.add_argument("--nms", type=float, metavar="IOU", help=NMS_IOU)
    model.add_argument("--max-detections", type=int, default=defaults.max_detections, metavar="N", help="boxes a picture [%(default)s]")
    model.add_argument("--vote-iou", type=float, metavar="IOU", help=VOTE_IOU)
    model.add_argument("--weights-of", default="w", metavar="W", help="of a training checkpoint: w, average or ema [%(default)s]")
    model.add_argument("--recalibrate", metavar="SPLIT", help="take norm statistics anew on pictures of this split, such as 2007:train")
    model.add_argument("--size", type=int, help="input side in pixels [as trained]")
    limit = "only the first N pictures (of events: recordings); 0: all [%(default)s]"
    model.add_argument("--limit", type=int, default=0, metavar="N", help=limit)
    model.add_argument("--device", default="auto", help="auto, cpu, cuda ... [%(default)s]")
    model.add_argument("--amp", default="none", choices=("none", "bf16"), help="autocast of convolutions [%(default)s]")
    fast = "fast path on a CPU at fp32, bf16 or int8; operations are then not counted [%(default)s]"
    model.add_argument("--fast", default="none", choices=("none", "fp32", "bf16", "int8"), help=fast)
    model.add_argument("--batch", type=int, default=8, metavar="N", help="pictures at a time [%(default)s]")
    model.add_argument("--workers", type=int, default=-1, metavar="N", help="loader processes [chosen by the number of cores]")
    priced = "count operations on the first N pictures (of events: recordings) only; 0: none [all]"
    model.add_argument("--energy-pictures", type=int, metavar="N", help=priced)
    model.add_argument("--latency", action="store_true", help="also time one picture at a time after every step")
    model.add_argument("--compare", metavar="FILE", help="metrics.json of another detector, such as the ANN twin, to show beside this one")

    add_stream_options(model)

    out = p.add_argument_group("output")
    out.add_argument("--out", metavar="DIR", help=f"folder for metrics.json and, with --report, report.html and plots/ [--weights: {OUT}]")
    out.add_argument("--json", metavar="FILE", help="metrics as JSON, here")
    out.add_argument("--report", action="store_true", help="also draw plots, sheets of pictures, and a report that stands alone")
    out.add_argument("--save-predictions", metavar="FILE", help="detections as COCO results")
    out.add_argument("--voc-text", metavar="DIR", help="detections as VOC text files")
    out.add_argument("--quiet", action="store_true", help="no progress bars")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    checked(args)
    if args.stream:
        from spyolo.distributed import told_by

        if told_by("WORLD_SIZE", 1, low=1) > 1:
            raise InputError("--stream is measured by one process: start it without torchrun")
        return stream_score(args)
    measured = measure(args)
    if measured is None:
        return 0
    result, metrics = judge(args, measured)
    metrics["warnings"] = told_about(measured, result)
    written: list[Path] = []
    try:  # files first: whoever cuts the printing short (`| head`) still gets them, and a full disk does not cost the figures
        written = write(args, measured, result, metrics)
    finally:
        tell(measured, metrics)
    for path in written:
        print(f"wrote {path}")
    return 0


def tell(measured: Measured, metrics: dict[str, Any]) -> None:
    """Print the figures, the costs, the protocol, and (to stderr) the warnings."""
    from spyolo.evaluation.metrics import format_metrics, format_protocol

    print(format_metrics(metrics))
    if len(metrics.get("anytime", [])) > 1:
        print("\n" + anytime_table(metrics["anytime"]))
    if measured.energy is not None:
        from spyolo.evaluation.energy import format_energy

        print("\n" + format_energy(measured.energy))
    print("\nprotocol:\n" + format_protocol(metrics["protocol"]))
    for message in metrics["warnings"]:
        print(f"warning: {message}", file=sys.stderr)


def checked(args: argparse.Namespace) -> None:
    """What argparse cannot know. Raises InputError."""
    check_shares(args, ("confidence", "at_confidence", "nms", "vote_iou"))
    least = {"max-detections": 1, "limit": 0, "batch": 1, "workers": -1, "energy-pictures": 0}
    for name, low in least.items():
        value = getattr(args, name.replace("-", "_"))
        if value is not None and value < low:
            raise InputError(f"--{name} must be at least {low}, got {value}")
    default_of = parser().get_default
    check_stream(args, default_of)
    if args.predictions:
        refuse_unread(args, OF_WEIGHTS, default_of, "a file of predictions is judged as it is; goes with --weights")
    else:
        refuse_unread(args, OF_PREDICTIONS, default_of, "goes with --predictions, not with --weights, which name their own classes")
    if args.size is not None:
        check_whole("--size", args.size, *SIZES)
    args.other = compared_with(args.compare) if args.compare else None
    if args.report and args.out is None:
        args.out = OUT
    if args.weights and args.out is None and args.json is None:
        args.out = OUT


def measure(args: argparse.Namespace) -> Measured | None:
    """Detections from the file, or from the detector, with their truth; None where another process goes on with them."""
    from spyolo.cli.eval_model import Measured, measure_detector

    if args.weights:
        from spyolo.distributed import joined

        with joined() as peers:
            found = measure_detector(args, peers)
        return found if peers.first else None
    from spyolo.data import parse_classes
    from spyolo.evaluation.predictions import read_predictions

    classes = parse_classes(args.classes or "voc")
    voc, notes = open_set(args, classes)
    left_out = frozenset(voc.left_out)  # noted already
    table = read_predictions(args.predictions, voc.ids, classes, allow_duplicates=args.allow_duplicates, left_out=left_out)
    if args.confidence is not None:
        table = table[table.scores >= args.confidence]
    protocol = {"split": args.split, "data": args.data, "predictions": args.predictions, "confidence_floor": args.confidence}
    return Measured(classes, voc, {0: table}, protocol, notes)


def open_set(args: argparse.Namespace, classes: Sequence[str], split: str = "") -> tuple[VOCSet, list[str]]:
    """The pictures to measure on, and what was tolerated in reading them. A folder with an index of shards holds shards."""
    from spyolo.data import VOCSet
    from spyolo.data.shards import ShardSet

    split = split or args.split
    shards = all((Path(args.data) / part.strip() / "index.json").is_file() for part in split.split("+"))
    notes: list[str] = []
    with noted(notes):
        voc = ShardSet(args.data, split, classes) if shards else VOCSet(args.data, split, classes, strict=args.strict)
    if notes and shards and args.strict:
        raise InputError(notes[0])
    return voc, notes  # type: ignore[return-value]


def judge(args: argparse.Namespace, measured: Measured) -> tuple[Assessment, dict[str, Any]]:
    """The assessment after the last step, and the metrics with everything beside them."""
    from spyolo.evaluation.metrics import assess
    from spyolo.evaluation.tables import TruthTable

    voc = measured.voc
    truth = TruthTable.of({name: voc.objects(place) for place, name in enumerate(voc.ids)})
    results = {
        steps: assess(
            truth, found, measured.classes, confidence=args.at_confidence, backend=args.coco_backend,
            protocol=measured.protocol | ({"timesteps": steps} if steps else {}),
        )
        for steps, found in measured.detections.items()
    }  # fmt: skip
    last = max(results)
    metrics = dict(results[last].metrics)
    if last:
        metrics["timesteps"] = last
        measured.price({steps: result.metrics["voc10_ap50"] for steps, result in results.items()}, args.other)
        if args.other:
            metrics["compared_with"] = args.other
            if args.other["split"] != args.split:
                measured.notes.append(f"{args.compare} was measured on {args.other['split']}, not on {args.split}")
            elif args.other["pictures"] not in (None, len(voc.ids)):
                measured.notes.append(f"{args.compare} was measured on {args.other['pictures']:,} pictures, not on these {len(voc.ids):,}")
        metrics["anytime"] = [_anytime_row(steps, results[steps].metrics, measured) for steps in sorted(results)]
    if measured.energy is not None:
        metrics |= {"energy": measured.energy, "firing_rate": measured.energy["firing_rate"]}
    return results[last], metrics


def compared_with(path: str) -> dict[str, Any]:
    """Name, AP50, energy and latency out of another detector's metrics.json. Raises InputError."""
    try:
        metrics = json.loads(read_limited(path, 1 << 30))
        if "anytime" not in metrics and "per_class" in metrics:
            raise InputError(f"--compare {path}: without energy and times a step, as train writes it; measure it with eval --weights")
        protocol, last = metrics["protocol"], metrics["anytime"][-1]
        figures = {"ap50": metrics["voc10_ap50"], "energy_mj": last.get("energy_mj"), "latency_ms": last["latency_ms"]}
        return {
            "name": str(protocol["detector"]),
            **{name: None if value is None else float(value) for name, value in figures.items()},
            "split": str(protocol["split"]),
            "pictures": None if protocol.get("pictures") is None else int(protocol["pictures"]),
        }
    except OSError as error:
        raise InputError(f"--compare {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"--compare {path} is no metrics.json of a detector ({type(error).__name__}: {error})") from None


def _anytime_row(steps: int, metrics: dict[str, Any], measured: Measured) -> dict[str, Any]:
    row: dict[str, Any] = {"timesteps": steps}
    row |= {key: metrics[key] for key in ANYTIME}
    row["per_class"] = {name: of_class["voc10_ap50"] for name, of_class in metrics["per_class"].items()}
    row["latency_ms"] = measured.latency_ms.get(steps)
    if measured.energy is not None:
        spent = measured.energy["per_timestep"][steps - 1]
        row |= {"energy_mj": spent["total_mj"], "synaptic_mj": spent["synaptic_mj"], "firing_rate": spent["firing_rate"]}
    return row


def anytime_table(rows: Sequence[dict[str, Any]]) -> str:
    """A line a number of steps."""
    from spyolo.evaluation.metrics import percent

    lines = ["   T    VOC07   VOC10+    50:95     COCO   latency ms   energy mJ"]
    for row in rows:
        shares = "".join(f"{percent(row[key]):>9}" for key in ("voc07_ap50", "voc10_ap50", "voc10_ap50_95", "coco_ap"))
        costs = "".join("-".rjust(wide) if value is None else f"{value:>{wide}.2f}" for value, wide in _costs(row))
        lines.append(f"{row['timesteps']:>4}{shares}{costs}")
    return "\n".join(lines)


def _costs(row: dict[str, Any]) -> list[tuple[float | None, int]]:
    return [(row["latency_ms"], 13), (row.get("energy_mj"), 12)]


def told_about(measured: Measured, result: Assessment) -> list[str]:
    """Everything worth a warning."""
    from spyolo.evaluation.diagnosis import suspicions

    sizes = [measured.voc.size(place) for place in range(len(measured.voc))]
    floor = measured.protocol.get("confidence_floor") or 0.0
    return measured.notes + suspicions(
        result.truth, result.detections, measured.classes, sizes, confidence=result.confidence, floor=floor
    )
