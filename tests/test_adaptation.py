"""Learning on the spot: a copy learns, the original does not; undo; new classes; what is saved is what was learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spyolo.adaptation import Lesson, with_more_classes
from spyolo.boxes import Objects
from spyolo.checkpoint import WeightsInfo, load_detector
from spyolo.detection import SpikingYOLO, build_detector
from spyolo.errors import InputError
from spyolo.predictor import Predictor

CLASSES = ("cat", "dog")


@pytest.fixture
def model() -> tuple[SpikingYOLO, WeightsInfo]:
    torch.manual_seed(0)
    detector = build_detector("spyv4_lite", 2, width=0.05).eval()
    return detector, WeightsInfo(detector.spec, CLASSES, size=64, timesteps=2, metrics={"voc10_ap50": 0.5})


@pytest.fixture
def example() -> tuple[np.ndarray, Objects]:
    """A bright square, which is a dog."""
    image = np.full((64, 96, 3), 40, np.uint8)
    image[16:48, 24:56] = (230, 200, 60)
    return image, Objects(torch.tensor([[24.0, 16.0, 56.0, 48.0]]), torch.tensor([1]), torch.tensor([False]))


def outputs(detector: SpikingYOLO, image: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return detector(torch.from_numpy(image[:64, :64].copy()).permute(2, 0, 1)[None])[0][0]


def test_a_lesson_lowers_the_loss_and_finds_the_object(model: tuple[SpikingYOLO, WeightsInfo], example: tuple[np.ndarray, Objects]) -> None:
    lesson = Lesson(*model, lr=0.05)
    losses = [update.loss for update in lesson.learn([example], rounds=40)]
    assert len(losses) == 80  # one a time step
    assert losses[-1] < losses[0] / 2
    best = Predictor(lesson.detector, lesson.info, confidence=0.01).predict(example[0])[:1]
    assert best.labels.tolist() == [1]


def test_the_detector_handed_in_and_the_body_of_the_copy_stay(
    model: tuple[SpikingYOLO, WeightsInfo], example: tuple[np.ndarray, Objects]
) -> None:
    before = {k: v.clone() for k, v in model[0].state_dict().items()}
    lesson = Lesson(*model)
    list(lesson.learn([example], rounds=2))
    after = lesson.detector.state_dict()
    assert all(torch.equal(before[k], v) for k, v in model[0].state_dict().items())
    changed = {k.split(".")[0] for k, v in after.items() if not torch.equal(before[k], v)}
    assert changed == {"heads"}


def test_the_last_layers_learn_too_if_wished(model: tuple[SpikingYOLO, WeightsInfo], example: tuple[np.ndarray, Objects]) -> None:
    lesson = Lesson(*model, last_layers=True)
    before = {k: v.clone() for k, v in lesson.detector.state_dict().items()}
    list(lesson.learn([example], rounds=2))
    changed = {".".join(k.split(".")[:2]) for k, v in lesson.detector.state_dict().items() if not torch.equal(before[k], v)}
    assert {"neck.fine", "neck.coarse"} <= changed and not any(name.startswith("backbone") for name in changed)


def test_undo_takes_back_one_lesson_after_the_other(model: tuple[SpikingYOLO, WeightsInfo], example: tuple[np.ndarray, Objects]) -> None:
    lesson = Lesson(*model)
    first = outputs(lesson.detector, example[0])
    list(lesson.learn([example], rounds=2))
    second = outputs(lesson.detector, example[0])
    list(lesson.learn([example], rounds=2))
    assert lesson.undo() and torch.equal(outputs(lesson.detector, example[0]), second) and lesson.updates == 4
    assert lesson.undo() and torch.equal(outputs(lesson.detector, example[0]), first) and lesson.updates == 0
    assert not lesson.undo()


def test_undo_goes_through_lessons_of_different_depth(model: tuple[SpikingYOLO, WeightsInfo], example: tuple[np.ndarray, Objects]) -> None:
    lesson = Lesson(*model)
    before = {k: v.clone() for k, v in lesson.detector.state_dict().items()}
    for last_layers in (False, True, False):
        lesson.last_layers = last_layers
        lesson.add_class("mug")
        list(lesson.learn([example], rounds=1))
    while lesson.undo():
        pass
    after = lesson.detector.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(before[k], after[k]) for k in before)


def test_what_undo_remembers_is_the_head_alone(model: tuple[SpikingYOLO, WeightsInfo], example: tuple[np.ndarray, Objects]) -> None:
    lesson = Lesson(*model)
    list(lesson.learn([example], rounds=1))
    kept = sum(v.numel() for v in lesson._past[-1].weights.values())
    assert kept < 0.1 * sum(v.numel() for v in lesson.detector.state_dict().values())


def test_a_new_class_leaves_the_others_as_they_were(model: tuple[SpikingYOLO, WeightsInfo], example: tuple[np.ndarray, Objects]) -> None:
    detector, _ = model
    torch.nn.init.normal_(detector.heads[0].conv.weight)
    torch.nn.init.normal_(detector.heads[0].leak)
    anchors = len(detector.anchors[0])
    before = outputs(detector, example[0]).unflatten(1, (anchors, 7))
    after = outputs(with_more_classes(detector, 1), example[0]).unflatten(1, (anchors, 8))
    assert torch.allclose(after[:, :, :7], before, atol=1e-5)


def test_a_new_class_is_learned_and_undone(model: tuple[SpikingYOLO, WeightsInfo], example: tuple[np.ndarray, Objects]) -> None:
    lesson = Lesson(*model, lr=0.05)
    assert lesson.add_class(" mug ") == 2 and lesson.add_class("cat") == 0
    image, objects = example
    mug = Objects(objects.boxes, torch.tensor([2]), objects.difficult)
    list(lesson.learn([(image, mug)], rounds=40))
    assert Predictor(lesson.detector, lesson.info, confidence=0.01).predict(image).labels[0] == 2
    assert lesson.undo() and lesson.undo()
    assert lesson.classes == CLASSES and lesson.detector.spec == model[1].spec


def test_what_is_saved_is_what_was_learned(
    model: tuple[SpikingYOLO, WeightsInfo], example: tuple[np.ndarray, Objects], tmp_path: Path
) -> None:
    lesson = Lesson(*model)
    lesson.add_class("mug")
    list(lesson.learn([example], rounds=1))
    lesson.save(tmp_path / "mine.safetensors")
    detector, info = load_detector(tmp_path / "mine.safetensors")
    assert torch.equal(outputs(detector, example[0]), outputs(lesson.detector, example[0]))
    assert info.classes == ("cat", "dog", "mug") and info.metrics == {} and info.notes["adaptation_updates"] == 2


@pytest.mark.parametrize(("count", "told"), [(0, "1 to 16"), (17, "1 to 16"), (-1, "no picture has a box")])
def test_lessons_without_matter_are_refused(
    model: tuple[SpikingYOLO, WeightsInfo], example: tuple[np.ndarray, Objects], count: int, told: str
) -> None:
    examples = [example] * count if count >= 0 else [(example[0], Objects.empty())]
    with pytest.raises(InputError, match=told):
        next(Lesson(*model).learn(examples))


@pytest.mark.parametrize("name", ["", "   ", "x" * 41])
def test_a_class_needs_a_sensible_name(model: tuple[SpikingYOLO, WeightsInfo], name: str) -> None:
    with pytest.raises(InputError, match="1 to 40 characters"):
        Lesson(*model).add_class(name)


@pytest.mark.parametrize(
    ("shape", "label", "told"),
    [
        ((64, 96, 3), 5, "label 5 is none of the 2 classes"),
        ((64, 96, 3), -1, "label -1 is none of the 2 classes"),
        ((64, 96), 1, r"takes pictures, uint8 \[H, W, 3\]; got an array of uint8 \[64, 96\]"),
        ((64, 96, 4), 1, r"got an array of uint8 \[64, 96, 4\]"),
        ((64, 96, 1), 1, r"got an array of uint8 \[64, 96, 1\]"),
    ],
)
def test_a_lesson_that_is_refused_leaves_nothing_to_undo(
    model: tuple[SpikingYOLO, WeightsInfo], shape: tuple[int, ...], label: int, told: str
) -> None:
    lesson = Lesson(*model)
    objects = Objects(torch.tensor([[24.0, 16.0, 56.0, 48.0]]), torch.tensor([label]), torch.tensor([False]))
    with pytest.raises(InputError, match=told):
        next(lesson.learn([(np.zeros(shape, np.uint8), objects)]))
    assert lesson.depth == 0


def test_what_a_lesson_takes_and_remembers_has_an_end(
    model: tuple[SpikingYOLO, WeightsInfo], example: tuple[np.ndarray, Objects], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A visitor who goes on pressing Learn would fill the memory of the demo."""
    monkeypatch.setattr("spyolo.adaptation.MAX_PAST", 3)
    monkeypatch.setattr("spyolo.adaptation.MAX_NEW", 2)
    lesson = Lesson(*model)
    for k in range(2):
        lesson.add_class(f"new {k}")
    with pytest.raises(InputError, match="a lesson teaches at most 2 new names"):
        lesson.add_class("one more")
    for _ in range(3):
        list(lesson.learn([example], rounds=1))
    assert lesson.depth == 5 and not lesson.can_go_back_to(1) and lesson.can_go_back_to(2)
    assert [lesson.undo() for _ in range(4)] == [True, True, True, False] and lesson.depth == 2
