#!/usr/bin/env python3
"""Hold exported detectors to torch on real pictures, and time both.

    python tools/bench/onnx_equals_torch.py --weights best.safetensors --data DIR --split 2007:val --pictures 200
    python tools/bench/onnx_equals_torch.py --weights best.safetensors --data DIR --only rates --threads 2

Equality: each layer on the same input spikes (random and real pictures), then end to end in fp32: the share of equal spikes, the share of
equal boxes (same class, IoU >= 0.95; 2 x pairs / all boxes of both) over the floor of evaluation and over 0.3, and AP50 (VOC10+), for both
forms; beside them torch itself without oneDNN, which adds up in another order. The runner reads the pictures its own way (its letterbox,
not OpenCV's). int8: the same with 8-bit weights. Rates: one picture at a time from pixels to boxes, best of three rounds, everything of
the picture's way counted except reading its file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spyolo import engine, runner
from spyolo.boxes import Detections
from spyolo.checkpoint import WeightsInfo, load_detector
from spyolo.cli import guarded
from spyolo.cli.options import Parser
from spyolo.data import DetectionDataset, VOCSet
from spyolo.detection import SpikingYOLO
from spyolo.evaluation import evaluate_detections
from spyolo.export import export_onnx
from spyolo.export import verify as v
from spyolo.files import write_whole
from spyolo.neurons import has_bf16
from spyolo.neurons.fused import Compiling
from spyolo.predictor import Predictor

FLOOR = 0.005  # of evaluation
SHOWN = 0.3  # of what people see
PARTS = ("layers", "spikes", "boxes", "rates")


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="onnx_equals_torch", description=__doc__)
    p.add_argument("--weights", required=True, help="weights file, or a published name")
    p.add_argument("--data", required=True, help="folder that holds VOCdevkit")
    p.add_argument("--split", default="2007:val", help="[%(default)s]")
    p.add_argument("--pictures", type=int, default=200, help="end to end [%(default)s]")
    p.add_argument("--layer-pictures", type=int, default=8, help="layer by layer, as many random ones besides [%(default)s]")
    p.add_argument("--rate-pictures", type=int, default=30, help="timed [%(default)s]")
    p.add_argument("--timesteps", type=int, help="[as trained]")
    p.add_argument("--size", type=int, help="[as trained]")
    p.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch and of onnxruntime [%(default)s]")
    p.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="which parts [all]")
    p.add_argument("--json", help="write the figures here too")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    detector, info = load_detector(args.weights)
    voc = VOCSet(args.data, args.split, info.classes)
    dataset = DetectionDataset(voc.subset(range(min(args.pictures, len(voc)))), args.size or info.size, "eval")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, detector, info, dataset, Path(folder))
        figures = {part: getattr(bench, part)() for part in args.only}
    if args.json:
        write_whole(args.json, json.dumps(figures, indent=1))
    return 0


class Bench:
    """One method a part of the comparison; each prints its figures and returns them."""

    def __init__(self, args: argparse.Namespace, detector: SpikingYOLO, info: WeightsInfo, dataset: DetectionDataset, folder: Path) -> None:
        self.args, self.detector, self.info, self.dataset, self.folder = args, detector, info, dataset, folder
        self.size, self.steps = dataset.size, (args.timesteps or info.timesteps) if detector.spiking else 1
        print(f"{info.spec.name}, {self.size} pixels, T = {self.steps}, {len(dataset)} pictures of {args.split}, {args.threads} threads")

    def file(self, form: str, int8: bool = False, one_class: bool = False, **how: Any) -> Path:
        """The detector exported, once."""
        path = self.folder / f"{form}-{int8}-{one_class}-{len(how)}.onnx"
        if not path.exists():
            reading = self.info.reading(FLOOR, one_class_per_box=one_class)
            export_onnx(self.detector, self.info, path, form=form, timesteps=self.steps, size=self.size, reading=reading, int8=int8, **how)
        return path

    def canvases(self, count: int) -> Any:
        return (self.dataset[i].image[None] for i in range(min(count, len(self.dataset))))

    def layers(self) -> dict[str, Any]:
        count, out = self.args.layer_pictures, {}
        kinds = {"random": v.random_pictures(count, self.detector.spec.in_channels, self.size), "real": self.canvases(count)}
        for name, pictures in kinds.items():
            checks = v.layer_by_layer(self.detector, self.info, pictures, size=self.size, timesteps=self.steps)
            flipped, neurons = (sum(getattr(c, field) for c in checks.values()) for field in ("flipped", "neurons"))
            worst = max(c.membrane for c in checks.values())
            margin = max(c.margin for c in checks.values())
            equal = all(c.equal for c in checks.values())
            print(f"layer by layer, {count} {name} pictures: {'equal' if equal else 'NOT EQUAL'}; at most {worst:.1e} apart (limit "
                  f"{v.TOLERANCE:g}), {flipped} of {neurons} spikes flipped, at most {margin:.1e} from the threshold")  # fmt: skip
            out[name] = {"difference": worst, "flipped": flipped, "of": neurons, "margin": margin, "equal": equal}
        return out

    def spikes(self) -> dict[str, Any]:
        session = v.open_session(self.file("unrolled", probes=True))
        same, total = v.equal_spikes(self.detector, self.canvases(len(self.dataset)), session, self.steps)
        print(f"end to end: {same / total:.6f} of {total} spikes are equal")
        return {"equal": same / total, "of": total}

    def boxes(self) -> dict[str, Any]:
        ids = self.dataset.voc.ids
        truth = {name: self.dataset.voc.objects(i) for i, name in enumerate(ids)}
        reading = self.info.reading(FLOOR)
        with_torch = engine.detect(self.detector, self.dataset, (self.steps,), reading=reading)[self.steps]
        ap = self.ap50(truth, with_torch)
        print(f"AP50 with torch {100 * ap:.2f}")
        out: dict[str, Any] = {"torch": {"ap50": ap}}

        def judge(name: str, found: dict[str, Detections]) -> None:
            other, shares = self.ap50(truth, found), {f: share(with_torch, found, f) for f in (FLOOR, SHOWN)}
            print(f"{name}: AP50 {100 * other:.2f} ({100 * (other - ap):+.2f} points), equal boxes {shares[FLOOR]:.4f} over {FLOOR}, "
                  f"{shares[SHOWN]:.4f} over {SHOWN}", flush=True)  # fmt: skip
            out[name] = {"ap50": other, "equal_boxes": shares}

        for name, path in (("unrolled", self.file("unrolled")), ("step", self.file("step")), ("int8", self.file("unrolled", int8=True))):
            run = runner.Runner(path, threads=self.args.threads)
            judge(name, {image_id: detections(run.predict(self.dataset.voc.image(i))) for i, image_id in enumerate(ids)})
        with torch.backends.mkldnn.flags(enabled=False):  # how far torch is from itself when it adds in another order
            judge("torch without oneDNN", engine.detect(self.detector, self.dataset, (self.steps,), reading=reading)[self.steps])
        return out

    def ap50(self, truth: dict[str, Any], found: dict[str, Detections]) -> float:
        return evaluate_detections(truth, found, self.info.classes)["voc10_ap50"]

    def rates(self) -> dict[str, Any]:
        pictures = [self.dataset.voc.image(i) for i in range(min(self.args.rate_pictures, len(self.dataset)))]
        how: dict[str, Any] = {"timesteps": self.steps, "size": self.size, "confidence": SHOWN}
        rows: dict[str, Callable[[np.ndarray], Any]] = {
            "torch": Predictor(self.detector, self.info, **how).predict,
        }
        if has_bf16(torch.device("cpu")):
            rows["torch, bf16"] = Predictor(self.detector, self.info, amp="bf16", **how).predict
        for name, form, int8 in (("unrolled", "unrolled", False), ("step", "step", False), ("int8", "unrolled", True)):
            rows[f"runner, {name}"] = runner.Runner(self.file(form, int8, True), confidence=SHOWN, threads=self.args.threads).predict
        rates = {}
        for name, predict in rows.items():
            for picture in pictures[:3]:
                predict(picture)
            best = min(seconds(predict, pictures) for _ in range(3))
            rates[name] = len(pictures) / best
            print(f"{name:<18}{rates[name]:8.1f} pictures/s")
        return rates


def seconds(predict: Callable[[np.ndarray], Any], pictures: list[np.ndarray]) -> float:
    start = time.perf_counter()
    for picture in pictures:
        predict(picture)
    return time.perf_counter() - start


def detections(found: runner.Found) -> Detections:
    return Detections(*(torch.from_numpy(x) for x in found))


def share(one: dict[str, Detections], other: dict[str, Detections], floor: float) -> float:
    """2 x equal boxes / all boxes of both, over the pictures together."""
    pairs = total = 0
    for name, mine in one.items():
        theirs = other[name]
        mine, theirs = mine[mine.scores > floor], theirs[theirs.scores > floor]
        pairs, total = pairs + v.equal_boxes(mine, theirs), total + len(mine) + len(theirs)
    return 2 * pairs / total if total else 1.0


if __name__ == "__main__":
    Compiling.enabled = "rates" in parser().parse_known_args()[0].only  # one pass is through before its kernels would be
    raise SystemExit(guarded(main))
