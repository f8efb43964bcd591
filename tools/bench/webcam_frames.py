#!/usr/bin/env python3
"""500 frames of a webcam through the page: does it slow down, does it fill the memory?

    python tools/bench/webcam_frames.py --weights runs/sample/best.safetensors

Serves the page, opens it in headless Chromium with its fake camera, and notes for every frame how long the network took and how much
memory the server has. Needs Chromium and Playwright's Python package.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 500
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Frames of one stream."""

    times: list[float]  # seconds in the network, of each
    memory: list[float]  # MB of the server, after each

    @property
    def early(self) -> float:
        return float(np.median(self.times[20:70]))

    @property
    def late(self) -> float:
        return float(np.median(self.times[FRAMES - 50 : FRAMES]))

    @property
    def ratio(self) -> float:
        return self.late / self.early

    @property
    def grown(self) -> float:
        """MB from frame 70 to the last."""
        return self.memory[FRAMES - 1] - self.memory[70]


def resident() -> float:
    """Memory of this process in MB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1000 if found else 0.0


def watch_frames(browser: Any, address: str) -> Run:
    """Let the camera run for FRAMES frames on the page at `address`, which this process serves."""
    from app.live import Stream

    run, see = Run([], []), Stream.see

    def noting(stream: Stream, *asked: Any) -> Any:
        found = see(stream, *asked)
        run.times.append(stream.latencies[-1])
        run.memory.append(resident())
        return found

    with mock.patch.object(Stream, "see", noting):
        page = browser.new_context(viewport={"width": 1280, "height": 800}, permissions=["camera"]).new_page()
        page.set_default_timeout(300_000)
        page.goto(address)
        page.get_by_role("tab", name="Live video").locator("visible=true").click()
        page.get_by_text("Click to Access Webcam").click()
        page.get_by_label("capture photo").locator("visible=true").click()
        count = "Number(document.querySelectorAll('#camera-tiles b')[2]?.textContent)"
        page.wait_for_function(f"{count} >= {FRAMES}", timeout=600_000)
        page.context.close()
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from playwright.sync_api import sync_playwright

    from app.models import Models
    from app.page import build
    from app.server import launch
    from spyolo.neurons.fused import Compiling

    Compiling.enabled = False
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        address = launch(build(Models([], [args.weights]), Path(folder), Path(folder)))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        run = watch_frames(browser, address)
        browser.close()
        print(f"frames 20 to 70: {1000 * run.early:.1f} ms, 450 to 500: {1000 * run.late:.1f} ms, ratio {run.ratio:.2f}")
        print(f"memory: {run.memory[70]:.0f} MB at frame 70, {run.grown:+.1f} MB at frame {FRAMES}")


if __name__ == "__main__":
    main()
