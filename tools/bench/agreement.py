"""Does the fast path see the same? Share of equal spikes, share of equal boxes and AP beside the plain fp32 path, on pictures of a split.

    python tools/bench/agreement.py --weights weights/spyv4_lite_voc.safetensors --data VOC --split 2007:val --pictures 500

Also the AP of early exit (`settled`) and the steps it took. -> runs/bench/agreement_NAME.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import machine
import torch
from torchvision.ops import box_iou
from tqdm import tqdm

from spyolo.boxes import Detections
from spyolo.checkpoint import load_detector
from spyolo.data import DetectionDataset, VOCSet
from spyolo.detection import fuse, postprocess, settled
from spyolo.detection.fast import obstacle
from spyolo.engine import in_picture
from spyolo.evaluation.metrics import evaluate_detections
from spyolo.neurons import autocast, has_bf16

SHOWN = 0.3  # score of a box that a user sees


def equal_boxes(a: Detections, b: Detections) -> tuple[int, int]:
    """(boxes of a shown that b has too: same class, IoU >= 0.9, score within 0.05; boxes of a shown)."""
    a, b = a[a.scores > SHOWN], b[b.scores > SHOWN - 0.05]
    if not len(a) or not len(b):
        return 0, len(a)
    same = (box_iou(a.boxes, b.boxes) >= 0.9) & (a.labels[:, None] == b.labels) & ((a.scores[:, None] - b.scores).abs() <= 0.05)
    return int(same.any(1).sum()), len(a)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="2007:val")
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--timesteps", type=int, help="[as trained]")
    parser.add_argument("--size", type=int, help="[as trained]")
    parser.add_argument("--name", default="")
    args = parser.parse_args()
    plain, info = load_detector(args.weights)
    plain.eval()
    reason = obstacle(plain)
    if reason:  # `fuse` would fall back with a warning, and the rows below claim precisions that nothing ran at
        raise SystemExit(f"no fast path here to compare: {reason}")
    steps, size = args.timesteps or info.timesteps, args.size or info.size
    voc = VOCSet(args.data, args.split, info.classes)
    voc = voc.subset(range(min(args.pictures, len(voc))))
    dataset = DetectionDataset(voc, size, "eval")
    detectors: dict[str, tuple[Any, str]] = {"plain fp32": (plain, "none")}
    if has_bf16(torch.device("cpu")):
        detectors["plain bf16"] = plain, "bf16"
    for fast in (fuse(plain, precision) for precision in ("fp32", "bf16", "int8")):  # without bf16 the first two are one
        detectors[f"fused {fast.precision}"] = fast, "none"
    found: dict[str, dict[str, Detections]] = {name: {} for name in (*detectors, "early exit")}
    equal = dict.fromkeys(detectors, 0.0)
    boxes = {name: [0, 0] for name in detectors}
    taken = 0
    with torch.inference_mode():
        for i in tqdm(range(len(dataset)), mininterval=10):
            sample = dataset[i]
            reference: Any = None
            for name, (detector, amp) in detectors.items():
                seen: list[Detections] = []
                with autocast(torch.device("cpu"), amp):
                    for predictions, state in detector.run(sample.image.unsqueeze(0), steps):
                        after = state
                        if name == "plain fp32" or len(seen) == steps - 1:
                            seen += postprocess(predictions, detector.anchors, detector.strides, info.reading(0.005))
                        else:
                            seen.append(Detections.empty())
                placed = in_picture(seen[-1], sample.letterbox, *voc.size(i))
                found[name][sample.image_id] = placed
                if reference is None:
                    reference = after, seen[-1]
                    stop = next((t for t in range(1, steps) if settled(seen[t - 1], seen[t])), steps - 1)
                    taken += stop + 1
                    found["early exit"][sample.image_id] = in_picture(seen[stop], sample.letterbox, *voc.size(i))
                cells = reference[0].cells
                equal[name] += sum(float((after.cells[k].s.bool() == cells[k].s.bool()).float().mean()) for k in cells) / len(cells)
                same, of = equal_boxes(reference[1], seen[-1])
                boxes[name][0] += same
                boxes[name][1] += of
    truth = {name: voc.objects(i) for i, name in enumerate(voc.ids)}
    result: dict[str, Any] = {
        "weights": Path(args.weights).name, "split": args.split, "pictures": len(voc), "timesteps": steps, "size": size,
        "steps_before_exit": taken / len(voc), "rows": {},
    }  # fmt: skip
    for name, detections in found.items():
        metrics = evaluate_detections(truth, detections, info.classes)
        row = {"voc10_ap50": metrics["voc10_ap50"], "coco_ap": metrics.get("coco_ap")}
        if name in equal:
            row |= {"equal_spikes": equal[name] / len(voc), "equal_boxes": boxes[name][0] / max(1, boxes[name][1]), "boxes": boxes[name][1]}
        result["rows"][name] = row
        print(f"{name:12s}", {k: round(v, 4) if v is not None else v for k, v in row.items()})
    print("steps before exit", result["steps_before_exit"])
    machine.keep(f"agreement_{args.name or Path(args.weights).stem}", result)


if __name__ == "__main__":
    main()
