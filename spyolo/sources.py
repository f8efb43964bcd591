"""Where pictures come from: a file, a folder, a pattern, a video, a camera, a network stream.

    source = parse_source("holiday/*.jpg")     # or "film.mp4", "0" (the first camera), "rtsp://..."

Frames are RGB, uint8 [H, W, 3]. A video file gives every frame in order; a camera or network stream gives the newest one whenever it is
asked, so that a slow reader falls behind in frames, never in time.
"""

from __future__ import annotations

import glob
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

import cv2
import numpy as np

from spyolo.data.images import MAX_PIXELS
from spyolo.errors import InputError
from spyolo.files import shortened

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".avif", ".tif", ".tiff", ".gif"})
VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ogv", ".wmv", ".flv", ".ts"})
MOST_CAMERA = 9999  # OpenCV counts the ways to reach a camera in hundreds
LIKELY_FPS = 240  # more than that is looked into
TIMED_FRAMES = 30
STREAMS = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://")


@dataclass(frozen=True)
class Source:
    """What `--source` means."""

    kind: Literal["pictures", "video", "live"]
    pictures: tuple[Path, ...] = ()
    address: str | int = ""  # video: its file; live: a camera's number, or a URL

    @property
    def name(self) -> str:
        """A name for files made from it."""
        if self.kind == "video":
            return Path(self.address).stem  # type: ignore[arg-type]
        return f"camera{self.address}" if isinstance(self.address, int) else "stream" if self.kind == "live" else "pictures"


def parse_source(text: str) -> Source:
    """Tell what a source is from how it is written, and that it is there. A file of that very name wins over a pattern or a number.

    Raises:
        InputError: nothing there, a folder or pattern without pictures, or a number that no camera has.
    """
    path = Path(text)
    if text.lower().startswith(STREAMS):
        return Source("live", address=text)
    if path.is_file():
        return Source("video", address=text) if path.suffix.lower() in VIDEOS else Source("pictures", (path,))
    if path.is_dir():
        found = tuple(sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES))
        if not found:
            raise InputError(f"{text}: no pictures here (looked for {', '.join(sorted(PICTURES))})")
        return Source("pictures", found)
    if text.isdecimal():
        if len(text) > len(str(MOST_CAMERA)):
            raise InputError(f"{shortened(text)}: cameras are numbered from 0 to {MOST_CAMERA}")
        return Source("live", address=int(text))
    if glob.has_magic(text):
        found = tuple(sorted(Path(p) for p in glob.glob(text, recursive=True) if Path(p).suffix.lower() in PICTURES))
        if not found:
            raise InputError(f"{text}: no picture's name fits this pattern")
        return Source("pictures", found)
    raise InputError(f"{text}: no such picture or folder, nor is it a pattern, a camera's number or the address of a stream")


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says of itself; 0 where it does not."""

    width: int
    height: int
    fps: float
    frames: int


def open_video(path: str | Path) -> cv2.VideoCapture:
    """A checked video file.

    Raises:
        InputError: missing, empty, no video, or with frames too large.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise InputError(f"{path} cannot be read as a video (the file is empty)")
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise InputError(f"{path} cannot be read as a video; try an .mp4 or .webm file")
    info = describe(capture)
    if info.width * info.height > MAX_PIXELS:
        capture.release()
        raise InputError(f"{path}: frames of {info.width} x {info.height} are more than {MAX_PIXELS:,} pixels; make it smaller first")
    return capture


def describe(capture: cv2.VideoCapture) -> VideoInfo:
    def value(key: int) -> float:
        found = capture.get(key)
        return found if 0 < found < 1e9 else 0.0  # absent values come as 0, negative, or huge

    width, height, frames = (round(value(k)) for k in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_COUNT))
    return VideoInfo(width, height, value(cv2.CAP_PROP_FPS), frames)


def video_info(path: str | Path) -> VideoInfo:
    """Size, rate and length of a video file. Raises InputError as `open_video`.

    Recorders that stamp milliseconds say 1,000 frames a second, and a length in these: an unlikely rate is taken from the stamps of the
    first frames instead, and the length counts as unknown.
    """
    capture = open_video(path)
    try:
        info = describe(capture)
        if info.fps <= LIKELY_FPS:
            return info
        stamps = [capture.get(cv2.CAP_PROP_POS_MSEC) for _ in range(TIMED_FRAMES) if capture.grab()]
        took = stamps[-1] - stamps[0] if stamps else 0.0
        fps = 1000 * (len(stamps) - 1) / took if took > 0 else 0.0
        return info if fps > LIKELY_FPS else replace(info, fps=fps, frames=0)
    finally:
        capture.release()


def video_frames(path: str | Path) -> Iterator[np.ndarray]:
    """Every frame of a video file, in order. Warns where clearly fewer can be decoded than the file says it has.

    Raises:
        InputError: as `open_video`, or not one frame can be decoded.
    """
    promised = video_info(path).frames
    capture, count = open_video(path), 0
    try:
        while (frame := capture.read()[1]) is not None:
            count += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()
    if not count:
        raise InputError(f"{path} has no frame that can be decoded; try an .mp4 or .webm file")
    if count < 0.9 * promised - 1:  # containers that only estimate are off by less
        warnings.warn(f"{path}: {count} of some {promised} frames could be decoded; was the file cut short?", stacklevel=2)


class Live:
    """The newest frame of a camera or network stream, read by a thread of its own so that nothing queues up.

        with Live(0) as camera:
            for frame in camera: ...

    Iteration ends when the stream does: the camera was unplugged, or the sender stopped.

    Args:
        address: a camera's number, or a URL.
        patience: seconds without a frame after which the stream counts as ended.
        capture: an opened capture, in place of the address (for tests, and for pipelines of one's own).

    Raises:
        InputError: no such camera, or nothing answers at the address.
    """

    def __init__(self, address: str | int, patience: float = 10.0, capture: cv2.VideoCapture | None = None) -> None:
        self.address, self.patience = address, patience
        self.capture = capture or cv2.VideoCapture(address)
        if not self.capture.isOpened():
            what = f"camera {address}" if isinstance(address, int) else str(address)
            raise InputError(f"{what} cannot be opened; is it connected, and used by no other program?")
        self.seen = self.dropped = 0  # frames that arrived; of these, frames nobody asked for in time
        self._frame: np.ndarray | None = None
        self._ended = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, name=f"frames of {address}", daemon=True)

    def _read(self) -> None:
        while not self._ended:
            good, frame = self.capture.read()
            with self._news:
                self.dropped += good and self._frame is not None
                self.seen += good
                self._frame, self._ended = (frame, self._ended) if good else (self._frame, True)
                self._news.notify()

    def __enter__(self) -> Live:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended = True
        self._thread.join(self.patience)
        if not self._thread.is_alive():  # a read that hangs keeps the capture: releasing it under the reader would crash
            self.capture.release()

    def __iter__(self) -> Iterator[np.ndarray]:
        while (frame := self._newest()) is not None:
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    def _newest(self) -> np.ndarray | None:
        until = time.monotonic() + self.patience
        with self._news:
            while self._frame is None and not self._ended and (left := until - time.monotonic()) > 0:
                self._news.wait(left)
            frame, self._frame = self._frame, None
            return frame
