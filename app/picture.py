"""Tab 1: a picture, its boxes, and what the neurons did."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import gradio as gr

from spyolo.errors import InputError

from . import figures
from .examples import Examples, offer
from .insight import Sight, trace, watch
from .models import Models
from .parts import (
    MOST_STEPS,
    TOLD_APART,
    by_path,
    listed,
    picture_steps,
    predictor_for,
    read_upload,
    shown,
    threshold_sliders,
    told,
    unchecked,
    within,
)
from .sessions import Sessions

POINT = "**Click anywhere in “What the network sees”** to watch the neurons under that point, step by step."
NO_SPIKES = "An ordinary network has no spikes to show."
LAYERS_SHOWN = 3


@dataclass
class Looked:
    """What one visitor looks at."""

    sight: Sight | None = None
    point: tuple[int, int] | None = None  # clicked, in the picture's pixels


class PictureTab:
    """Builds the tab and answers its events.

    Args:
        models: what may be chosen.
        sessions: what each visitor's tab remembers.
        chosen: the page's model dropdown.
        examples: pictures offered below the drop zone.
    """

    def __init__(self, models: Models, sessions: Sessions, chosen: gr.Dropdown, examples: Examples) -> None:
        self.models, self.sessions, self.chosen = models, sessions, chosen
        first = models.load(models.first)
        with gr.Row():
            with gr.Column(scale=4, min_width=300):
                self.upload = by_path(
                    gr.Image(label="Your picture", type="filepath", sources=["upload", "clipboard"], height=260, elem_id="picture")
                )
                self.examples = offer(examples, self.upload, first.drawn)
                self.confidence, self.iou = threshold_sliders("picture", first.info.nms_iou)
                self.steps = unchecked(
                    gr.Slider(
                        1, MOST_STEPS, picture_steps(first), step=1, label="Time steps (T)", elem_id="picture-steps",
                        info="how long the neurons look: more steps, more energy", interactive=first.detector.spiking,
                    )
                )  # fmt: skip
            with gr.Column(scale=6, min_width=300):
                self.seen = shown("What the network sees", 400, "seen", buttons=["fullscreen", "download"])
                self.message = gr.Markdown("Drop a picture or choose one.", elem_id="picture-message")
                self.energy = gr.HTML(elem_id="energy")
        gr.Markdown("**After each time step**")
        self.strip = gr.Gallery(
            label="After each time step", show_label=False, columns=4, height="auto", object_fit="contain", elem_id="strip", buttons=[]
        )
        self._inside()
        self._wire()

    def _inside(self) -> None:
        with gr.Tabs(elem_id="inside"):
            with gr.Tab("Spikes"):
                order = "a row each below, from the eye to the decision"
                self.layers = unchecked(gr.Dropdown([], multiselect=True, label="Layers", info=order, elem_id="layers"))
                gr.Markdown("Each square is the picture as one layer sees it: bright where many of its neurons fired, black where none.")
                self.maps = gr.Image(
                    show_label=False, interactive=False, image_mode="RGBA", format="png", elem_id="maps", buttons=["fullscreen"]
                )
            with gr.Tab("Rates"):
                self.rates = gr.Plot(show_label=False, format="png", elem_id="rates")
            with gr.Tab("Membranes"):
                self.pointed = gr.Markdown(POINT, elem_id="pointed")
                self.layer = unchecked(gr.Dropdown([], label="Layer", elem_id="trace-layer"))
                self.trace = gr.Plot(show_label=False, format="png", elem_id="trace")
            with gr.Tab("Numbers"):
                self.numbers = gr.JSON(show_label=False, elem_id="numbers")

    def _wire(self) -> None:
        asked = [self.upload, self.confidence, self.iou, self.steps, self.chosen]
        told_all = [self.seen, self.strip, self.numbers, self.energy, self.message]
        drawn = [self.layers, self.maps, self.rates, self.layer]
        first = gr.on(
            [self.upload.change, self.confidence.release, self.iou.release, self.steps.release],
            self.detect, asked, told_all, api_name="detect", trigger_mode="always_last", concurrency_limit=2, concurrency_id="detect",
            api_description="Find objects in a picture. Give the picture, confidence (0..1), overlap (IoU, 0..1), time steps (1..16) and "
            "a model's name as the page lists it. Returns: the picture with boxes; a list of pictures, one a time step; the boxes as "
            '[{"class", "score", "box": [x1, y1, x2, y2]}] in pixels; the energy meter as HTML; a message (bad input is told there).',
        )  # fmt: skip
        switched = self.chosen.change(self.usual, self.chosen, [self.steps, self.iou], show_progress="hidden", **TOLD_APART).then(
            self.detect, asked, told_all, concurrency_limit=2, concurrency_id="detect", **TOLD_APART
        )
        for seen in (first, switched):
            seen.then(self.look_inside, [self.layers, self.layer], drawn, show_progress="hidden", **TOLD_APART)
        self.layers.input(self.draw_maps, self.layers, self.maps, show_progress="hidden", **TOLD_APART)
        pointed, traced = [self.layer, self.steps, self.chosen], [self.trace, self.pointed]
        self.seen.select(self.pick, None, None, show_progress="hidden", **TOLD_APART).then(
            self.draw_trace, pointed, traced, **TOLD_APART
        )
        self.layer.input(self.draw_trace, pointed, traced, **TOLD_APART)

    @told(2, message_at=None)  # `detect` comes next and says it
    def usual(self, name: str) -> list[Any]:
        """T and overlap that suit a model just chosen; an ordinary network has no steps to choose."""
        model = self.models.load(name)
        return [gr.Slider(value=picture_steps(model), interactive=model.detector.spiking), model.info.nms_iou]

    def detect(
        self, upload: str | io.BytesIO | None, confidence: float, iou: float, steps: float, name: str, request: gr.Request
    ) -> list[Any]:
        """Boxes on a picture. Bad input empties what was shown, so that no old boxes stand beside the message."""
        session = self.sessions.of(request)
        self.sessions.keep_upload(session, upload)
        looked = session.recall(Looked)
        try:
            model, image = self.models.load(name), read_upload(upload)
            sight = watch(model, predictor_for(model, confidence, iou, steps), image)
        except InputError as error:
            looked.sight = None
            return [None, None, None, "", f"⚠️ {error}" if upload is not None else "Drop a picture or choose one."]
        if looked.sight is None or looked.sight.image.shape != image.shape:
            looked.point = None
        looked.sight, found = sight, sight.steps[-1]
        said = f"**{len(found)} object{'' if len(found) == 1 else 's'} found.**" if len(found) else nothing(model.drawn)
        energy = figures.energy_html(sight.energy, model.detector.spiking)
        boxed = session.picture("seen", figures.boxed(image, found, model.classes))
        strip = [
            (path, caption)
            for t, (step, caption) in enumerate(figures.strip(sight, model.classes))
            if (path := session.picture(f"step{t}", step))
        ]
        return [boxed, strip, listed(found, model.classes), energy, said]

    def look_inside(self, layers: list[str], layer: str | None, request: gr.Request) -> list[Any]:
        """Choices of layers, maps and rates for the picture just seen."""
        session = self.sessions.of(request)
        sight = session.recall(Looked).sight
        if sight is None or not sight.maps:
            return [gr.Dropdown(choices=[], value=[], multiselect=True), None, None, gr.Dropdown(choices=[], value=None)]
        names = list(sight.maps)
        kept = [name for name in layers or [] if name in sight.maps] or [names[0], names[len(names) // 2], names[-1]][:LAYERS_SHOWN]
        one = layer if layer in sight.maps else names[0]
        maps, rates = session.picture("maps", figures.spike_maps(sight, kept)), figures.rate_bars(sight)
        return [gr.Dropdown(choices=names, value=kept, multiselect=True), maps, rates, gr.Dropdown(choices=names, value=one)]

    def draw_maps(self, layers: list[str], request: gr.Request) -> str | None:
        session = self.sessions.of(request)
        sight = session.recall(Looked).sight
        return None if sight is None else session.picture("maps", figures.spike_maps(sight, layers))

    def pick(self, event: gr.SelectData, request: gr.Request) -> None:
        """Note where the picture was clicked, in its own pixels."""
        looked = self.sessions.of(request).recall(Looked)
        if looked.sight is not None:
            zoom = figures.zoom_of(looked.sight.image)
            looked.point = int(event.index[0] / zoom), int(event.index[1] / zoom)

    @told(2)
    def draw_trace(self, layer: str | None, steps: float, name: str, request: gr.Request) -> list[Any]:
        looked = self.sessions.of(request).recall(Looked)
        sight, point = looked.sight, looked.point
        if sight is not None and not sight.maps:
            return [None, NO_SPIKES]
        if sight is None or point is None or layer is None:
            return [None, POINT]
        model = self.models.load(name)
        within("time steps", steps, 1, MOST_STEPS)
        if layer not in sight.maps:
            raise InputError("this model has no such layer; show a picture first")
        seen = trace(model, model.predictor(), sight.image, layer, *point)
        return [figures.membrane(seen, int(steps)), f"The liveliest neurons of **{layer}** under pixel {point[0]}, {point[1]}."]


def nothing(drawn: bool) -> str:
    """What to try next."""
    known = " This model knows drawn shapes only, so give it a drawn picture." if drawn else ""
    return f"**Nothing found.** A lower confidence may show more.{known}"
