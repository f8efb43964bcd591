"""The `--stream` part of `eval`: pseudo-video from the split, the detector in streaming and in fresh mode, the ANN twin frame by frame."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spyolo.cli.noted import noted
from spyolo.cli.options import refuse_unread, told_of_steps
from spyolo.config import MOST_TIMESTEPS
from spyolo.errors import InputError

if TYPE_CHECKING:
    from spyolo.detection import Reading, SpikingYOLO

WHY_PICTURES = "--stream makes its video of pictures, which have 3; leave --stream out"
STREAM_ONLY = ("stream_clips", "twin")
NOT_OF_STREAM = (
    "at_confidence", "coco_backend", "allow_duplicates", "recalibrate", "limit", "amp", "fast", "batch", "workers", "energy_pictures",
    "latency", "compare", "report", "save_predictions", "voc_text",
)  # fmt: skip


def add_stream_options(group: Any) -> None:
    """Options of the stream score, on an argparse group."""
    group.add_argument("--stream", action="store_true", help="score on pseudo-video made from the split instead: pans, zooms, cuts")
    group.add_argument("--stream-clips", type=int, default=16, metavar="N", help="clips of 3 shots of 8 frames [%(default)s]")
    group.add_argument("--twin", metavar="FILE", help="weights of the ANN twin, run frame by frame beside the detector")


def check_stream(args: argparse.Namespace, default_of: Callable[[str], Any]) -> None:
    """See that the options given are those that the score asked for reads; `default_of`: of an option by its name.

    Raises:
        InputError: names what does not go with --stream, or what needs it.
    """
    if not args.stream:
        refuse_unread(args, STREAM_ONLY, default_of, "goes with --stream")
        return
    refuse_unread(args, NOT_OF_STREAM, default_of, "the stream score does not read that; leave it out")
    if not args.weights:
        raise InputError("--stream needs a detector: --weights")
    if args.timesteps is not None and not (args.timesteps.isdecimal() and 1 <= int(args.timesteps) <= MOST_TIMESTEPS):
        steps = f"one number from 1 to {MOST_TIMESTEPS} as --timesteps, the steps of its fresh mode"
        raise InputError(f"--stream takes {steps}; got {args.timesteps!r}")
    if args.stream_clips < 1:
        raise InputError(f"--stream-clips must be at least 1, got {args.stream_clips}")


def stream_score(args: argparse.Namespace) -> int:
    """Run the modes on the same frames, print the table and (to stderr) what was tolerated, write stream.json."""
    from spyolo.checkpoint import OVERLAPS, check_pictures, load_detector
    from spyolo.cli.eval import OUT, open_set
    from spyolo.cli.eval_model import reading_of, told_of_input, told_of_norms
    from spyolo.evaluation.files import write_json
    from spyolo.evaluation.stream import carried, format_stream, fresh, run_stream
    from spyolo.evaluation.video import PseudoVideo
    from spyolo.running import choose_device

    detector, info = load_detector(args.weights, weights=args.weights_of)
    check_pictures(detector.spec, args.weights, WHY_PICTURES)
    voc, notes = open_set(args, info.classes)
    device, size = choose_device(args.device), args.size or info.size
    notes += told_of_input(info, size) + told_of_norms(args.weights_of)
    asked = int(args.timesteps or info.timesteps)
    steps = detector.steps_of(asked)
    if args.timesteps and steps != asked:
        notes.append(told_of_steps(args.timesteps))
    reading = reading_of(args, info)
    read = reader(detector.to(device), reading)
    modes = {"carried, 1 step": carried(detector, read), "fresh, 1 step": fresh(detector, 1, read)}
    if steps > 1:
        modes[f"fresh, {steps} steps"] = fresh(detector, steps, read)
    if args.twin:
        twin, other = load_detector(args.twin)
        if twin.spiking or other.classes != info.classes:
            raise InputError(f"{args.twin}: --twin needs weights of yolov4_tiny with the same classes")
        check_pictures(twin.spec, args.twin, WHY_PICTURES)
        notes += [f"{args.twin}: {note}" for note in told_of_input(other, size)]
        theirs = reading_of(args, other)
        modes["ann twin"] = fresh(twin, 1, reader(twin.to(device), theirs))
    video = PseudoVideo(voc, size=size, clips=args.stream_clips)
    with noted(notes):
        result = run_stream(video, modes, info.classes, device=device, progress=not args.quiet)
    result["protocol"] |= {
        "split": args.split, "weights": args.weights, "weights_of": args.weights_of, "twin": args.twin, "size": size,
        **reading.protocol,
    }  # fmt: skip
    if args.twin:
        result["protocol"] |= {f"twin_{name}": getattr(theirs, name) for name in OVERLAPS}
    result["warnings"] = notes
    print(format_stream(result))
    for message in notes:
        print(f"warning: {message}", file=sys.stderr)
    folder = args.out or (None if args.json else OUT)
    for path in (folder and Path(folder) / "stream.json", args.json):
        if path:
            write_json(Path(path), result)
            print(f"wrote {path}")
    return 0


def reader(detector: SpikingYOLO, reading: Reading) -> Any:
    """Raw predictions -> detections in frame pixels, on the CPU."""
    from spyolo.detection import postprocess

    boxes = partial(postprocess, anchors=detector.anchors, strides=detector.strides, reading=reading)
    return lambda predictions: [d.to("cpu") for d in boxes(predictions)]
