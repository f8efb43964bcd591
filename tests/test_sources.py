"""Sources: what `--source` means, video files, and live streams of which the newest frame counts."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from spyolo import sources
from spyolo.errors import InputError
from spyolo.outputs import VideoFile
from spyolo.sources import Live, Source, parse_source, video_frames, video_info


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Twelve frames of 64 x 48 at 10 a second, each brighter than the last."""
    with VideoFile(tmp_path / "film.webm", 10) as video:
        for k in range(12):
            video.add(np.full((48, 64, 3), 20 * k, np.uint8))
    return tmp_path / "film.webm"


class Camera:
    """A capture whose frames a test hands out one by one; None is the plug being pulled."""

    def __init__(self) -> None:
        self.given, self.frames, self.released = threading.Semaphore(0), list[np.ndarray | None](), False

    def show(self, *values: int | None) -> None:
        for value in values:
            self.frames.append(None if value is None else np.full((4, 6, 3), value, np.uint8))
            self.given.release()

    def isOpened(self) -> bool:
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.given.acquire()
        frame = self.frames.pop(0)
        return frame is not None, frame

    def release(self) -> None:
        self.released = True


def test_a_source_is_told_from_how_it_is_written(tmp_path: Path, film: Path) -> None:
    for name in ("b.jpg", "a.PNG", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert parse_source(str(tmp_path / "b.jpg")) == Source("pictures", (tmp_path / "b.jpg",))
    assert parse_source(str(tmp_path)).pictures == (tmp_path / "a.PNG", tmp_path / "b.jpg")
    assert parse_source(str(tmp_path / "*.jpg")).pictures == (tmp_path / "b.jpg",)
    assert parse_source(str(film)) == Source("video", address=str(film))
    assert parse_source("0") == Source("live", address=0)
    assert parse_source("rtsp://door/1") == Source("live", address="rtsp://door/1")
    assert [parse_source(text).name for text in (str(film), "2", "http://door/1")] == ["film", "camera2", "stream"]


def test_a_pattern_may_go_through_folders(tmp_path: Path) -> None:
    (tmp_path / "one" / "two").mkdir(parents=True)
    (tmp_path / "one" / "two" / "a.jpg").write_bytes(b"x")
    assert parse_source(str(tmp_path / "**" / "*.jpg")).pictures == (tmp_path / "one" / "two" / "a.jpg",)


@pytest.mark.parametrize("text", ["missing.jpg", "missing/*.jpg", "rtp//typo"])
def test_a_source_that_is_not_there_is_named(text: str) -> None:
    with pytest.raises(InputError, match=r"missing|typo"):
        parse_source(text)


def test_a_folder_without_pictures_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no pictures here.*\.jpg"):
        parse_source(str(tmp_path))


def test_a_video_gives_its_frames_in_order_as_rgb(film: Path) -> None:
    frames = list(video_frames(film))
    brightness = [float(frame.mean()) for frame in frames]
    assert len(frames) == 12 and frames[0].shape == (48, 64, 3)
    assert brightness == sorted(brightness) and brightness[-1] > 200
    info = video_info(film)
    assert (info.width, info.height, info.fps) == (64, 48, 10)


def test_a_film_that_was_cut_short_is_told(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    with VideoFile(tmp_path / "film.webm", 10) as video:
        for k in range(40):
            video.add(np.roll(picture, 3 * k, 1))
    whole = (tmp_path / "film.webm").read_bytes()
    (tmp_path / "half.webm").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"half.webm: \d+ of some 40 frames could be decoded; was the file cut short\?"):
        assert 5 < len(list(video_frames(tmp_path / "half.webm"))) < 35
    with warnings.catch_warnings(action="error"):
        assert len(list(video_frames(tmp_path / "film.webm"))) == 40


@pytest.mark.parametrize(("apart", "fps", "frames"), [(1000 / 30, 30, 0), (1, 1000, 2000)])
def test_a_rate_of_millisecond_stamps_is_taken_from_the_frames(
    monkeypatch: pytest.MonkeyPatch, apart: float, fps: float, frames: int
) -> None:  # fmt: skip
    class Recording:
        """A capture that says 1,000 frames a second and 2,000 in all, its frames so many ms apart."""

        shown = 0

        def get(self, key: int) -> float:
            told = {cv2.CAP_PROP_FPS: 1000.0, cv2.CAP_PROP_FRAME_COUNT: 2000.0, cv2.CAP_PROP_POS_MSEC: apart * self.shown}
            return told.get(key, 64.0)

        def grab(self) -> bool:
            self.shown += 1
            return self.shown <= 20

        def release(self) -> None:
            pass

    monkeypatch.setattr(sources, "open_video", lambda path: Recording())
    info = video_info("film.webm")
    assert (info.fps, info.frames) == (pytest.approx(fps), frames)


def test_colours_survive_a_video(tmp_path: Path) -> None:
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 220
    with VideoFile(tmp_path / "red.webm", 5) as video:
        video.add(red)
    (frame,) = video_frames(tmp_path / "red.webm")
    assert frame[..., 0].mean() > 180 and frame[..., 2].mean() < 60


@pytest.mark.parametrize(("content", "reason"), [(b"", "empty"), (b"no video at all", "cannot be read as a video")])
def test_what_is_no_video_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"bad.mp4.*{reason}"):
        next(video_frames(path))


def test_a_slow_reader_of_a_camera_gets_the_newest_frame() -> None:
    camera = Camera()
    with Live(0, capture=camera) as live:  # type: ignore[arg-type]
        frames = iter(live)
        camera.show(10)
        assert next(frames)[0, 0, 0] == 10
        camera.show(20, 30, 40)
        while live.seen < 4:  # the reader thread takes them while nobody asks
            threading.Event().wait(0.001)
        assert next(frames)[0, 0, 0] == 40
        assert live.dropped == 2
        camera.show(None)
    assert camera.released


def test_an_unplugged_camera_ends_the_stream() -> None:
    camera = Camera()
    with Live(0, capture=camera) as live:  # type: ignore[arg-type]
        camera.show(10, None)
        assert len(list(live)) <= 1  # and returns


def test_a_stream_that_falls_silent_ends_after_its_patience() -> None:
    camera = Camera()
    with Live(0, patience=0.05, capture=camera) as live:  # type: ignore[arg-type]
        assert list(live) == []
        camera.show(None)


def test_a_camera_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shut(Camera):
        def isOpened(self) -> bool:
            return False

    monkeypatch.setattr(cv2, "VideoCapture", lambda address: Shut())
    with pytest.raises(InputError, match="camera 7 cannot be opened"):
        Live(7)
