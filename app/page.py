"""The page: a head, the choice of a model, and the tabs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gradio as gr

from .examples import make_examples
from .learn import LearnTab
from .live import WATCH_CAMERA, LiveTab
from .models import Model, Models, about
from .parts import TOLD_APART, told, unchecked
from .picture import PictureTab
from .sessions import Sessions

QUEUE = 40  # requests that may wait; further ones are refused with a message
HEAD = """# spyolo
A network of **spiking neurons** finds objects. Its neurons send short pulses and stay silent most of the time, which on suitable chips
costs little energy. Here you see what it finds, and every spike on the way there."""

CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
.meter-grid { display: grid; grid-template-columns: max-content max-content 1fr; gap: 6px 12px; align-items: center; font-size: 14px; }
.meter-track { height: 12px; border-radius: 6px; background: var(--border-color-primary); overflow: hidden; }
.meter-track > div { height: 100%; border-radius: 6px; min-width: 2px; }
.meter-value { font-variant-numeric: tabular-nums; text-align: right; }
.meter-title { font-weight: 600; margin-bottom: 8px; }
.meter-note { margin-top: 8px; font-size: 13px; color: var(--body-text-color-subdued); }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; }
.tile { flex: 1 1 60px; padding: 8px 12px; border-radius: 8px; border: 1px solid var(--border-color-primary); }
.tile b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; }
.tile span { font-size: 12px; color: var(--body-text-color-subdued); }
footer .divider { display: none; }
.gradio-container input[role="listbox"] { text-overflow: ellipsis; padding-right: 26px !important; }
#strip .grid-container { grid-template-columns: repeat(auto-fill, minmax(150px, 200px)) !important; }
#strip, #strip .grid-wrap, #strip .gallery-content, #strip .preview { height: auto !important; min-height: 0 !important; max-height: none; }
#strip .caption-label { font-size: 12px; }
#maps img { object-fit: contain; max-height: 560px; }
@media (max-width: 500px) {
  .gradio-container, .gradio-container .main, .gradio-container main { max-width: 100vw !important; min-width: 0 !important; }
  .gradio-container main { padding: 12px !important; }
  .gradio-container .column, .gradio-container .tabs { min-width: 0 !important; }
  .gradio-container button[role="tab"] { padding: 0 9px !important; font-size: 14px; }
  .tile { padding: 6px 8px; }
  .tile b { font-size: 15px; white-space: nowrap; }
  .meter-grid { grid-template-columns: 1fr max-content; gap: 2px 12px; }
  .meter-track { grid-column: 1 / -1; grid-row: auto; order: 0; margin-bottom: 6px; }
}
"""


def theme() -> gr.themes.Base:
    """System fonts only: nothing is fetched."""
    plain = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "sans-serif"]
    return gr.themes.Default(primary_hue="orange", neutral_hue="slate", font=plain, font_mono=["ui-monospace", "Consolas", "monospace"])


def of_kind(model: Model, count: int) -> list[dict[str, Any]]:
    """Of `count` lists of examples, drawn and photographed in turn, those that suit the model are shown."""
    return [gr.update(visible=model.drawn == (k % 2 == 0)) for k in range(count)]


def build(models: Models, folder: Path, save_to: Path) -> gr.Blocks:
    """The whole page.

    Args:
        models: what may be chosen.
        folder: where examples are drawn, uploads arrive and pictures are made; under the system's temporary folder.
        save_to: where learned weights go.
    """
    folder = folder.resolve()
    uploads = folder / "uploads"
    uploads.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # Gradio has no other way to be told; its parts ask when they are made
    sessions = Sessions(folder / "sessions", uploads).watch()
    gr.set_static_paths([folder / "examples", folder / "sessions"])  # served as they are: no copies that outlive the visit
    examples = make_examples(folder / "examples")
    with gr.Blocks(title="spyolo", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(HEAD)
        with gr.Row(equal_height=True):
            with gr.Column(scale=4, min_width=300):
                chosen = unchecked(
                    gr.Dropdown(models.choices(), value=models.first, label="Model", elem_id="model", filterable=False)
                )
            with gr.Column(scale=6, min_width=300):
                note = gr.Markdown(about(models.load(models.first), models.photographs), elem_id="about")
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Picture"):
                picture = PictureTab(models, sessions, chosen, examples)
            with gr.Tab("Live video"):
                live = LiveTab(models, sessions, chosen, examples)
            with gr.Tab("Learn here"):
                learn = LearnTab(models, sessions, chosen, examples, save_to)
        tell = told(1)(lambda name: about(models.load(name), models.photographs))
        chosen.change(tell, chosen, note, show_progress="hidden", **TOLD_APART)
        if examples.photographs:
            kinds = [shown for tab in (picture, live, learn) for shown in tab.examples]
            suit = told(len(kinds))(lambda name: of_kind(models.load(name), len(kinds)))
            chosen.change(suit, chosen, kinds, show_progress="hidden", **TOLD_APART)
        page.load(lambda: gr.Dropdown(choices=models.choices()), None, chosen, show_progress="hidden", **TOLD_APART)
        page.load(None, None, None, js=WATCH_CAMERA, **TOLD_APART)
        page.unload(sessions.end)
    page.sessions = sessions
    return page.queue(max_size=QUEUE, default_concurrency_limit=2)
