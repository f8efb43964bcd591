"""Network streams and cameras as sources of `predict`: read for real from this computer's own loopback address."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spyolo.cli import run
from spyolo.sources import Live, parse_source

FRAMES = 12


class Camera(BaseHTTPRequestHandler):
    """A camera of the network: JPEG pictures one after the other (MJPEG), then the end."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for k in range(FRAMES):
            picture = io.BytesIO()
            Image.fromarray(np.full((48, 64, 3), 20 * k, np.uint8)).save(picture, "JPEG")
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % picture.tell())
            self.wfile.write(picture.getvalue() + b"\r\n")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def camera() -> Iterator[str]:
    """Its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/stream.mjpg"
    server.shutdown()


def test_an_http_stream_gives_its_newest_frames_and_ends_with_it(camera: str) -> None:
    source = parse_source(camera)
    assert (source.kind, source.name) == ("live", "stream")
    with Live(source.address) as live:
        frames = list(live)
        assert 0 < len(frames) <= FRAMES and live.seen == len(frames) + live.dropped
    assert frames[-1].shape == (48, 64, 3) and abs(int(frames[-1].mean()) - 20 * (FRAMES - 1)) < 8


def test_predict_reads_an_http_stream(camera: str, weights_file: Path, tmp_path: Path) -> None:
    options = ["--weights", str(weights_file), "--source", camera, "--write", "pictures,jsonl", "--out", str(tmp_path)]
    assert run("predict", options) == 0
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert 0 < len(lines) <= FRAMES and (tmp_path / "stream.webm").stat().st_size > 0


@pytest.mark.parametrize("source", ["http://127.0.0.1:9/nothing", "rtsp://127.0.0.1:9/door", "99"])
def test_a_stream_or_camera_that_is_not_there_is_one_line(
    weights_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    assert run("predict", ["--weights", str(weights_file), "--source", source, "--out", str(tmp_path / "out")]) == 2
    assert "cannot be opened" in capsys.readouterr().err
