"""Write a detector as ONNX, boxes included; spyolo.runner (copied beside it) needs onnxruntime and numpy only. Or a sequence
network as NIR.

    tools/export.py --weights runs/voc/best.safetensors --out exported
    tools/export.py --weights runs/voc/best.safetensors --form step,unrolled --timesteps 4 --int8 --verify
    python exported/runner.py exported/unrolled.onnx photo.jpg
    tools/export.py --format nir --weights runs/sequence/best.safetensors --out exported

Form `unrolled` shows a still picture for T steps, from rest. Form `step` does one step and takes the neurons' state in and out: for films.
--verify runs each file written with onnxruntime and holds it to torch, layer by layer and in its boxes, on random pictures and, with
--data, on real ones. 8-bit weights move spikes and boxes: of an --int8 file layers are compared as fp32, and the share of equal
boxes is only told.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spyolo.cli.options import NMS_IOU, VOTE_IOU, Parser, check_shares, refuse_unread
from spyolo.errors import InputError
from spyolo.ranges import COUNTS, SIZES, STEPS, check_whole

if TYPE_CHECKING:
    from torch import Tensor

    from spyolo.checkpoint import WeightsInfo
    from spyolo.detection import Reading, SpikingYOLO

NOT_NIR = (
    "form", "timesteps", "size", "int8", "all_classes", "confidence", "nms_iou", "vote_iou", "max_detections", "verify", "data", "split",
    "pictures",
)  # fmt: skip


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
    p.add_argument("--nms-iou", type=float, metavar="IOU", help=f"{NMS_IOU}; can be changed when run")
    p.add_argument("--vote-iou", type=float, metavar="IOU", help=VOTE_IOU)
    p.add_argument("--max-detections", type=int, default=100, help="boxes a picture [%(default)s]")
    p.add_argument("--verify", action="store_true", help="hold the files to torch, layer by layer and in their boxes (needs onnxruntime)")
    p.add_argument("--data", metavar="DIR", help="of --verify: folder that holds VOCdevkit, for real pictures")
    p.add_argument("--split", default="2007:val", help="of --verify --data [%(default)s]")
    p.add_argument("--pictures", type=int, default=4, help="of --verify: how many of each kind [%(default)s]")
    return p


def check(args: argparse.Namespace) -> list[str]:
    """The forms asked for. Raises InputError."""
    from spyolo.export.detector import FORMS

    check_read(args)
    forms = list(dict.fromkeys(form.strip() for form in args.form.split(",") if form.strip()))
    unknown = sorted(set(forms) - set(FORMS))
    if unknown or not forms:
        raise InputError(f"--form {args.form!r}: not known; choose of {', '.join(FORMS)}")
    for name, bounds in (("size", SIZES), ("timesteps", STEPS), ("max_detections", COUNTS), ("pictures", COUNTS)):
        if getattr(args, name) is not None:
            check_whole(f"--{name.replace('_', '-')}", getattr(args, name), *bounds)
    check_shares(args, ("confidence", "nms_iou", "vote_iou"))
    return forms


def check_read(args: argparse.Namespace) -> None:
    """Raises InputError for options that this format, or an export that is not verified, does not read."""
    default_of = parser().get_default
    if args.format == "nir":
        refuse_unread(args, NOT_NIR, default_of, "for --format onnx; a NIR file has no boxes and no number of steps, and is not verified")
    if not args.verify:
        refuse_unread(args, ("data", "split", "pictures"), default_of, "of --verify; add it")
    if not args.data:
        refuse_unread(args, ("split",), default_of, "of --data; add it")


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    forms = check(args)
    if args.format == "nir":
        return write_graph(args)
    from spyolo import runner
    from spyolo.checkpoint import check_pictures, load_detector
    from spyolo.export import export_onnx
    from spyolo.files import write_whole

    detector, info = load_detector(args.weights)
    if args.verify and args.data:
        check_pictures(detector.spec, args.weights, "--verify --data shows VOC's pictures; without --data it shows random input")
    how = {"max_detections": args.max_detections, "one_class_per_box": not args.all_classes}
    reading = info.reading(args.confidence, args.nms_iou, args.vote_iou, **how)
    out = Path(args.out)
    paths = [out / f"{form}.onnx" for form in forms]
    for form, path in zip(forms, paths):
        export_onnx(detector, info, path, form=form, timesteps=args.timesteps, size=args.size, reading=reading, int8=args.int8)
        print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    write_whole(out / "runner.py", Path(runner.__file__).read_bytes())
    print(f"wrote {out / 'runner.py'}: python {out / 'runner.py'} {paths[0]} PICTURE ...")
    return verify(detector, info, args, paths, reading) if args.verify else 0


def write_graph(args: argparse.Namespace) -> int:
    """A run's sequence network as NIR. Raises InputError, for a detector with what NIR lacks."""
    from spyolo import published
    from spyolo.checkpoint import load_detector, load_tensors
    from spyolo.export.nir import refuse_detector, write_nir
    from spyolo.sequence import load
    from spyolo.sequence.published import shelf

    sequence = args.weights in published.read_manifest(shelf())
    if not sequence and load_tensors(args.weights)[1].get("format") == "spyolo-1":
        refuse_detector(load_detector(args.weights)[0])
    path = write_nir(load(args.weights)[0], Path(args.out) / "model.nir")
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def verify(detector: SpikingYOLO, info: WeightsInfo, args: argparse.Namespace, paths: Sequence[Path], reading: Reading) -> int:
    """Print the comparison; 1 where a layer, or the decoding of its logits, differs by more than rounding."""
    from spyolo.export import verify as v
    from spyolo.export.written import check_file, format_file

    size = args.size or info.size
    sources = {"random pictures": lambda: v.random_pictures(args.pictures, detector.spec.in_channels, size)}
    if args.data:
        sources[f"pictures of {args.split}"] = real_pictures(args, info, size)
    equal = True
    for name, pictures in sources.items():
        files = {path: check_file(path, detector, info, pictures(), timesteps=args.timesteps, reading=reading) for path in paths}
        tables = {str(path): check.layers for path, check in files.items()}
        if args.int8:
            tables = {"the graph with fp32 weights": v.layer_by_layer(detector, info, pictures(), size=size, timesteps=args.timesteps)}
        print(f"\n{files[paths[0]].pictures} {name}, each layer on the same input spikes as torch's")
        for of, layers in tables.items():
            print(f"{of}:\n{v.format_layers(layers)}")
        print("\n".join(format_file(path, check) for path, check in files.items()))
        equal = equal and all(c.equal for t in tables.values() for c in t.values()) and all(f.boxes_equal for f in files.values())
    but = " but for its 8-bit weights" if args.int8 else ""
    print(f"\nonnxruntime {'equals' if equal else 'DIFFERS from'} torch{but} (tolerance {v.TOLERANCE:g})")
    return 0 if equal else 1


def real_pictures(args: argparse.Namespace, info: WeightsInfo, size: int) -> Callable[[], Iterator[Tensor]]:
    """The first of the split, as often as they are asked for."""
    from spyolo.data import DetectionDataset, VOCSet

    voc = VOCSet(args.data, args.split, info.classes)
    dataset = DetectionDataset(voc.subset(range(min(args.pictures, len(voc)))), size, "eval")
    return lambda: (dataset[i].image[None] for i in range(len(dataset)))
