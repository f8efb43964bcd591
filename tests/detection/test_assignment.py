"""Which anchors answer for which objects, on objects made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from spyolo.detection import DEFAULT_MASKS, REFERENCE_MASKS, assign
from spyolo.detection.anchors import DEFAULT_ANCHORS, anchors_per_scale
from spyolo.detection.assignment import ScaleTargets, Targets, shape_match

SIZE = (64, 64)
STRIDES = (16, 32)
ANCHORS = [torch.tensor([[0.25, 0.25]]), torch.tensor([[0.75, 0.75]])]  # 16 x 16 at stride 16, 48 x 48 at stride 32


def entries(t: ScaleTargets) -> set[tuple[int, ...]]:
    """(picture, anchor, column, row) of each positive."""
    return set(zip(t.picture.tolist(), t.anchor.tolist(), t.x.tolist(), t.y.tolist()))


def cells(t: ScaleTargets) -> set[tuple[int, int]]:
    return {(x, y) for _, _, x, y in entries(t)}


def spared(t: ScaleTargets) -> set[tuple[int, ...]]:
    """(picture, anchor, column, row) of each entry spared for a difficult object."""
    return {(b, a, x, y) for b, a, y, x in t.spared.nonzero().tolist()}


def square(cx: float, cy: float, side: float, label: int = 0) -> tuple:
    return (cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2, label)


def fine(truth, *rows: tuple) -> ScaleTargets:
    """Positives at stride 16 of one picture whose objects fit the anchor of 16 x 16 only."""
    targets = assign([truth(*rows)], ANCHORS, STRIDES, SIZE, factor=2)
    assert len(targets.scales[1].labels) == 0
    return targets.scales[0]


@pytest.mark.parametrize(
    "centre, expected",
    [
        ((20, 38), {(1, 2), (0, 2), (1, 1)}),  # 1.25, 2.375: left and up are nearest
        ((28, 44), {(1, 2), (2, 2), (1, 3)}),  # 1.75, 2.75: right and down
        ((20, 44), {(1, 2), (0, 2), (1, 3)}),  # 1.25, 2.75: left and down
    ],
)
def test_own_cell_and_the_two_nearest_neighbours(truth, centre, expected):
    assert cells(fine(truth, square(*centre, 16))) == expected


@pytest.mark.parametrize(
    "centre, expected",
    [
        ((4, 4), {(0, 0)}),  # no cells left of or above the first
        ((4, 20), {(0, 1), (0, 0)}),
        ((60, 60), {(3, 3)}),
        ((64, 64), {(3, 3)}),  # a centre on the very edge belongs to the last cell
        ((12, 60), {(0, 3), (1, 3)}),
    ],
)
def test_neighbours_end_at_the_border(truth, centre, expected):
    assert cells(fine(truth, square(*centre, 12))) == expected


def test_a_positive_knows_its_object(truth):
    t = fine(truth, (10, 30, 26, 42, 7))
    assert t.labels.tolist() == [7, 7, 7] and t.boxes.tolist() == [[10, 30, 26, 42]] * 3


def test_an_object_may_answer_at_both_scales(truth):
    # 28 x 28 is within a factor of 2 of both 16 and 48
    scales = assign([truth(square(20, 20, 28))], ANCHORS, STRIDES, SIZE, factor=2).scales
    assert cells(scales[0]) == {(1, 1), (0, 1), (1, 0)} and cells(scales[1]) == {(0, 0), (1, 0), (0, 1)}


def test_the_worse_side_decides():
    anchors = torch.tensor([[16.0, 16.0], [48.0, 48.0], [16.0, 48.0]])
    assert shape_match(torch.tensor([[16.0, 47.0]]), anchors, factor=2).tolist() == [[False, False, True]]
    assert shape_match(torch.tensor([[20.0, 30.0]]), anchors, factor=2).tolist() == [[True, False, True]]
    assert shape_match(torch.tensor([[32.0, 16.0]]), anchors, factor=2.01).tolist() == [[True, False, False]]


def test_the_factor_itself_does_not_fit():
    """A box of exactly four anchors is one the decoding cannot quite reach."""
    assert shape_match(torch.tensor([[64.0, 16.0]]), torch.tensor([[16.0, 16.0], [32.0, 16.0]]), factor=4).tolist() == [[False, True]]


@pytest.mark.parametrize("side, scale", [(2.0, 0), (200.0, 1)])
def test_an_object_that_no_anchor_fits_gets_the_nearest(truth, side: float, scale: int):
    scales = assign([truth(square(20, 20, side))], ANCHORS, STRIDES, SIZE, factor=2).scales
    assert len(scales[scale].labels) == 3 and len(scales[1 - scale].labels) == 0


def test_an_object_of_no_area_gets_none(truth):
    targets = assign([truth((10, 10, 10, 20, 0), (10, 10, 10, 10, 0), (10, 20, 30, 20, 0))], ANCHORS, STRIDES, SIZE)
    assert [len(t.labels) for t in targets.scales] == [0, 0]


def test_difficult_is_spared_and_not_positive(truth):
    easy = assign([truth(square(20, 38, 16))], ANCHORS, STRIDES, SIZE, factor=2).scales[0]
    hard = assign([truth((*square(20, 38, 16), "difficult"))], ANCHORS, STRIDES, SIZE, factor=2).scales[0]
    assert spared(hard) == entries(easy) and entries(hard) == set() and spared(easy) == set()


def test_an_entry_that_answers_for_an_easy_object_too_is_positive(truth):
    t = fine(truth, (*square(20, 38, 16), "difficult"), square(20, 44, 16))
    assert cells(t) == {(1, 2), (0, 2), (1, 3)}  # the easy one's
    assert spared(t) == {(0, 0, 1, 1)}  # what is left of the difficult one's (1, 2), (0, 2), (1, 1)


def test_two_objects_on_one_cell_are_both_there(truth):
    t = fine(truth, square(20, 38, 16, label=3), square(20, 38, 20, label=5))
    assert sorted(t.labels.tolist()) == [3, 3, 3, 5, 5, 5] and len(entries(t)) == 3


def test_pictures_keep_to_themselves(truth):
    targets = assign([truth(), truth(square(20, 38, 16)), truth((*square(44, 12, 16), "difficult"))], ANCHORS, STRIDES, SIZE, factor=2)
    t = targets.scales[0]
    assert {b for b, *_ in entries(t)} == {1} and {b for b, *_ in spared(t)} == {2}


def test_all_objects_are_listed_padded_with_boxes_of_no_area(truth):
    targets = assign([truth(), truth((1, 2, 3, 4, 0), (5, 6, 7, 8, 0, "difficult"))], ANCHORS, STRIDES, SIZE)
    assert targets.boxes.tolist() == [[[0] * 4] * 2, [[1, 2, 3, 4], [5, 6, 7, 8]]]


def test_a_batch_without_objects(truth):
    targets = assign([truth(), truth()], ANCHORS, STRIDES, SIZE)
    assert [len(t.labels) for t in targets.scales] == [0, 0]
    assert [tuple(t.spared.shape) for t in targets.scales] == [(2, 1, 4, 4), (2, 1, 2, 2)]
    assert targets.boxes.shape == (2, 1, 4)


def used(truth, masks: tuple) -> list[set[int]]:
    """For each default anchor's own shape, the anchors (scale * 3 + place) that answer for an object of it at an input of 416."""
    shapes = anchors_per_scale(DEFAULT_ANCHORS, masks)
    answers = []
    for w, h in DEFAULT_ANCHORS:
        scales = assign([truth((200 - w / 2, 200 - h / 2, 200 + w / 2, 200 + h / 2, 0))], shapes, STRIDES, (416, 416), factor=1.01).scales
        answers.append({3 * k + a for k, t in enumerate(scales) for a in t.anchor.tolist()})
    return answers


def test_every_anchor_can_be_used(truth):
    assert used(truth, DEFAULT_MASKS) == [{0}, {1}, {2}, {3}, {4}, {5}]


def test_the_reference_masks_waste_one_and_share_one(truth):
    # Its anchors at stride 16 are 1, 2, 3 and at stride 32 3, 4, 5: the smallest shape falls to its neighbour, the fourth answers twice.
    assert used(truth, REFERENCE_MASKS) == [{0}, {0}, {1}, {2, 3}, {4}, {5}]


@pytest.mark.parametrize("size", [(64, 128), (128, 64)])
def test_anchors_scale_with_the_longer_side(truth, size: tuple[int, int]):
    # The anchors are then 32 and 96 pixels.
    scales = assign([truth(square(40, 30, 32))], ANCHORS, STRIDES, size, factor=1.1).scales
    assert cells(scales[0]) == {(2, 1), (3, 1), (2, 2)} and len(scales[1].labels) == 0


def random_targets(truth, seed: int) -> tuple[Targets, list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(40, 2, generator=generator) * 320
    size, stretch = 6 * 40 ** torch.rand(40, 1, generator=generator), 2 ** (torch.rand(40, 1, generator=generator) * 2 - 1)
    sides = torch.cat([size * stretch, size / stretch], 1)
    boxes = torch.cat([centre - sides / 2, centre + sides / 2], 1)
    shapes = anchors_per_scale()
    return assign([truth(*[(*row, 0) for row in boxes.tolist()])], shapes, STRIDES, (320, 320)), shapes


@pytest.mark.parametrize("seed", range(3))
def test_the_decoding_can_reach_every_object_assigned(truth, seed: int):
    """Centres lie within (-1/2, 3/2) of the cell's corner, sides within four anchors."""
    targets, shapes = random_targets(truth, seed)
    total = 0
    for t, stride, anchors in zip(targets.scales, STRIDES, shapes):
        offset = (t.boxes[:, :2] + t.boxes[:, 2:]) / 2 / stride - torch.stack([t.x, t.y], 1)
        assert offset.min() >= -0.5 and offset.max() <= 1.5
        ratio = (t.boxes[:, 2:] - t.boxes[:, :2]) / (anchors[t.anchor] * 320)
        assert ratio.max() < 4
        total += len(t.labels)
    assert total > 40


def test_several_positives_an_object(truth):
    """The point of it all: the reference has one."""
    targets, _ = random_targets(truth, 0)
    assert sum(len(t.labels) for t in targets.scales) / 40 > 5


def test_order_of_objects_does_not_matter(truth):
    rows = [square(20, 38, 16, 1), (*square(30, 30, 20, 2), "difficult"), square(50, 14, 40, 0)]
    one, other = (assign([truth(*r)], ANCHORS, STRIDES, SIZE) for r in (rows, rows[::-1]))
    for a, b in zip(one.scales, other.scales):
        assert entries(a) == entries(b) and torch.equal(a.spared, b.spared)


def test_default_anchors_are_yolov4_tinys():
    shapes = anchors_per_scale()
    assert [[math.prod(s) for s in (a * 416).round().tolist()] for a in shapes] == [[140, 621, 2146], [6642, 22815, 109736]]
