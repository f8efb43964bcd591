"""Learning here without a browser: boxes by two clicks, updates, undo, saving."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from app.desk import Desk
from app.models import Models
from spyolo.checkpoint import load_detector
from spyolo.evaluation.energy import EnergyMeter


def boxed(tabs: SimpleNamespace, name: str, noise: str, visitor: Any, thing: str = "ring") -> Desk:
    """A desk with one picture and one box on it."""
    *_, message = tabs.learn.add_picture(noise, name, visitor)
    assert "Picture 1" in message
    zoom = 640 / 120  # small pictures are shown larger
    for x, y in ((30, 60), (90, 20)):
        tabs.learn.click(thing, SimpleNamespace(index=(x * zoom + 1, y * zoom + 1)), visitor)
    return tabs.sessions.of(visitor).recall(Desk)


def test_two_clicks_make_a_box_whichever_corner_comes_first(tabs: SimpleNamespace, name: str, noise: str, visitor: Any) -> None:
    desk = boxed(tabs, name, noise, visitor)
    assert desk.page.boxes == [(30, 20, 90, 60)] and desk.page.names == ["ring"]
    tabs.learn.take_back(visitor)
    assert desk.page.boxes == []


def test_learning_shows_every_update_and_undo_takes_it_back(tabs: SimpleNamespace, name: str, noise: str, visitor: Any) -> None:
    desk = boxed(tabs, name, noise, visitor)
    before = Path(tabs.learn.sight(tabs.sessions.of(visitor), desk, name)).read_bytes()
    *_, last = tabs.learn.teach(15, False, name, visitor)
    assert len(desk.losses) == 30 and desk.losses[-1] < desk.losses[0] and "30 updates" in last[2]
    seen, _, message = tabs.learn.go_back(visitor)
    assert Path(seen).read_bytes() == before and desk.losses == [] and "as it was" in message
    assert "nothing to undo" in tabs.learn.go_back(visitor)[2]


def test_the_shared_model_does_not_learn(tabs: SimpleNamespace, models: Models, name: str, noise: str, visitor: Any) -> None:
    before = {k: v.clone() for k, v in models.load(name).detector.state_dict().items()}
    boxed(tabs, name, noise, visitor)
    list(tabs.learn.teach(2, True, name, visitor))
    assert all(torch.equal(before[k], v) for k, v in models.load(name).detector.state_dict().items())


def test_a_new_name_becomes_a_class_and_is_saved(tabs: SimpleNamespace, name: str, noise: str, visitor: Any) -> None:
    desk = boxed(tabs, name, noise, visitor, "mug")
    list(tabs.learn.teach(1, False, name, visitor))
    _, message = tabs.learn.keep(visitor)
    (saved,) = (tabs.folder / "learned").glob("*.safetensors")
    assert saved.name in message and load_detector(saved)[1].classes[-1] == "mug"
    tabs.learn.keep(visitor)  # within the same second: another file
    assert len(list((tabs.folder / "learned").glob("*.safetensors"))) == 2
    tabs.learn.go_back(visitor)
    assert desk.lesson is not None and "mug" not in desk.lesson.classes


def saved_in(tabs: SimpleNamespace) -> set[Path]:
    return set((tabs.folder / "learned").glob("*.safetensors"))


def test_nothing_is_saved_or_undone_while_it_learns(tabs: SimpleNamespace, name: str, noise: str, visitor: Any) -> None:
    desk = boxed(tabs, name, noise, visitor)
    before = saved_in(tabs)
    learning = tabs.learn.teach(2, False, name, visitor)
    next(learning)
    assert desk.busy and "still learning" in tabs.learn.keep(visitor)[1] and "still learning" in tabs.learn.go_back(visitor)[2]
    assert saved_in(tabs) == before
    list(learning)
    assert "Saved" in tabs.learn.keep(visitor)[1]
    (saved,) = saved_in(tabs) - before
    saved.unlink()


@pytest.mark.parametrize("thing", ["![](http://x/a.png)", "<b>cup</b>", "a\x07b", "[cup](x)"])
def test_names_that_a_page_takes_for_more_than_text_are_refused(
    tabs: SimpleNamespace, name: str, noise: str, visitor: Any, thing: str
) -> None:  # fmt: skip
    tabs.learn.add_picture(noise, name, visitor)
    _, message = tabs.learn.click(thing, SimpleNamespace(index=(5, 5)), visitor)
    assert "a name is of letters, digits and spaces" in message


def test_two_users_learn_apart(tabs: SimpleNamespace, name: str, noise: str) -> None:
    one, two = SimpleNamespace(session_hash="one"), SimpleNamespace(session_hash="two")
    first, second = boxed(tabs, name, noise, one), boxed(tabs, name, noise, two)
    list(tabs.learn.teach(1, False, name, one))
    assert first.losses and not second.losses and second.lesson is not None and second.lesson.updates == 0


def test_starting_over_forgets_everything(tabs: SimpleNamespace, name: str, noise: str, visitor: Any) -> None:
    boxed(tabs, name, noise, visitor)
    tabs.learn.start_over(visitor)
    assert "no box yet" in next(tabs.learn.teach(1, False, name, visitor))[-1]


def test_another_model_keeps_the_pictures_and_starts_anew(tabs: SimpleNamespace, name: str, noise: str, visitor: Any) -> None:
    desk = boxed(tabs, name, noise, visitor)
    list(tabs.learn.teach(1, False, name, visitor))
    desk.model = "another"
    tabs.learn.other_model(name, visitor)
    assert len(desk.pages) == 1 and desk.losses == [] and desk.lesson is not None and desk.lesson.updates == 0


def test_another_model_chosen_while_it_learns_takes_nothing_away(
    tabs: SimpleNamespace, weights: Path, name: str, noise: str, visitor: Any
) -> None:
    other = shutil.copy(weights, weights.with_name("other.safetensors"))
    try:
        desk = boxed(tabs, name, noise, visitor)
        learning = tabs.learn.teach(10, False, name, visitor)
        next(learning)
        tabs.learn.other_model("other", visitor)
        assert "still learning" in tabs.learn.add_picture(noise, "other", visitor)[-1] and len(desk.pages) == 1
        tabs.learn.sight(tabs.sessions.of(visitor), desk, "other")  # of a picture that came just before
        *_, last = learning
    finally:
        Path(other).unlink()
    assert "20 updates" in last[2] and len(desk.losses) == 20
    assert desk.model == name and desk.lesson is not None and desk.lesson.updates == 20
    assert "as it was" in tabs.learn.go_back(visitor)[2]


def test_a_copy_is_not_made_of_a_model_that_another_visitor_measures(tabs: SimpleNamespace, models: Models, name: str) -> None:
    model, desk = models.load(name), Desk()
    with model.lock, EnergyMeter(model.detector):
        copying = threading.Thread(target=tabs.learn.lesson, args=(desk, name))
        copying.start()
        copying.join(0.5)
    copying.join()
    assert desk.lesson is not None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in desk.lesson.detector.modules())


@pytest.mark.parametrize("ask", ["learn", "save", "click", "undo"])
def test_too_early_is_told(tabs: SimpleNamespace, name: str, visitor: Any, ask: str) -> None:
    asked = {
        "learn": lambda: next(tabs.learn.teach(1, False, name, visitor)),
        "save": lambda: tabs.learn.keep(visitor),
        "click": lambda: tabs.learn.click("ring", SimpleNamespace(index=(3, 4)), visitor),
        "undo": lambda: tabs.learn.go_back(visitor),
    }
    assert "⚠️" in asked[ask]()[-1]
