"""Pictures and a short video to try the page with, drawn by the sample set's own pen: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spyolo.data.sample_drawing import draw_picture
from spyolo.drawing import save_image
from spyolo.evaluation.video import camera, render
from spyolo.outputs import VideoFile

PICTURES = 4
FRAMES = 48
SEED = 7


def draw_examples(folder: Path) -> tuple[list[str], str]:
    """Draw the pictures and the video into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for k in range(PICTURES):
        image, _ = draw_picture(np.random.default_rng([SEED, k]))
        pictures.append(str(save_image(folder / f"drawn-{k + 1}.jpg", image)))
    return pictures, str(draw_video(folder / "drawn.webm"))


def draw_video(path: Path, size: int = 320) -> Path:
    """A camera moving over two drawn pictures, with a cut between them."""
    with VideoFile(path, fps=12) as video:
        for shot in range(2):
            draw = np.random.default_rng([SEED, 100 + shot])
            image, _ = draw_picture(draw)
            for view in camera(draw, image.shape[1], image.shape[0], size, FRAMES // 2):
                video.add(render(image, image.shape, view))
    return path
