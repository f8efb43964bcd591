"""Pictures and a short video to try the page with; nothing is downloaded.

For models of drawn shapes they are drawn by the sample set's own pen. For models of photographs they are photographs that come along with
the packages the page needs anyway (Matplotlib's sample portrait, Gradio's animals).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import matplotlib
import numpy as np

from spyolo.data import read_image
from spyolo.data.sample_drawing import draw_picture
from spyolo.drawing import save_image
from spyolo.errors import InputError
from spyolo.evaluation.video import camera, render
from spyolo.outputs import VideoFile

PICTURES = 4
FRAMES = 48
SEED = 7


@dataclass(frozen=True)
class Examples:
    """Files to try: of drawn shapes, and photographs (none where no package brings any)."""

    drawn: list[str]
    drawn_video: str
    photographs: list[str]
    photograph_video: str | None


def make_examples(folder: Path) -> Examples:
    """Write the pictures and videos into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [draw_picture(np.random.default_rng([SEED, k]))[0] for k in range(PICTURES)]
    shots = [draw_picture(np.random.default_rng([SEED, 100 + k]))[0] for k in range(2)]
    photographs = find_photographs()
    return Examples(
        [str(save_image(folder / f"drawn-{k}.jpg", image)) for k, image in enumerate(drawn, 1)],
        str(make_video(folder / "drawn.webm", shots)),
        [str(save_image(folder / f"photograph-{k}.jpg", image)) for k, image in enumerate(photographs, 1)],
        str(make_video(folder / "photograph.webm", photographs[:2])) if photographs else None,
    )


def find_photographs() -> list[np.ndarray]:
    """Those of the installed packages."""
    animals = Path(gr.__file__).parent / "media_assets" / "images"
    portrait = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    found = []
    for path in (portrait, animals / "lion.jpg", animals / "cheetah1.jpg"):
        try:
            found.append(read_image(path))
        except InputError:
            continue  # a package that was made smaller
    return found


def make_video(path: Path, pictures: Sequence[np.ndarray], size: int = 320) -> Path:
    """A camera moving over pictures, with a cut between them."""
    with VideoFile(path, fps=12) as video:
        for k, image in enumerate(pictures):
            draw = np.random.default_rng([SEED, 200 + k])
            for view in camera(draw, image.shape[1], image.shape[0], size, FRAMES // len(pictures)):
                video.add(render(image, image.shape, view))
    return path


def offer(examples: Examples, upload: gr.components.Component, drawn: bool, video: bool = False) -> tuple[gr.Dataset, gr.Dataset | None]:
    """Both kinds below an upload, of which the model's own kind is shown; returns what shows them."""
    ours = gr.Examples(
        [examples.drawn_video] if video else examples.drawn, upload, label="or one of these, drawn for trying out", cache_examples=False,
        visible=drawn or not examples.photographs,
    )  # fmt: skip
    if not examples.photographs:
        return ours.dataset, None
    photographs = [examples.photograph_video] if video else examples.photographs
    theirs = gr.Examples(photographs, upload, label="or one of these", cache_examples=False, visible=not drawn)
    return ours.dataset, theirs.dataset
