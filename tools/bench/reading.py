"""What reading the same logits in other ways is worth: input side, overlap of suppression, box voting and its power.

    python tools/bench/reading.py --weights spyv4_lite_voc --data VOC --sizes 256,288,320

Each picture is shown once a size; all ways of reading start from its candidates. -> runs/bench/reading_NAME.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import machine
import torch
from torchvision.ops import batched_nms
from tqdm import tqdm

from spyolo.boxes import Detections
from spyolo.checkpoint import load_detector
from spyolo.data import DetectionDataset, Letterbox, VOCSet
from spyolo.detection import Reading, SpikingYOLO, fuse, postprocess
from spyolo.detection.decode import vote
from spyolo.engine import in_picture
from spyolo.evaluation.metrics import evaluate_detections

WAYS = [(0.5, 0.0, 0.0), (0.45, 0.0, 0.0), (0.5, 0.5, 1.0), (0.5, 0.5, 2.0), (0.5, 0.6, 2.0), (0.45, 0.5, 2.0)]  # suppression, vote, power


@torch.inference_mode()
def candidates(detector: SpikingYOLO, dataset: DetectionDataset, steps: int) -> list[tuple[Detections, Letterbox]]:
    """Of each picture, the thousand best boxes over the floor before suppression, in canvas pixels, and its place on the canvas."""
    found = []
    for i in tqdm(range(len(dataset)), mininterval=10):
        sample = dataset[i]
        *_, (predictions, _) = detector.run(sample.image.unsqueeze(0), steps)
        boxes = postprocess(predictions, detector.anchors, detector.strides, Reading(0.005, nms_iou=1.0, max_detections=1000))
        found.append((boxes[0], sample.letterbox))
    return found


def read(boxes: Detections, nms: float, iou: float, power: float) -> Detections:
    """Suppression, and a vote where `iou` is over 0."""
    kept = boxes[batched_nms(boxes.boxes, boxes.scores, boxes.labels, nms)[:100]]
    return kept.with_boxes(vote(kept, boxes, iou, power)) if iou else kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="2007:val")
    parser.add_argument("--pictures", type=int, default=0, help="the first so many; 0: all")
    parser.add_argument("--timesteps", type=int, help="[as trained]")
    parser.add_argument("--sizes", default="", help="input sides, such as 256,288 [as trained]")
    args = parser.parse_args()
    plain, info = load_detector(args.weights)
    detector, steps = fuse(plain, "fp32"), plain.steps_of(args.timesteps or info.timesteps)
    voc = VOCSet(args.data, args.split, info.classes)
    voc = voc.subset(range(min(args.pictures or len(voc), len(voc))))
    truth = {name: voc.objects(i) for i, name in enumerate(voc.ids)}
    rows = []
    print("| size | NMS | vote from | power | AP50 | AP50:95 | COCO AP |\n|---:|---:|---:|---:|---:|---:|---:|")
    for size in [int(word) for word in args.sizes.split(",") if word] or [info.size]:
        dataset = DetectionDataset(voc, size, "eval")
        seen = candidates(detector, dataset, steps)
        for nms, iou, power in WAYS:
            mine = (in_picture(read(boxes, nms, iou, power), place, *voc.size(i)) for i, (boxes, place) in enumerate(seen))
            found = dict(zip(voc.ids, mine))
            metrics = evaluate_detections(truth, found, info.classes)
            figures = [metrics[k] for k in ("voc10_ap50", "voc10_ap50_95", "coco_ap")]
            rows.append({"size": size, "nms": nms, "vote": iou, "power": power, "figures": figures})
            print(f"| {size} | {nms} | {iou or '-'} | {power or '-'} | {' | '.join(f'{100 * v:.2f}' for v in figures)} |", flush=True)
    result = {"weights": Path(args.weights).name, "split": args.split, "pictures": len(voc), "timesteps": steps, "rows": rows}
    machine.keep(f"reading_{Path(args.weights).stem}", result)


if __name__ == "__main__":
    main()
