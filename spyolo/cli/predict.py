"""Draw what a detector sees.

    tools/predict.py --weights runs/voc/best.safetensors --source photo.jpg --out seen
    tools/predict.py --weights runs/voc/best.safetensors --source folder --confidence 0.4 --timesteps 4

The folder --out gets each picture with its boxes (same name, .jpg) and predictions.json (COCO results format). A picture that cannot be
read is told and left out; the others are done.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spyolo.cli.options import Parser
from spyolo.errors import InputError

if TYPE_CHECKING:
    from spyolo.boxes import Detections

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".avif", ".tif", ".tiff", ".gif"}


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="predict", description=__doc__)
    p.add_argument("--weights", required=True, help="weights file")
    p.add_argument("--source", required=True, help="picture, or folder of pictures")
    p.add_argument("--out", default="runs/predict", help="folder for annotated pictures and predictions.json [%(default)s]")
    p.add_argument("--confidence", type=float, default=0.3, help="floor on scores [%(default)s]")
    p.add_argument("--nms-iou", type=float, default=0.5, help="overlap above which the worse box of a class is dropped [%(default)s]")
    p.add_argument("--timesteps", type=int, help="steps a picture is shown [as trained]")
    p.add_argument("--size", type=int, help="input side, a multiple of 32 [as trained]")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda ... [%(default)s]")
    p.add_argument("--amp", choices=("none", "bf16"), default="none", help="autocast [%(default)s]")
    return p


def sources(source: str) -> list[Path]:
    """The pictures meant.

    Raises:
        InputError: nothing there, or a folder without pictures.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{source}: no such picture or folder")
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in ENDINGS)
    if not found:
        raise InputError(f"{source}: no pictures here (looked for {', '.join(sorted(ENDINGS))})")
    return found


def check(args: argparse.Namespace) -> None:
    if args.size is not None and (args.size < 32 or args.size % 32):
        raise InputError(f"--size must be a multiple of 32, got {args.size}")
    if args.timesteps is not None and args.timesteps < 1:
        raise InputError(f"--timesteps must be at least 1, got {args.timesteps}")
    source = Path(args.source)
    if Path(args.out).resolve() == (source if source.is_dir() else source.parent).resolve():
        raise InputError(f"--out {args.out} is where the pictures come from; they would be overwritten")
    for name in ("confidence", "nms_iou"):
        if not 0 <= getattr(args, name) <= 1:
            raise InputError(f"--{name.replace('_', '-')} must be between 0 and 1, got {getattr(args, name)}")


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    check(args)
    pictures = sources(args.source)
    from tqdm import tqdm

    from spyolo.builders import choose_device
    from spyolo.data import read_image
    from spyolo.drawing import draw_boxes, save_image
    from spyolo.evaluation.coco_json import write_coco_json
    from spyolo.predictor import Predictor

    predictor = Predictor.load(
        args.weights, timesteps=args.timesteps, size=args.size, confidence=args.confidence, nms_iou=args.nms_iou,
        device=choose_device(args.device), amp=args.amp,
    )  # fmt: skip
    out, found, bad = Path(args.out), {}, 0
    stems = Counter(path.stem for path in pictures)
    for path in tqdm(pictures, "predicting", disable=len(pictures) < 2, leave=False):
        name = path.stem if stems[path.stem] == 1 else path.name  # a.jpg and a.png are two pictures
        try:
            image = read_image(path)
        except InputError as error:
            bad += 1
            tqdm.write(f"left out: {error}", file=sys.stderr)
            continue
        seen = found[name] = predictor.predict(image)
        save_image(out / f"{name}.jpg", draw_boxes(image, seen.boxes, seen.labels, predictor.classes, seen.scores))
        if len(pictures) == 1:
            print("\n".join(lines(seen, predictor.classes)) or "nothing seen")
    write_coco_json(out / "predictions.json", found, predictor.classes)
    print(f"{len(found)} picture(s), {sum(map(len, found.values()))} box(es) -> {out}" + (f"; {bad} left out" if bad else ""))
    return 1 if bad else 0


def lines(seen: Detections, classes: Sequence[str]) -> list[str]:
    """Class, score and corners of each detection."""
    found = zip(seen.boxes.tolist(), seen.scores.tolist(), seen.labels.tolist())
    return [f"{classes[label]} {score:.2f}  " + " ".join(f"{v:.0f}" for v in box) for box, score, label in found]
