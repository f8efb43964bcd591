#!/usr/bin/env python3
"""Time to judge 240,000 boxes on 4,952 pictures (the size of VOC2007 test), whole command, with each COCO package.

    python tools/bench/eval_speed.py [--boxes 240000] [--pictures 4952] [--runs 3]

Annotations and predictions are drawn (seed 0): no pictures, no model, as for anyone who judges another detector's file.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from spyolo.data import VOC_CLASSES
from spyolo.data.annotation import Annotation, Thing, write_annotation

EVAL = Path(__file__).resolve().parents[1] / "eval.py"


def boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """[count, 4] x1 y1 x2 y2 inside 500 x 375 pixels."""
    corner = rng.uniform(0, (440, 310), (count, 2))
    return np.concatenate([corner, corner + rng.uniform(20, 60, (count, 2))], 1).round()


def draw(root: Path, pictures: int, count: int) -> Path:
    """A devkit of annotations alone, and predictions of which a third lie near an object; the predictions' path."""
    rng = np.random.default_rng(0)
    folder = root / "VOCdevkit" / "VOC2007"
    for name in ("Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    rows, ids = [], [f"{i:06d}" for i in range(1, pictures + 1)]
    for i, image_id in enumerate(ids):
        truth, labels = boxes(rng, 3), rng.integers(20, size=3)
        things = [Thing(VOC_CLASSES[k], tuple(box), difficult=bool(rng.random() < 0.2)) for k, box in zip(labels, truth)]
        write_annotation(folder / "Annotations" / f"{image_id}.xml", Annotation(500, 375, things), f"{image_id}.jpg", "VOC2007")
        share = count // pictures + (i < count % pictures)
        found, kinds = boxes(rng, share), rng.integers(20, size=share)
        near = np.flatnonzero(rng.random(share) < 1 / 3)
        found[near], kinds[near] = truth[near % 3] + rng.integers(-4, 5, (len(near), 4)), labels[near % 3]
        for box, k, score in zip(found, kinds, rng.random(share)):
            x1, y1, x2, y2 = box.tolist()
            row = {"image_id": image_id, "category_id": int(k) + 1, "category": VOC_CLASSES[k]}
            rows.append(row | {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": round(float(score), 6)})
    (folder / "ImageSets" / "Main" / "test.txt").write_text("".join(f"{i}\n" for i in ids))
    path = root / "predictions.json"
    path.write_text(json.dumps(rows))
    print(f"{len(rows):,} boxes on {pictures:,} pictures")
    return path


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--boxes", type=int, default=240_000)
    p.add_argument("--pictures", type=int, default=4952)
    p.add_argument("--runs", type=int, default=3)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as root:
        predictions = draw(Path(root), args.pictures, args.boxes)
        for backend in ("faster_coco_eval", "pycocotools"):
            if importlib.util.find_spec(backend) is None:
                print(f"{backend}: not installed")
                continue
            seconds = []
            for _ in range(args.runs):
                start = time.perf_counter()
                command = [sys.executable, EVAL, "--predictions", predictions, "--data", root, "--split", "2007:test"]
                subprocess.run([*command, "--coco-backend", backend, "--allow-duplicates"], check=True, stdout=subprocess.DEVNULL)
                seconds.append(time.perf_counter() - start)
            spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
            print(f"{backend}: median {statistics.median(seconds):.1f} s ({spread}), {args.runs} runs, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
