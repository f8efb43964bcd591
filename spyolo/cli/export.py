"""Write a detector as ONNX, boxes included; spyolo.runner (copied beside it) needs onnxruntime and numpy only. Or a sequence
network as NIR.

    tools/export.py --weights runs/voc/best.safetensors --out exported
    tools/export.py --weights runs/voc/best.safetensors --form step,unrolled --timesteps 4 --int8 --verify
    python exported/runner.py exported/unrolled.onnx photo.jpg
    tools/export.py --format nir --weights runs/sequence/best.safetensors --out exported

Form `unrolled` shows a still picture for T steps, from rest. Form `step` does one step and takes the neurons' state in and out: for films.
--verify runs the file with onnxruntime and holds it to torch, layer by layer, on random pictures and, with --data, on real ones.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spyolo.cli.options import Parser
from spyolo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from spyolo.checkpoint import WeightsInfo
    from spyolo.detection import SpikingYOLO


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="export", description=__doc__)
    p.add_argument("--weights", required=True, help="weights file")
    p.add_argument("--out", default="runs/export", help="folder for the files [%(default)s]")
    p.add_argument("--format", choices=("onnx", "nir"), default="onnx", help="nir takes sequence networks of LIF neurons [%(default)s]")
    p.add_argument("--form", default="unrolled,step", help="step, unrolled, or both [%(default)s]")
    p.add_argument("--timesteps", type=int, help="steps a picture is shown [as trained]")
    p.add_argument("--size", type=int, help="input side, a multiple of 32 [as trained]")
    p.add_argument("--int8", action="store_true", help="8-bit weights: a quarter of the file")
    p.add_argument("--all-classes", action="store_true", help="of a box every class over the floor, as eval does, not only the best")
    p.add_argument("--confidence", type=float, default=0.3, help="floor on scores; can be changed when run [%(default)s]")
    p.add_argument("--nms-iou", type=float, default=0.5, help="overlap above which a box is dropped; can be changed when run [%(default)s]")
    p.add_argument("--max-detections", type=int, default=100, help="boxes a picture [%(default)s]")
    p.add_argument("--verify", action="store_true", help="hold the file to torch, layer by layer (needs onnxruntime)")
    p.add_argument("--data", metavar="DIR", help="of --verify: folder that holds VOCdevkit, for real pictures")
    p.add_argument("--split", default="2007:val", help="of --verify --data [%(default)s]")
    p.add_argument("--pictures", type=int, default=4, help="of --verify: how many of each kind [%(default)s]")
    return p


def check(args: argparse.Namespace) -> list[str]:
    """The forms asked for. Raises InputError."""
    from spyolo.export.detector import FORMS

    forms = [form.strip() for form in args.form.split(",") if form.strip()]
    unknown = sorted(set(forms) - set(FORMS))
    if unknown or not forms:
        raise InputError(f"--form {args.form!r}: not known; choose of {', '.join(FORMS)}")
    for name, low in (("timesteps", 1), ("max_detections", 1), ("pictures", 1)):
        if getattr(args, name) is not None and getattr(args, name) < low:
            raise InputError(f"--{name.replace('_', '-')} must be at least {low}, got {getattr(args, name)}")
    for name in ("confidence", "nms_iou"):
        if not 0 <= getattr(args, name) <= 1:
            raise InputError(f"--{name.replace('_', '-')} must be between 0 and 1, got {getattr(args, name)}")
    return forms


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    forms = check(args)
    if args.format == "nir":
        return write_graph(args)
    from spyolo import runner
    from spyolo.checkpoint import check_pictures, load_detector
    from spyolo.export import Reading, export_onnx

    detector, info = load_detector(args.weights)
    if args.verify and args.data:
        check_pictures(detector.spec, args.weights, "--verify --data shows VOC's pictures; without --data it shows random input")
    reading = Reading(args.confidence, args.nms_iou, args.max_detections, one_class_per_box=not args.all_classes)
    for form in forms:
        path = Path(args.out) / f"{form}.onnx"
        export_onnx(detector, info, path, form=form, timesteps=args.timesteps, size=args.size, reading=reading, int8=args.int8)
        print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    shutil.copyfile(runner.__file__, Path(args.out) / "runner.py")
    print(f"wrote {Path(args.out) / 'runner.py'}: python {Path(args.out) / 'runner.py'} {Path(args.out) / forms[0]}.onnx PICTURE ...")
    return verify(detector, info, args) if args.verify else 0


def write_graph(args: argparse.Namespace) -> int:
    """A run's sequence network as NIR. Raises InputError, for a detector with what NIR lacks."""
    from spyolo.checkpoint import load_detector, load_tensors
    from spyolo.export.nir import refuse_detector, write_nir
    from spyolo.sequence import load

    if load_tensors(args.weights)[1].get("format") == "spyolo-1":
        refuse_detector(load_detector(args.weights)[0])
    path = write_nir(load(args.weights)[0], Path(args.out) / "model.nir")
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def verify(detector: SpikingYOLO, info: WeightsInfo, args: argparse.Namespace) -> int:
    """Print the comparison; 1 where a layer differs by more than rounding."""
    from spyolo.export import verify as v

    size = args.size or info.size
    batches = {"random pictures": v.random_pictures(args.pictures, detector.spec.in_channels, size)}
    if args.data:
        batches[f"pictures of {args.split}"] = real_pictures(args, info, size)
    equal = True
    for name, pictures in batches.items():
        checks = v.layer_by_layer(detector, info, pictures, size=size, timesteps=args.timesteps)
        equal = equal and all(c.equal for c in checks.values())
        print(f"\n{args.pictures} {name}, fp32 weights, each layer on the same input spikes as torch's:\n{v.format_layers(checks)}")
    print(f"\nonnxruntime {'equals' if equal else 'DIFFERS from'} torch (tolerance {v.TOLERANCE:g})")
    return 0 if equal else 1


def real_pictures(args: argparse.Namespace, info: WeightsInfo, size: int) -> Iterator[Tensor]:
    from spyolo.data import DetectionDataset, VOCSet

    voc = VOCSet(args.data, args.split, info.classes)
    dataset = DetectionDataset(voc.subset(range(min(args.pictures, len(voc)))), size, "eval")
    return (dataset[i].image[None] for i in range(len(dataset)))
