"""Draw what a detector sees.

    tools/predict.py --weights runs/voc/best.safetensors --source photo.jpg --out seen
    tools/predict.py --weights runs/voc/best.safetensors --source folder --confidence 0.4 --timesteps 4
    tools/predict.py --weights runs/voc/best.safetensors --source "holiday/**/*.jpg" --write pictures,csv,voc
    tools/predict.py --weights runs/voc/best.safetensors --source film.mp4
    tools/predict.py --weights runs/voc/best.safetensors --source 0 --write jsonl --frames 500
    tools/predict.py --weights runs/voc/best.safetensors --source rtsp://10.0.0.7/door

Pictures are shown for T steps each, from rest. A video, a camera or a network stream is shown one step a frame and the neurons' state is
carried over (--fresh: T steps a frame, from rest; so are weights that were trained with one step, which never learned what to do with a
state, unless --carry is given); of a camera or stream the newest frame is taken, older ones are dropped. Ctrl-C, or
SIGTERM, ends it and keeps what was written.

The folder --out gets what --write names: `pictures` (with their boxes: same name, .jpg; or the annotated video), `coco` (predictions.json,
COCO results format), `jsonl`, `csv`, `voc` (one XML a picture or frame). Pictures of one name in two folders become a.jpg and a.jpg-2. A
picture that cannot be read is told and left out; the others are done. Where not one can be read, the results of the run before stay.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spyolo.cli.options import NMS_IOU, VOTE_IOU, Parser, check_shares, refuse_unread, told_of_steps
from spyolo.errors import InputError
from spyolo.ranges import SIZES, STEPS, check_whole

if TYPE_CHECKING:
    import numpy as np

    from spyolo.boxes import Detections
    from spyolo.predictor import Predictor
    from spyolo.sources import Source

KINDS = ("pictures", "coco", "jsonl", "csv", "voc")


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="predict", description=__doc__)
    p.add_argument("--weights", required=True, help="weights file")
    p.add_argument("--source", required=True, help="picture, folder, pattern, video, camera number, or address of a stream")
    p.add_argument("--out", default="runs/predict", help="folder for what is written [%(default)s]")
    p.add_argument("--write", default="pictures,coco", help=f"what to write, of {', '.join(KINDS)} [%(default)s]")
    p.add_argument("--confidence", type=float, default=0.3, help="floor on scores [%(default)s]")
    p.add_argument("--nms-iou", type=float, metavar="IOU", help=NMS_IOU)
    p.add_argument("--vote-iou", type=float, metavar="IOU", help=VOTE_IOU)
    p.add_argument("--timesteps", type=int, help="steps a picture is shown, or with --fresh a frame [as trained]")
    p.add_argument("--steps-per-frame", type=int, default=1, help="steps each frame of a video or stream is shown [%(default)s]")
    state = p.add_mutually_exclusive_group()
    state.add_argument("--fresh", action="store_true", help="no state carried over: every frame is a picture of its own")
    state.add_argument("--carry", action="store_true", help="state carried over, also with weights that were trained with one step")
    bad = "on a state that is not finite: stop, or start anew from rest and count it"
    p.add_argument("--nonfinite", choices=("stop", "restart"), default="stop", help=f"{bad} [%(default)s]")
    p.add_argument("--frames", type=int, help="stop a video or stream after so many frames")
    p.add_argument("--video-format", choices=("webm", "mp4", "avi"), default="webm", help="of the annotated video [%(default)s]")
    p.add_argument("--size", type=int, help="input side, a multiple of 32 [as trained]")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda ... [%(default)s]")
    p.add_argument("--amp", choices=("none", "bf16"), default="none", help="autocast [%(default)s]")
    fast = "fast path on a CPU, at this precision [%(default)s]"
    p.add_argument("--fast", choices=("none", "fp32", "bf16", "int8"), default="none", help=fast)
    p.add_argument("--settle", action="store_true", help="stop before --timesteps steps when a step changed no box")
    return p


def check(args: argparse.Namespace) -> None:
    """What argparse cannot know. Raises InputError."""
    for name, bounds in (("size", SIZES), ("timesteps", STEPS), ("steps_per_frame", STEPS)):
        if getattr(args, name) is not None:
            check_whole(f"--{name.replace('_', '-')}", getattr(args, name), *bounds)
    if args.frames is not None and args.frames < 1:
        raise InputError(f"--frames must be at least 1, got {args.frames}")
    if not kinds(args):
        raise InputError(f"--write {args.write!r} names nothing to write; choose of {', '.join(KINDS)}")
    unknown = set(kinds(args)) - set(KINDS)
    if unknown:
        raise InputError(f"--write {', '.join(sorted(unknown))}: not known; choose of {', '.join(KINDS)}")
    check_shares(args, ("confidence", "nms_iou", "vote_iou"))


def check_fits(args: argparse.Namespace, source: Source) -> None:
    """Raises InputError for options that this kind of source has no use for."""
    default_of = parser().get_default
    if source.kind == "pictures":
        moving = ("frames", "fresh", "carry", "steps_per_frame", "nonfinite", "video_format")
        refuse_unread(args, moving, default_of, "for a video, camera or stream; pictures are shown --timesteps steps each, from rest")
        return
    if args.fresh:
        why = "not with --fresh, which carries no state over and shows each frame --timesteps steps"
        refuse_unread(args, ("steps_per_frame", "nonfinite"), default_of, why)
    else:
        why = "for pictures, or frames with --fresh; a frame is shown --steps-per-frame steps"
        refuse_unread(args, ("timesteps", "settle"), default_of, why)
    if "pictures" not in kinds(args):
        refuse_unread(args, ("video_format",), default_of, "no video is written; add pictures to --write")


def kinds(args: argparse.Namespace) -> list[str]:
    return [kind.strip() for kind in args.write.split(",") if kind.strip()]


def check_places(args: argparse.Namespace, source: Source) -> None:
    """Pictures are never written over their own source."""
    folders = {path.parent.resolve() for path in source.pictures}
    if source.kind == "video":
        folders.add(Path(str(source.address)).parent.resolve())
    if "pictures" in kinds(args) and Path(args.out).resolve() in folders:
        raise InputError(f"--out {args.out} is where the pictures come from; they would be overwritten")


class Writers:
    """The outputs asked for, as one: `add` each picture, and close. Without a picture, what was there before stays."""

    def __init__(self, args: argparse.Namespace, classes: Sequence[str], stack: ExitStack) -> None:
        from spyolo.outputs import TABLES

        self.out, self.kinds, self.classes = Path(args.out), kinds(args), classes
        names = {"coco": "predictions.json", "jsonl": "predictions.jsonl", "csv": "predictions.csv"}
        self.tables = {
            kind: stack.enter_context(TABLES[kind](self.out / names[kind], classes)) for kind in self.kinds if kind in TABLES
        }
        self.pictures = self.boxes = 0

    def add(
        self, name: str, file: str, image: np.ndarray, found: Detections, frame: int | None = None, orientation: int = 1
    ) -> None:  # fmt: skip
        """`image` as shown; `orientation`: the EXIF orientation of its file."""
        from spyolo.outputs import write_voc

        size = image.shape[1], image.shape[0]
        self.pictures, self.boxes = self.pictures + 1, self.boxes + len(found)
        for kind, table in self.tables.items():
            table.add(name if kind == "coco" else file, size, found, frame)
        if "voc" in self.kinds:
            write_voc(self.out / "annotations" / f"{name}.xml", file, size, found, self.classes, orientation)


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    check(args)
    from spyolo.sources import parse_source

    source = parse_source(args.source)
    check_fits(args, source)
    check_places(args, source)
    from spyolo.predictor import Predictor
    from spyolo.running import choose_device, sigterm_as_ctrl_c

    predictor = Predictor.load(
        args.weights, timesteps=args.timesteps, size=args.size, confidence=args.confidence, nms_iou=args.nms_iou, vote_iou=args.vote_iou,
        device=choose_device(args.device), amp=args.amp, fast=args.fast, settle=args.settle,
    )  # fmt: skip
    args.fresh = args.fresh or (source.kind != "pictures" and better_fresh(args, predictor))
    for option, asked in (("--timesteps", args.timesteps or 1), ("--steps-per-frame", args.steps_per_frame)):
        if predictor.detector.steps_of(asked) != asked:
            print(told_of_steps(asked, option=option), file=sys.stderr)
    with ExitStack() as stack:
        stack.enter_context(sigterm_as_ctrl_c())
        if source.kind != "pictures":
            return on_frames(args, source, predictor, stack)
        writers = Writers(args, predictor.classes, stack)
        bad = on_pictures(source.pictures, predictor, writers)
    print(f"{writers.pictures} picture(s), {writers.boxes} box(es) -> {writers.out}" + (f"; {bad} left out" if bad else ""))
    return 1 if bad else 0


def better_fresh(args: argparse.Namespace, predictor: Predictor) -> bool:
    """Whether frames are seen from rest unasked, which is told: a state is of no use to weights that were trained with one step."""
    if args.carry or args.steps_per_frame > 1 or not predictor.detector.spiking or predictor.info.timesteps > 1:
        return False
    print("these weights were trained with one step: every frame is seen from rest (--carry: with the state carried over)", file=sys.stderr)
    return True


def on_pictures(pictures: Sequence[Path], predictor: Predictor, writers: Writers) -> int:
    """Predict on each; returns how many could not be read."""
    from tqdm import tqdm

    from spyolo.data import read_image
    from spyolo.data.images import orientation_of
    from spyolo.drawing import draw_boxes, save_image

    bad, stems = 0, Counter(path.stem for path in pictures)
    names = told_apart(path.stem if stems[path.stem] == 1 else path.name for path in pictures)  # a.jpg and a.png are two pictures
    named = list(zip(pictures, names, told_apart(path.name for path in pictures)))
    for path, name, file in tqdm(named, "predicting", disable=len(pictures) < 2, leave=False):
        try:
            image = read_image(path)
        except InputError as error:
            bad += 1
            tqdm.write(f"left out: {error}", file=sys.stderr)
            continue
        seen = predictor.predict(image)
        writers.add(name, file, image, seen, orientation=orientation_of(path) if "voc" in writers.kinds else 1)
        if "pictures" in writers.kinds:
            save_image(writers.out / f"{name}.jpg", draw_boxes(image, seen.boxes, seen.labels, predictor.classes, seen.scores))
        if len(pictures) == 1:
            print("\n".join(lines(seen, predictor.classes)) or "nothing seen")
    return bad


def told_apart(names: Iterable[str]) -> list[str]:
    """Each name once: one/a.jpg and two/a.jpg are a.jpg and a.jpg-2."""
    numbers, given = Counter[str](), dict[str, None]()
    for name in names:
        own = name
        while own in given:
            numbers[name] += 1
            own = f"{name}-{numbers[name] + 1}"
        given[own] = None
    return list(given)


def on_frames(args: argparse.Namespace, source: Source, predictor: Predictor, stack: ExitStack) -> int:
    """Predict on a video or stream, frame by frame, until it or --frames ends or Ctrl-C is pressed."""
    from tqdm import tqdm

    from spyolo.drawing import draw_boxes
    from spyolo.outputs import VideoFile

    frames, fps, length = opened(source, stack)
    writers = Writers(args, predictor.classes, stack)
    film = stack.enter_context(VideoFile(writers.out / f"{source.name}.{args.video_format}", fps)) if "pictures" in writers.kinds else None
    state, times, restarts, stopped = None, deque[float](maxlen=50), 0, False
    bar = stack.enter_context(tqdm(desc="predicting", unit="frame", total=args.frames or length or None, leave=False))
    try:
        for number, image in enumerate(frames, 1):
            began = time.perf_counter()
            if args.fresh:
                seen = predictor.predict(image)
            else:
                seen, state, anew = next_frame(args, predictor, image, state, number)
                restarts += anew
            times.append(time.perf_counter() - began)
            writers.add(f"{source.name}-{number:06d}", f"{source.name}-{number:06d}.jpg", image, seen, number)
            if film is not None:
                film.add(draw_boxes(image, seen.boxes, seen.labels, predictor.classes, seen.scores))
            bar.update()
            if number == args.frames:
                break
    except KeyboardInterrupt:
        stopped = True
        print("stopped; what was written stays", file=sys.stderr)
    if not writers.pictures:
        if stopped:
            return 130
        raise InputError(f"{args.source}: not one frame arrived")
    median = sorted(times)[len(times) // 2]
    print(f"{writers.pictures} frame(s), {writers.boxes} box(es), {median * 1000:.0f} ms a frame -> {writers.out}")
    if restarts:
        print(f"started anew from rest {restarts} time(s): the state was not finite")
    return 0


def next_frame(args: argparse.Namespace, predictor: Predictor, image: np.ndarray, state: Any, number: int) -> tuple[Detections, Any, bool]:
    """Boxes, the state after, and whether the state before was not finite and rest took its place."""
    from spyolo.health import NotFinite

    try:
        return *predictor.step(image, state, args.steps_per_frame), False
    except NotFinite as error:
        if args.nonfinite == "stop" or state is None:
            raise InputError(f"frame {number}: {error}; --nonfinite restart does so") from None
        return *predictor.step(image, None, args.steps_per_frame), True


def opened(source: Source, stack: ExitStack) -> tuple[Iterable[np.ndarray], float, int]:
    """Frames of a video or stream, their rate, and how many there are (of both, 0: nobody knows)."""
    from spyolo.sources import Live, describe, video_frames, video_info

    if source.kind == "video":
        info = video_info(str(source.address))
        frames: Iterator[Any] = video_frames(str(source.address))
        return frames, info.fps, info.frames
    live = stack.enter_context(Live(source.address))
    return live, describe(live.capture).fps, 0


def lines(seen: Detections, classes: Sequence[str]) -> list[str]:
    """Class, score and corners of each detection."""
    found = zip(seen.boxes.tolist(), seen.scores.tolist(), seen.labels.tolist())
    return [f"{classes[label]} {score:.2f}  " + " ".join(f"{v:.0f}" for v in box) for box, score, label in found]
