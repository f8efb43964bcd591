"""A picture keeps its proportions, and boxes find their way there and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spyolo.data import Letterbox, letterbox


def test_a_wide_picture_gets_bars_above_and_below():
    canvas, place = letterbox(np.full((50, 100, 3), 200, np.uint8), 64)
    assert (place.scale, place.left, place.top, place.size) == (0.64, 0, 16, (64, 64))
    assert (canvas[16:48] == 200).all() and (canvas[:16] == 114).all() and (canvas[48:] == 114).all()


def test_a_small_picture_grows_and_another_fill_is_used():
    canvas, place = letterbox(np.full((20, 10, 3), 9, np.uint8), 40, fill=0)
    assert place.scale == 2 and place.left == 10 and (canvas[:, 10:30] == 9).all() and (canvas[:, :10] == 0).all()


def test_a_canvas_need_not_be_square():
    canvas, place = letterbox(np.zeros((50, 100, 3), np.uint8), (64, 160))
    assert canvas.shape == (64, 160, 3) and place.scale == pytest.approx(1.28) and (place.left, place.top) == (16, 0)


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (7, 900), (64, 64), (1080, 1920)])
def test_boxes_come_back_from_the_canvas(shape):
    height, width = shape
    place = Letterbox.fit(width, height, 416)
    boxes = torch.tensor([[0.0, 0.0, width, height], [width / 4, height / 3, width / 2, height / 2]])
    on_canvas = place.to_canvas(boxes)
    assert on_canvas.min() >= 0 and on_canvas.max() <= 416.5
    assert torch.allclose(place.to_picture(on_canvas), boxes, atol=1e-3)


def test_the_box_lies_on_the_thing_it_was_drawn_around():
    """A white rectangle in a black picture is found under its moved box, to a canvas pixel."""
    image = np.zeros((300, 400, 3), np.uint8)
    image[60:180, 100:340] = 255
    canvas, place = letterbox(image, 160)
    rows, columns = np.nonzero(canvas[..., 0] > 127 + 60)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.allclose(found, place.to_canvas(torch.tensor([[100.0, 60, 340, 180]]))[0].numpy(), atol=1)


def test_shrinking_averages():
    """Fine stripes become grey instead of aliasing to black or white."""
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    canvas, _ = letterbox(stripes, 100)
    assert abs(canvas.astype(int) - 127).max() <= 2


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("side", [20, 64, 100])
def test_any_number_of_channels_stays(channels, side):
    canvas, _ = letterbox(np.full((side, side, channels), 9, np.uint8), 64)
    assert canvas.shape == (64, 64, channels) and (canvas == 9).all()
