"""Fit anchors to a data set, and compare them with the usual ones.

    tools/anchors.py --data DIR --split 2007:train+2012:trainval
    tools/anchors.py --data runs/sample-data --split 2007:train --classes sample --size 416

Sides and anchors are those on the letterboxed canvas of --size pixels. Six anchors end in a line to hand to tools/train.py: at 416 pixels,
as the config's `anchors` wants them whatever size is trained at; --compare takes them so too. Difficult objects do not count. The same
seed gives the same anchors.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spyolo.cli.options import Parser, check_seed
from spyolo.data.classes import parse_classes
from spyolo.data.kmeans import anchor_fit, box_sides, fit_anchors, parse_anchors
from spyolo.data.voc import VOCSet
from spyolo.detection.anchors import DEFAULT_ANCHORS, REFERENCE_SIZE
from spyolo.errors import InputError
from spyolo.files import write_whole

DETECTOR_TAKES = 6
USUAL = " ".join(f"{width},{height}" for width, height in DEFAULT_ANCHORS)


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="anchors", description=__doc__)
    p.add_argument("--data", required=True, metavar="DIR", help="folder that holds VOCdevkit, or any set in its format")
    p.add_argument("--split", default="2007:train", help="pictures to fit to, such as 2007:train+2012:trainval [%(default)s]")
    p.add_argument("--classes", default="voc", help="voc, sample, cat,dog or a file, one name a line [%(default)s]")
    p.add_argument("--count", type=int, default=DETECTOR_TAKES, metavar="K", help="how many; the detector takes six [%(default)s]")
    p.add_argument("--size", type=int, default=416, help="side of the canvas in pixels [%(default)s]")
    p.add_argument("--seed", type=int, default=0, help="of the starting points [%(default)s]")
    p.add_argument("--compare", default=USUAL, metavar="PAIRS", help="compare with these, width,height pairs at 416 pixels [%(default)s]")
    p.add_argument("--json", metavar="FILE", help="also write the figures there")
    p.add_argument("--strict", action="store_true", help="fail on a bad annotation instead of warning")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    check_seed(args.seed)
    if args.count < 1 or args.size < 1:
        raise InputError("--count and --size must be at least 1")
    scale = args.size / REFERENCE_SIZE
    usual = parse_anchors(args.compare) * scale
    sides = box_sides(VOCSet(args.data, args.split, parse_classes(args.classes), args.strict), args.size)
    found = fit_anchors(sides, args.count, args.seed)
    print(f"{len(sides)} objects of {args.split}, on a canvas of {args.size} pixels\n")
    print(f"{'':<8} mean best IoU  over 0.5  under 0.25  width,height (objects nearest)")
    report: dict[str, object] = {"size": args.size, "split": args.split}
    for name, anchors in (("fitted", found.round(1)), ("compared", usual)):
        fit = anchor_fit(sides, anchors)
        report[name] = {"anchors": anchors.tolist(), **fit}
        print(f"{name:<8} {fit['mean_best_iou']:>13.3f} {fit['over_half']:>9.1%} {fit['under_quarter']:>11.1%}  {pairs(anchors, fit)}")
    if args.count == DETECTOR_TAKES:
        print(f"\n--anchors {','.join(f'{value:g}' for value in (found / scale).round(1).ravel())}")
    if args.json:
        write_whole(args.json, json.dumps(report, indent=2) + "\n")
    return 0


def pairs(anchors: Iterable[Any], fit: Mapping[str, Any]) -> str:
    """Anchors, and how many objects are nearest to each."""
    counts = fit["boxes_per_anchor"]
    return "  ".join(f"{round(width, 1):g},{round(height, 1):g} ({count})" for (width, height), count in zip(anchors, counts))
