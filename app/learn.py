"""Tab 3: learning on the spot. Box and name a few things; the copy of the head learns them online, update by update."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from spyolo.adaptation import Lesson
from spyolo.drawing import contact_sheet
from spyolo.errors import InputError
from spyolo.predictor import Predictor

from .desk import Desk, board
from .examples import Examples, offer
from .figures import boxed, loss_curve, zoom_of
from .models import Models
from .parts import TOLD_APART, by_path, read_upload, shown, told, unchecked, within
from .sessions import Session, Sessions

LARGEST = 800  # pixels, a side
MOST_ROUNDS = 40
WAITING = "Waiting for its turn: one visitor learns at a time."
MOST_SAVED = 50  # copies in the folder for them
STEPS = """**1** Give a picture. **2** Name a thing and click two opposite corners of it; box every thing of that kind.
**3** More pictures, if you have them. **4** Press *Learn*, and watch. Only a copy learns: the model stays as it is."""


class LearnTab:
    """Builds the tab and answers its events; weights are saved into `save_to`."""

    def __init__(self, models: Models, sessions: Sessions, chosen: gr.Dropdown, examples: Examples, save_to: Path) -> None:
        self.models, self.sessions, self.chosen, self.save_to = models, sessions, chosen, save_to
        self.saving = threading.Lock()
        gr.Markdown(STEPS)
        with gr.Row():
            with gr.Column(scale=5, min_width=300):
                self.upload = by_path(
                    gr.Image(
                        label="A picture", type="filepath", sources=["upload", "webcam", "clipboard"], height=200, elem_id="learn-picture"
                    )
                )
                first = models.load(models.first)
                self.examples = offer(examples, self.upload, first.drawn)
                known = list(first.classes)
                self.name = gr.Dropdown(
                    known, value=known[0], label="Name of the thing", info="or type a new one", allow_custom_value=True,
                    elem_id="learn-name",
                )  # fmt: skip
                self.board = shown("Click two opposite corners of the thing", 340, "board")
                with gr.Row():
                    self.unbox = gr.Button("Take back last box", size="sm", elem_id="unbox")
                    self.clear = gr.Button("Start over", size="sm", elem_id="start-over")
            with gr.Column(scale=5, min_width=300):
                self.rounds = unchecked(gr.Slider(1, MOST_ROUNDS, 10, step=1, label="Times each picture is shown", elem_id="rounds"))
                self.deeper = gr.Checkbox(
                    False, label="Let the last layers of neurons learn too", info="learns more, forgets more", elem_id="deeper"
                )
                with gr.Row():
                    self.learn = gr.Button("Learn", variant="primary", elem_id="learn")
                    self.undo = gr.Button("Undo", elem_id="undo")
                    self.save = gr.Button("Save", elem_id="save")
                self.message = gr.Markdown(elem_id="learn-message")
                self.sees = shown("What the copy sees now", 300, "learn-seen")
                gr.Markdown("**Loss after each update**")
                self.curve = gr.Plot(show_label=False, format="png", elem_id="loss")
        self._wire()

    def _wire(self) -> None:
        quiet = {"show_progress": "hidden", **TOLD_APART}
        seen = [self.board, self.sees, self.curve, self.message]
        self.upload.change(self.add_picture, [self.upload, self.chosen], seen, **quiet)
        self.board.select(self.click, self.name, [self.board, self.message], **quiet)
        self.unbox.click(self.take_back, None, [self.board, self.message], **quiet)
        self.clear.click(self.start_over, None, [*seen, self.upload], **quiet)
        self.learn.click(lambda: WAITING, None, self.message, queue=False, **quiet).then(
            self.teach, [self.rounds, self.deeper, self.chosen], [self.sees, self.curve, self.message], concurrency_limit=1, **quiet
        )
        self.undo.click(self.go_back, None, [self.sees, self.curve, self.message], **quiet)
        self.save.click(self.keep, None, [self.chosen, self.message], **quiet)
        self.chosen.change(self.other_model, self.chosen, [*seen, self.name], **quiet)

    def at(self, request: gr.Request) -> tuple[Session, Desk]:
        """The visitor who asks, and what is on their desk."""
        session = self.sessions.of(request)
        return session, session.recall(Desk)

    @told(4)
    def add_picture(self, upload: str | io.BytesIO | None, name: str, request: gr.Request) -> list[Any]:
        session, desk = self.at(request)
        self.sessions.keep_upload(session, upload)
        if upload is None:
            return [gr.skip()] * 4
        said = desk.add(lambda: read_upload(upload, LARGEST))
        return [self.board_of(session, desk), self.sight(session, desk, name), gr.skip(), said]

    @told(2)
    def click(self, name: str, event: gr.SelectData, request: gr.Request) -> list[Any]:
        session, desk = self.at(request)
        zoom = zoom_of(desk.page.image)
        said = desk.click(name, (int(event.index[0] / zoom), int(event.index[1] / zoom)))
        return [self.board_of(session, desk), said]

    @told(2)
    def take_back(self, request: gr.Request) -> list[Any]:
        session, desk = self.at(request)
        said = desk.take_back()
        return [self.board_of(session, desk), said]

    @told(5, 3)
    def start_over(self, request: gr.Request) -> list[Any]:
        session, desk = self.at(request)
        with desk.lock:
            if desk.busy:
                raise InputError("it is still learning")
            session.forget(Desk)
        return [None, None, None, "Started over: pictures, boxes and what was learned are gone.", None]

    @told(3)
    def teach(self, rounds: float, deeper: bool, name: str, request: gr.Request) -> Iterator[list[Any]]:
        """FPTT, one update a time step; the loss after each, the boxes as often as they can be drawn."""
        session, desk = self.at(request)
        if not any(page.boxes for page in desk.pages):
            raise InputError("no box yet: click two opposite corners of a thing")
        within("times each picture is shown", rounds, 1, MOST_ROUNDS)
        with desk.lock:
            if desk.busy:
                raise InputError("it is learning already")
            lesson = self.lesson(desk, name)
            desk.busy = True
        lesson.last_layers = deeper
        desk.marks.append(lesson.depth)
        try:
            for page in desk.pages:
                for thing in page.names:
                    lesson.add_class(thing)
            examples = [(page.image, page.objects(lesson.classes)) for page in desk.pages if page.boxes]
            drawn = 0.0
            for update in lesson.learn(examples, int(rounds)):
                desk.losses.append(update.loss)
                if session.ended:  # nobody watches any more
                    return
                said = f"Update {update.number}: loss {update.loss:.2f}"
                if time.perf_counter() - drawn < 0.25:  # the curve and boxes of this update come with the next ones
                    continue
                yield [self.sight(session, desk, name), loss_curve(desk.losses), said]
                drawn = time.perf_counter()
        finally:
            desk.busy = False
        said = f"**Learned** in {lesson.updates} updates: loss {desk.losses[0]:.2f} → {desk.losses[-1]:.2f}. Undo takes this back."
        yield [self.sight(session, desk, name), loss_curve(desk.losses), said]

    @told(3)
    def go_back(self, request: gr.Request) -> list[Any]:
        """Undo the last press of Learn, with the classes it brought."""
        session, desk = self.at(request)
        said = desk.undo()
        return [self.sight(session, desk, desk.model), loss_curve(desk.losses) if desk.losses else None, said]

    @told(2)
    def keep(self, request: gr.Request) -> list[Any]:
        """Save the copy as weights, and offer it among the models."""
        _, desk = self.at(request)
        with desk.lock, self.saving:  # it begins to learn under the desk's lock; a free name is free for one visitor only
            if desk.lesson is None or not desk.lesson.updates:
                raise InputError("nothing learned yet")
            if desk.busy:
                raise InputError("it is still learning; save it when it is done")
            path = self.free_path(desk.model)
            desk.lesson.save(path)
        return [gr.Dropdown(choices=self.models.choices()), f"**Saved** as `{path.name}`; it is among the models above."]

    def free_path(self, model: str) -> Path:
        """Where a copy may be saved. Raises InputError when so many are there that one visitor after the other could fill the disk."""
        if len(list(self.save_to.glob("*.safetensors"))) >= MOST_SAVED:
            raise InputError(f"{MOST_SAVED} copies are saved already; delete some from {self.save_to.name}/ first")
        stem = f"{model}-learned-{time.strftime('%Y%m%d-%H%M%S')}"
        paths = (self.save_to / f"{stem}{more}.safetensors" for more in ("", *(f"-{k}" for k in range(2, MOST_SAVED + 2))))
        return next(path for path in paths if not path.exists())

    @told(5, 3)
    def other_model(self, name: str, request: gr.Request) -> list[Any]:
        """Another model was chosen: the copy is made anew, the pictures stay."""
        (session, desk), classes = self.at(request), list(self.models.load(name).classes)
        names = gr.Dropdown(choices=classes, value=classes[0])
        with desk.lock:
            if desk.model == name or desk.busy:
                return [*[gr.skip()] * 4, names]
            desk.lesson, desk.model, desk.losses, desk.marks = None, name, [], []
        if not desk.pages:
            return [None, None, None, "", names]
        return [self.board_of(session, desk), self.sight(session, desk, name), None, "", names]

    def board_of(self, session: Session, desk: Desk) -> str | None:
        return session.picture("board", board(desk))

    def lesson(self, desk: Desk, name: str) -> Lesson:
        """The desk's copy of the model `name`, made where there is none; the one that is learning stays, whatever is chosen meanwhile."""
        model = self.models.load(name)
        with desk.lock:
            if desk.lesson is None or (desk.model != name and not desk.busy):
                with model.lock:  # a copy made while the meter's hooks are on would keep them for good
                    lesson = Lesson(model.detector, model.info)
                desk.lesson, desk.model, desk.losses, desk.marks = lesson, name, [], []
            return desk.lesson

    def sight(self, session: Session, desk: Desk, name: str) -> str | None:
        """What the copy sees on the lesson's pictures."""
        lesson = self.lesson(desk, name)
        predictor = Predictor(lesson.detector, lesson.info, device=self.models.device)
        seen = []
        for page in desk.pages:
            found = predictor.predict(page.image)
            seen.append(boxed(page.image, found, lesson.classes))
        sheet = seen[0] if len(seen) == 1 else contact_sheet(seen, columns=min(3, len(seen)))
        return session.picture("learn", sheet, keep=6)
