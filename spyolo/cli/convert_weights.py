"""Turn a pickled .pth file of weights into safetensors, the only kind that all other commands read.

    tools/convert_weights.py --from old.pth --out weights/mine.safetensors --classes cat,dog
    tools/convert_weights.py --from spyv4_reference.pth --out reference.safetensors

Nothing in the file is run: it is read with weights_only=True, and one that holds more than tensors is refused. Understood are state dicts
of our detectors (--detector says which) and of the SPYv4 reference, told by their names. Width and number of classes come from the shapes.

The reference's tensors fit `spyv4` exactly, and so do its spikes; but its heads mean boxes by another formula (sigma and exp), ours by
Scaled-YOLOv4's: take such a file as a warm start (tools/train.py --detector spyv4 --init FILE), not as a finished detector.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spyolo.cli.options import Parser, refuse_unread
from spyolo.errors import InputError
from spyolo.ranges import SIZES, STEPS, check_whole

if TYPE_CHECKING:
    from spyolo.detection import SpikingYOLO

STEPS_OF_SPIKING = 8


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="convert_weights", description=__doc__)
    p.add_argument("--from", dest="source", required=True, metavar="FILE", help="the .pth file")
    p.add_argument("--out", required=True, metavar="FILE", help="safetensors file to write")
    p.add_argument("--classes", default="voc", help="voc, sample, cat,dog or a file, one name a line, in label order [%(default)s]")
    kinds = ("spyv4", "spyv4_lite", "yolov4_tiny")
    p.add_argument("--detector", default="spyv4_lite", choices=kinds, help="of our own naming [%(default)s]")
    p.add_argument("--size", type=int, default=416, help="input side it was trained at, a multiple of 32 [%(default)s]")
    p.add_argument("--timesteps", type=int, metavar="T", help=f"steps it was trained with [{STEPS_OF_SPIKING}; of yolov4_tiny: 1]")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from spyolo.checkpoint import WeightsInfo, save_weights
    from spyolo.data.classes import parse_classes
    from spyolo.legacy import described, fitted, from_reference, is_reference, read_pth

    check_whole("--size", args.size, *SIZES)
    if args.timesteps is not None:
        check_whole("--timesteps", args.timesteps, *STEPS)
    tensors = read_pth(args.source)
    count, reference = len(tensors), is_reference(tensors)
    if reference:
        refuse_unread(args, ("detector",), parser().get_default, "the reference's weights are of spyv4")
        tensors = from_reference(tensors, args.source)
    spec = described(tensors, reference, args.source, args.detector)
    classes = parse_classes(args.classes)
    if len(classes) != spec.num_classes:
        raise InputError(f"{args.source}: weights for {spec.num_classes} classes, --classes names {len(classes)}")
    detector = fitted(tensors, spec, args.source)
    timesteps = steps_of(detector, args.timesteps)
    notes = {"converted": "from the SPYv4 reference's naming; its heads mean boxes by another formula" if reference else "from a .pth file"}
    save_weights(args.out, detector, WeightsInfo(spec, classes, args.size, timesteps, notes=notes))
    parameters = sum(p.numel() for p in detector.parameters())
    print(f"{spec.name}, width {spec.width:g}, {parameters:,} parameters, {spec.num_classes} classes: {count} names -> {args.out}")
    if reference:
        print("its heads mean boxes by another formula than ours: a warm start, not a finished detector (--help)")
    return 0


def steps_of(detector: SpikingYOLO, asked: int | None) -> int:
    """The steps to write down. Raises InputError where units that do not spike should have several: all would say the same."""
    if detector.spiking:
        return STEPS_OF_SPIKING if asked is None else asked
    if asked not in (None, 1):
        raise InputError(f"--timesteps {asked}: the units of {detector.spec.name} do not spike, one step is all they need; leave it out")
    return 1
