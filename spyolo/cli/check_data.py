"""Look a data set over before training on it, or when training on it came to nothing.

    tools/check_data.py --data DIR --split 2007:train 2007:val 2012:trainval
    tools/check_data.py --data runs/sample-data --split 2007:train 2007:val --classes sample --out runs/check
    tools/check_data.py --data DIR --split 2007:trainval 2007:test --download      fetch VOC first where it is not there yet

Shows classes and counts per split, sizes of boxes against the anchors, boxes out of range, pictures that cannot be read or whose size
disagrees with their annotation, and pictures (by their pixels) or ids that two splits share. Writes check.json and sheet.png, a page of
labelled pictures (dashed: as annotated; `?` behind a name: difficult). Exit status 1 when there is something to look into, 0 when not.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from spyolo.cli.anchors import USUAL, pairs
from spyolo.cli.options import Parser
from spyolo.data.check import check_sets
from spyolo.data.classes import parse_classes
from spyolo.data.download import download_voc
from spyolo.data.kmeans import parse_anchors
from spyolo.data.problems import DataWarning
from spyolo.data.voc import VOCSet
from spyolo.detection.anchors import REFERENCE_SIZE
from spyolo.drawing import contact_sheet, draw_boxes, save_image
from spyolo.errors import InputError
from spyolo.files import write_whole


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="check_data", description=__doc__)
    p.add_argument("--data", required=True, metavar="DIR", help="folder that holds VOCdevkit, or any set in its format")
    p.add_argument("--split", nargs="+", default=["2007:train"], help="one or more; each against all others [2007:train]")
    p.add_argument("--classes", default="voc", help="the list trained with: voc, sample, cat,dog or a file, one name a line [%(default)s]")
    p.add_argument("--anchors", default=USUAL, metavar="PAIRS", help="width,height pairs at 416 pixels, as train takes them [%(default)s]")
    p.add_argument("--size", type=int, default=416, help="side of the canvas on which boxes are measured [%(default)s]")
    p.add_argument("--out", default="runs/check", metavar="DIR", help="folder for check.json and sheet.png [%(default)s]")
    p.add_argument("--pictures", type=int, default=24, metavar="N", help="pictures on the sheet [%(default)s]")
    p.add_argument("--download", action="store_true", help="first fetch what of VOC 2007 and 2012 is not there (checksums are checked)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    classes, anchors = parse_classes(args.classes), parse_anchors(args.anchors)
    if args.size < 1 or args.pictures < 1:
        raise InputError("--size and --pictures must be at least 1")
    if args.download:
        download_voc(args.data, "+".join(args.split))
    on_canvas = anchors * args.size / REFERENCE_SIZE  # the detector's anchors grow with its input
    tree = check_sets(args.data, args.split, classes, on_canvas, args.size, _progress)
    print(as_text(tree))
    out = Path(args.out)
    written = [write_whole(out / "check.json", json.dumps(tree, indent=2) + "\n")]
    written.append(save_image(out / "sheet.png", sheet(args.data, args.split, classes, args.pictures)))
    print(f"\nwritten: {', '.join(map(str, written))}")
    return 1 if tree["findings"] else 0


def as_text(tree: dict[str, Any]) -> str:
    """The report as a page of text."""
    splits = tree["splits"]
    lines = [f"{tree['root']}, {len(tree['classes'])} classes", "", "objects (difficult) per class"]
    width = max(len(name) for name in [*tree["classes"], "all"])
    lines.append(" " * width + "".join(f"{split:>24}" for split in splits))
    for name in tree["classes"]:
        cells = [part["counts"][name] for part in splits.values()]
        lines.append(f"{name:<{width}}" + "".join(f"{_cell(cell):>24}" for cell in cells))
    totals = [{key: sum(row[key] for row in part["counts"].values()) for key in ("objects", "difficult")} for part in splits.values()]
    lines.append(f"{'all':<{width}}" + "".join(f"{_cell(cell):>24}" for cell in totals))
    for split, part in splits.items():
        boxes, side = part["boxes"], part["boxes"]["longer_side"]
        lines += ["", f"{split}: {part['pictures']} pictures, {boxes['boxes']} boxes that are not difficult, on a canvas of {tree['size']}"]
        lines.append("  longer side " + ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in side.items()))
        if boxes["boxes"]:
            lines.append(f"  best IoU with an anchor: mean {boxes['mean_best_iou']:.3f}, over 0.5 {boxes['over_half']:.1%}, "
                         f"under 0.25 {boxes['under_quarter']:.1%}")  # fmt: skip
            lines.append(f"  boxes nearest to each anchor: {pairs(tree['anchors'], boxes)}")
    lines += ["", "to look into:" if tree["findings"] else "nothing to look into"]
    return "\n".join(lines + [f"- {finding}" for finding in tree["findings"]])


def sheet(root: str | Path, splits: Sequence[str], classes: Sequence[str], count: int) -> np.ndarray:
    """Pictures spread evenly over the splits, with their boxes: RGB uint8."""
    with warnings.catch_warnings(action="ignore", category=DataWarning):
        sets = [VOCSet(root, split, classes) for split in splits]
    doubted = [f"{name} ?" for name in classes]
    panels = []
    for voc, share in zip(sets, [len(part) for part in np.array_split(np.arange(count), len(sets))]):
        for i in np.linspace(0, len(voc) - 1, min(share, len(voc))).astype(int).tolist():
            objects = voc.objects(i)
            try:
                image = voc.image(i)
            except InputError:
                continue  # the report names it
            for part, names in ((objects[~objects.difficult], classes), (objects[objects.difficult], doubted)):
                image = draw_boxes(image, part.boxes, part.labels, names, style="truth")
            panels.append(image)
    return contact_sheet(panels, columns=min(6, max(1, len(panels))))


def _cell(row: dict[str, int]) -> str:
    return f"{row['objects']} ({row['difficult']})"


def _progress(indices: Iterable[int], split: str) -> Iterable[int]:
    return tqdm(indices, desc=f"reading {split}", unit="picture", leave=False, mininterval=0.5)
