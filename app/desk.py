"""What one visitor of the tab Learn is at: pictures with their boxes, a copy of the model, and how its lesson went."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image, ImageDraw

from spyolo.adaptation import MAX_EXAMPLES, Lesson
from spyolo.boxes import Detections, Objects
from spyolo.errors import InputError

from .figures import boxed, zoom_of

MOST_BOXES = 100  # a picture
MARKUP = set("<>[]()!`*|#\\&$")  # what a page takes for more than text: names are shown to everybody


@dataclass
class Page:
    """One picture of the lesson, with the user's boxes."""

    image: np.ndarray
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def objects(self, classes: tuple[str, ...]) -> Objects:
        boxes = torch.tensor(self.boxes, dtype=torch.float32).reshape(-1, 4)
        labels = torch.tensor([classes.index(name) for name in self.names], dtype=torch.int64)
        return Objects(boxes, labels, torch.zeros(len(labels), dtype=torch.bool))


@dataclass
class Desk:
    """What one visitor is at: their pictures, their copy of the model, the curve so far."""

    pages: list[Page] = field(default_factory=list)
    corner: tuple[int, int] | None = None
    lesson: Lesson | None = None
    model: str = ""
    losses: list[float] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)  # how deep the copy's history was at each press of Learn
    busy: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)  # while the copy is chosen: `busy` is asked and set as one

    @property
    def page(self) -> Page:
        if not self.pages:
            raise InputError("give a picture first")
        return self.pages[-1]

    def add(self, read: Callable[[], np.ndarray]) -> str:
        """One more picture, read if there is room for it."""
        if self.busy:
            raise InputError("it is still learning; give the picture again when it is done")
        if len(self.pages) >= MAX_EXAMPLES:
            raise InputError(f"{MAX_EXAMPLES} pictures are enough here; press Learn, or start over")
        self.pages.append(Page(read()))
        self.corner = None
        return f"Picture {len(self.pages)}. Name a thing, then click two opposite corners of it."

    def click(self, name: str, point: tuple[int, int]) -> str:
        """First click: a corner. Second: the box."""
        page, name = self.page, (name or "").strip()
        if not 0 < len(name) <= 40:
            raise InputError("name the thing first: 1 to 40 characters")
        if not name.isprintable() or set(name) & MARKUP:
            raise InputError(f"a name is of letters, digits and spaces, without any of {' '.join(sorted(MARKUP))}")
        if self.corner is None:
            self.corner = point
            return "Now the opposite corner."
        (x1, x2), (y1, y2) = (sorted(pair) for pair in zip(self.corner, point))
        self.corner = None
        if min(x2 - x1, y2 - y1) < 4:
            return "⚠️ That box is too small; click two opposite corners."
        if len(page.boxes) >= MOST_BOXES:
            raise InputError(f"a picture takes at most {MOST_BOXES} boxes")
        page.boxes.append((x1, y1, x2, y2))
        page.names.append(name)
        count = sum(len(p.boxes) for p in self.pages)
        pictures = f"{len(self.pages)} picture{'' if len(self.pages) == 1 else 's'}"
        return f"{count} box{'' if count == 1 else 'es'} on {pictures}. Another one, or press Learn."

    def take_back(self) -> str:
        """The corner clicked, else the last box."""
        page = self.page
        if self.corner is not None:
            self.corner = None
        elif page.boxes:
            page.boxes.pop()
            page.names.pop()
        count = len(page.boxes)
        return f"{count} box{'' if count == 1 else 'es'} on this picture."

    def undo(self) -> str:
        """Back to before the last press of Learn, without the classes it brought."""
        with self.lock:
            if self.busy:
                raise InputError("it is still learning")
            if self.lesson is None or not self.marks:
                raise InputError("nothing to undo")
            if not self.lesson.can_go_back_to(self.marks[-1]):
                raise InputError("that is too long ago to undo; Start over begins anew")
            mark = self.marks.pop()
            while self.lesson.depth > mark:
                self.lesson.undo()
            self.losses = self.losses[: self.lesson.updates]
            return f"Undone: back to {self.lesson.updates} updates." if self.lesson.updates else "Undone: the copy is as it was at first."


def board(desk: Desk) -> np.ndarray:
    """The picture being boxed, enlarged if small, with the user's boxes and the first corner clicked."""
    page, zoom = desk.page, zoom_of(desk.page.image)
    known = tuple(dict.fromkeys(page.names))
    labels = torch.tensor([known.index(name) for name in page.names], dtype=torch.int64)
    found = Detections(torch.tensor(page.boxes, dtype=torch.float32).reshape(-1, 4), torch.ones(len(labels)), labels)
    image = boxed(page.image, found, known, scores=False)
    if desk.corner is None:
        return image
    canvas = Image.fromarray(image)
    pen, (x, y), arm = ImageDraw.Draw(canvas), (desk.corner[0] * zoom, desk.corner[1] * zoom), max(6, max(canvas.size) // 40)
    for width, colour in ((5, "white"), (2, "#d1224f")):
        pen.line((x - arm, y, x + arm, y), fill=colour, width=width)
        pen.line((x, y - arm, x, y + arm), fill=colour, width=width)
    return np.asarray(canvas)
