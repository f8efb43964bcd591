#!/usr/bin/env python3
"""The demo under load: many visitors at once with good and bad input, for a while; then a look at what is left.

    python tools/bench/app_load.py --weights runs/sample/best.safetensors --users 20 --seconds 300

Starts the demo as a process of its own on the loopback address, sends a bounded number of requests for a bounded time, and stops it.
Every visitor gives pictures of their own, and every answer is compared with what the same detector finds on that picture alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gradio_client import Client, handle_file

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "app")]
PATIENCE = 300.0  # seconds for an answer: a busy computer is slow, not broken
MOST_REQUESTS = 20_000  # in all: an end even if the clock stood still
REFUSALS = ("Queue is full", "Addresses are not fetched")


@dataclass
class Report:
    """What happened. `errors` and `mixed` and `left` must be empty."""

    users: int
    seconds: float
    done: Counter[str] = field(default_factory=Counter)  # by what was asked
    refused: Counter[str] = field(default_factory=Counter)  # clear refusals, by their first words
    errors: list[str] = field(default_factory=list)  # anything else
    mixed: list[str] = field(default_factory=list)  # answers that fit another picture
    left: list[str] = field(default_factory=list)  # files of visitors after all have gone
    longest_queue: int = 0
    worst_place: int = 0  # in the queue, as told to a visitor
    memory: list[float] = field(default_factory=list)  # MB, every second
    waits: list[float] = field(default_factory=list)  # seconds for a picture

    def growth(self) -> float:
        """Memory of the last fifth over that of the second fifth."""
        fifth = max(1, len(self.memory) // 5)
        return float(np.median(self.memory[-fifth:]) / np.median(self.memory[fifth : 2 * fifth]))

    def summary(self) -> dict[str, Any]:
        """What is worth writing down."""
        waits = [round(float(w), 2) for w in np.percentile(self.waits or [0], (50, 95, 100))]
        memory = [round(float(m)) for m in np.percentile(self.memory or [0], (0, 50, 100))]
        told = {"memory_growth": round(self.growth(), 3), "memory_mb_0_50_100": memory, "wait_s_50_95_100": waits}
        plain = {k: dict(v) if isinstance(v, Counter) else v for k, v in vars(self).items() if k not in ("memory", "waits")}
        return plain | told | {"requests": self.done.total() + self.refused.total()}


class Server:
    """The demo as a process of its own; its temporary files go below `folder`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        env = os.environ | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", "GRADIO_HEARTBEAT_INTERVAL": "2"}
        command = [sys.executable, str(ROOT / "app" / "demo.py"), "--save-to", str(folder / "learned"), *options]
        self.log = folder / "log.txt"
        self.process = subprocess.Popen(command, stdout=self.log.open("w"), stderr=subprocess.STDOUT, env=env, cwd=folder)
        self.address = self._address()

    def _address(self) -> str:
        until = time.monotonic() + 600
        while time.monotonic() < until and self.process.poll() is None:
            if found := re.search(r"demo at (\S+)", self.log.read_text()):
                return found[1]
            time.sleep(0.2)
        self.stop()
        raise RuntimeError(f"the demo did not start: {self.log.read_text()}")

    def memory(self) -> float:
        """Resident memory in MB."""
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1]) / 1000  # type: ignore[index]

    def files(self) -> list[str]:
        """Files of visitors on disk: uploads and pictures made."""
        kept = [p for kind in ("uploads", "sessions") for p in self.folder.glob(f"spyolo-demo-*/{kind}/**/*")]
        return [str(p.relative_to(self.folder)) for p in kept if p.is_file()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Not by Ctrl-C's SIGINT unless told so: a shell lets what it starts in the background ignore that."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Alone:
    """What the detector finds on a picture with nobody else around."""

    def __init__(self, weights: Path) -> None:
        from spyolo.predictor import Predictor

        self.predictor, self.lock = Predictor.load(weights, timesteps=2, confidence=0.1, nms_iou=0.5), threading.Lock()

    def __call__(self, image: np.ndarray) -> Any:
        with self.lock:
            return self.predictor.predict(image)


class Visitor(threading.Thread):
    """One user: gives pictures and nonsense in turn, reads every answer, leaves and comes back."""

    def __init__(self, number: int, address: str, model: str, alone: Alone, folder: Path, until: float, report: Report) -> None:
        super().__init__(name=f"visitor {number}")
        self.number, self.address, self.model, self.alone = number, address, model, alone
        self.folder, self.until, self.report = folder / str(number), until, report
        self.folder.mkdir()
        self.draw = np.random.default_rng(number)
        self.client: Client | None = None

    def run(self) -> None:
        asks = {"picture": self.picture, "bad picture": self.bad_picture, "bad values": self.bad_values, "video": self.video}
        asks["leave"] = self.leave
        while time.monotonic() < self.until and self.report.done.total() < MOST_REQUESTS:
            what = str(self.draw.choice(list(asks), p=(0.6, 0.2, 0.1, 0.05, 0.05)))
            try:
                if self.client is None:
                    self.client = Client(self.address, verbose=False, httpx_kwargs={"timeout": PATIENCE})
                asks[what]()
                self.report.done[what] += 1
            except Exception as error:
                said = str(error)
                known = next((words for words in REFUSALS if words in said), None)
                if known:
                    self.report.refused[known] += 1
                else:
                    self.report.errors.append(f"{what}: {type(error).__name__}: {said[:200]}")
            time.sleep(float(self.draw.uniform(0.1, 1.0)))
        self.leave()

    def leave(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None

    def ask(self, *data: Any, api_name: str = "/detect") -> Any:
        """Submit, watch the place in the queue, and wait for the answer."""
        assert self.client is not None
        job = self.client.submit(*data, api_name=api_name)
        while not job.done():
            status = job.status()
            self.report.longest_queue = max(self.report.longest_queue, status.queue_size or 0)
            self.report.worst_place = max(self.report.worst_place, (status.rank or 0) + 1 if status.rank is not None else 0)
            time.sleep(0.1)
        return job.result()

    def picture(self) -> None:
        from app.figures import boxed
        from spyolo.data import read_image
        from spyolo.data.sample_drawing import draw_picture
        from spyolo.drawing import save_image

        image, _ = draw_picture(self.draw)
        path = save_image(self.folder / f"{self.draw.integers(1 << 30)}.png", image)
        began = time.monotonic()
        shown, _, boxes, _, message = self.ask(handle_file(str(path)), 0.1, 0.5, 2, self.model)
        self.report.waits.append(time.monotonic() - began)
        alone = self.alone(image)
        same = np.allclose([b["score"] for b in boxes or []], alone.scores.numpy(), atol=2e-3) if len(boxes or []) == len(alone) else False
        mine = shown is not None and fits(read_image(shown), boxed(image, alone, self.alone.predictor.info.classes))
        if not (same and mine):
            self.report.mixed.append(f"visitor {self.number}, {path.name}: {message} {len(boxes or [])} boxes, alone {len(alone)}, {mine=}")
        path.unlink()

    def bad_picture(self) -> None:
        from app_samples import huge_png

        content, words = [(b"no picture", "cannot be read"), (b"", "empty"), (huge_png(), "smaller")][int(self.draw.integers(3))]
        path = self.folder / f"{self.draw.integers(1 << 30)}.png"
        path.write_bytes(content + (b"" if not content else str(self.draw.integers(1 << 30)).encode()))
        shown, *_, message = self.ask(handle_file(str(path)), 0.3, 0.5, 2, self.model)
        if shown is not None or words not in message:
            self.report.errors.append(f"bad picture: {message}")
        path.unlink()

    def bad_values(self) -> None:
        kind = int(self.draw.integers(4))
        if kind == 0:
            self.ask({"path": "http://127.0.0.1:9/x.png", "meta": {"_type": "gradio.FileData"}}, 0.3, 0.5, 2, self.model)
            raise AssertionError("an address was taken")
        from spyolo.drawing import save_image

        path = save_image(self.folder / "small.png", self.draw.integers(0, 255, (20, 20, 3), dtype=np.uint8))
        asked: tuple[Any, ...] = [(9.0, 0.5, 2, self.model), (0.3, 0.5, 1e9, self.model), (0.3, 0.5, 2, "../../etc/passwd")][kind - 1]
        shown, *_, message = self.ask(handle_file(str(path)), *asked)
        if shown is not None or not any(words in message for words in ("must be between", "no longer there")):
            self.report.errors.append(f"bad values: {message}")

    def video(self) -> None:
        from app.live import CARRIED
        from spyolo.outputs import VideoFile

        path = self.folder / f"{self.draw.integers(1 << 30)}.webm"
        if self.draw.random() < 0.3:
            path.write_bytes(b"")
        else:
            with VideoFile(path, 10) as film:
                for _ in range(8):
                    film.add(self.draw.integers(0, 255, (96, 128, 3), dtype=np.uint8))
        empty = path.stat().st_size == 0
        *_, message = self.ask(handle_file(str(path)), 0.3, 0.5, CARRIED, 1, self.model, api_name="/video")
        if ("empty" if empty else "8 frames") not in message:
            self.report.errors.append(f"video: {message}")
        path.unlink()


def fits(shown: np.ndarray, image: np.ndarray) -> bool:
    """Whether a picture that came back is this one with its boxes: most of its pixels are, coding apart."""
    from spyolo.data.letterbox import resize

    small = resize(shown, image.shape[1], image.shape[0]).astype(int)
    return bool(np.median(np.abs(small - image)) < 12)


def load(weights: Path, folder: Path, users: int, seconds: float) -> Report:
    """Serve, visit, and look at what is left."""
    from app.models import short

    report, alone, model = Report(users, seconds), Alone(weights), short(weights, set())
    server = Server(folder / "server", "--weights", str(weights))
    try:
        until = time.monotonic() + seconds
        (folder / "pictures").mkdir()
        visitors = [Visitor(k, server.address, model, alone, folder / "pictures", until, report) for k in range(users)]
        for visitor in visitors:
            visitor.start()
        while any(visitor.is_alive() for visitor in visitors) and time.monotonic() < until + 300:
            report.memory.append(server.memory())
            time.sleep(1)
        settle = time.monotonic() + 120  # uploads are kept for half a minute, then a sweep every quarter takes them
        while server.files() and time.monotonic() < settle:
            time.sleep(1)
        report.left = server.files()
        if "Traceback" in (log := server.log.read_text()):
            report.errors.append(log[log.index("Traceback") :][-2000:])
    finally:
        server.stop()
    report.left += [str(p) for p in (folder / "server").glob("spyolo-demo-*")]  # the whole folder goes with the server
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=300)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(load(args.weights.resolve(), Path(folder), args.users, args.seconds).summary(), indent=1))


if __name__ == "__main__":
    main()
