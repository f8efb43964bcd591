"""Boxes on pictures, sheets, and files that are whole or not there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spyolo.drawing import class_colour, contact_sheet, draw_boxes, save_image
from spyolo.errors import InputError
from spyolo.files import write_whole

CLASSES = ("cat", "dog")


def test_a_box_is_drawn_in_its_colour_and_the_picture_stays():
    image = np.zeros((100, 120, 3), np.uint8)
    drawn = draw_boxes(image, torch.tensor([[30.0, 40, 80, 90]]), torch.tensor([1]), CLASSES, scores=torch.tensor([0.5]))
    assert image.max() == 0 and drawn.shape == image.shape
    assert tuple(drawn[40, 60]) == tuple(drawn[89, 60]) == tuple(drawn[60, 30]) == tuple(drawn[60, 79]) == class_colour(1)
    assert drawn[60, 55].max() == 0  # hollow


def test_truth_is_dashed_and_predictions_are_not():
    image, box = np.zeros((100, 120, 3), np.uint8), np.array([[30.0, 40, 80, 90]])
    rims = {style: draw_boxes(image, box, [0], CLASSES, style=style)[89, 30:80].any(1).mean() for style in ("truth", "prediction")}
    assert rims["prediction"] == 1 and 0.3 < rims["truth"] < 0.8


@pytest.mark.parametrize("box", [[0, 0, 120, 100], [-50, -50, 300, 300], [119, 99, 120, 100], [5, 5, 5, 5]])
def test_boxes_at_and_over_the_rim_still_get_a_readable_name(box):
    drawn = draw_boxes(np.zeros((100, 120, 3), np.uint8), np.array([box], float), [0], CLASSES)
    assert (drawn == class_colour(0)).all(2).sum() > 100


def test_nothing_to_draw_and_a_picture_one_cannot_write_to():
    image = np.full((20, 20, 3), 7, np.uint8)
    image.flags.writeable = False
    assert np.array_equal(draw_boxes(image, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), CLASSES), image)


def test_neighbouring_classes_look_different():
    colours = np.array([class_colour(k) for k in range(20)], float)
    assert min(np.linalg.norm(colours[k] - colours[k + 1]) for k in range(19)) > 100


def test_a_sheet_has_room_for_all():
    wide, tall, square = np.zeros((10, 20, 3), np.uint8), np.full((20, 10, 3), 9, np.uint8), np.zeros((5, 5, 3), np.uint8)
    sheet = contact_sheet([wide, tall, square], columns=2, side=40, gap=2)
    assert sheet.shape == (2 * 42 + 2, 2 * 42 + 2, 3)
    assert (sheet[60, 60] == 255).all() and (sheet[22, 22] == 0).all() and (sheet[22, 64] == 9).all()
    assert contact_sheet([], columns=3).ndim == 3


def test_saving_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = save_image(tmp_path / "new" / "a.png", np.full((4, 4, 3), 7, np.uint8))
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"b\.xyz: \.xyz is no kind of picture"):
        save_image(tmp_path / "b.xyz", np.zeros((4, 4, 3), np.uint8))
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match=r"a\.png cannot be written \(No space left on device\)"):
        save_image(path, np.zeros((4, 4, 3), np.uint8))
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_whole(tmp_path / "file" / "a.txt", "hello")
