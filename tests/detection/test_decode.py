"""From logits to boxes, on numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from spyolo.detection import Reading, decode, postprocess
from spyolo.detection.decode import decode_boxes, grid, split_logits

ANCHORS = [torch.tensor([[0.25, 0.5]]), torch.tensor([[0.5, 0.5]])]  # of 64: 16 x 32 at stride 16, 32 x 32 at stride 32
STRIDES = (16, 32)


def logit(p: float) -> float:
    return math.log(p / (1 - p)) if 0 < p < 1 else math.copysign(math.inf, p - 0.5)


def silence(classes: int = 2, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Logits of a 64 x 64 input where nothing is seen: 4 x 4 cells and 2 x 2 cells, one anchor each."""
    maps = torch.zeros(batch, 5 + classes, 4, 4), torch.zeros(batch, 5 + classes, 2, 2)
    for m in maps:
        m[:, 4] = -50.0
    return maps


def put(map: Tensor, cell: tuple[int, int], scores: list[float], *, offset: tuple[float, float] = (0.0, 0.0), picture: int = 0) -> None:
    """Make one cell (column, row) speak: objectness 1, the class scores given, the anchor's own size."""
    x, y = cell
    map[picture, 0:2, y, x] = torch.tensor(offset)
    map[picture, 2:4, y, x] = 0.0
    map[picture, 4, y, x] = 50.0
    map[picture, 5:, y, x] = torch.tensor([logit(s) for s in scores])


def box(t: tuple[float, ...], cell: tuple[float, float] = (2, 1)) -> list[float]:
    """Centre and sides in pixels at stride 16 with an anchor of 16 x 32."""
    x1, y1, x2, y2 = decode_boxes(torch.tensor(t, dtype=torch.float64), torch.tensor(cell), torch.tensor([16.0, 32.0]), 16).tolist()
    return [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]


def test_zero_logits_are_the_anchor_in_the_middle_of_the_cell():
    assert box((0, 0, 0, 0)) == [2.5 * 16, 1.5 * 16, 16, 32]


def test_the_formula():
    # sigma(ln 3) = 3/4, sigma(-ln 3) = 1/4:  centre = (2 + 2 * .75 - .5, 1 + 2 * .25 - .5) * 16,  sides = 16 * 1.5^2 and 32 * .5^2
    assert box((math.log(3), -math.log(3), math.log(3), -math.log(3))) == pytest.approx([48, 16, 36, 8], abs=1e-9)


def test_reach_is_half_a_cell_beyond_and_four_anchors():
    assert box((99, -99, 99, 99)) == pytest.approx([(2 + 1.5) * 16, (1 - 0.5) * 16, 4 * 16, 4 * 32], abs=1e-9)


def test_no_box_rounds_to_nothing():
    """A box of equal corners would make the CIoU and its gradient 0 / 0."""
    t = torch.tensor([0.0, 0.0, -80.0, -80.0])
    x1, y1, x2, y2 = decode_boxes(t, torch.tensor([37.0, 37.0]), torch.tensor([10.0, 14.0]), 32).tolist()  # at a large input, 1216
    assert 0 < x2 - x1 < 1e-2 and 0 < y2 - y1 < 1e-2


def test_channels_are_anchor_major():
    maps = torch.arange(2 * 6 * 2 * 3).view(1, 12, 2, 3)  # two anchors, one class
    p = split_logits(maps, 2)
    assert p.shape == (1, 2, 2, 3, 6)
    assert p[0, 1, 0, 2].tolist() == maps[0, 6:12, 0, 2].tolist()


def test_grid_is_column_then_row():
    g = grid(2, 3, torch.zeros(1))
    assert g.shape == (2, 3, 2) and g[1, 2].tolist() == [2, 1]


def test_decode_lists_scales_anchors_rows_columns():
    predictions = silence(classes=3, batch=2)
    boxes, objectness, classes = decode(predictions, ANCHORS, STRIDES)
    assert (boxes.shape, objectness.shape, classes.shape) == ((2, 20, 4), (2, 20), (2, 20, 3))
    assert boxes[0, 6].tolist() == [32, 8, 48, 40]  # column 2, row 1 at stride 16: centre (40, 24), 16 x 32
    assert boxes[0, 17].tolist() == [32, 0, 64, 32]  # column 1, row 0 at stride 32: centre (48, 16), 32 x 32


def test_one_object_comes_out_as_put_in():
    predictions = silence()
    put(predictions[0], (2, 1), [0.8, 0.0])
    (found,) = postprocess(predictions, ANCHORS, STRIDES)
    assert found.boxes.tolist() == [[32, 8, 48, 40]]
    assert found.labels.tolist() == [0] and found.scores.tolist() == pytest.approx([0.8])


def test_score_is_objectness_times_class():
    predictions = silence()
    put(predictions[1], (0, 0), [0.5, 0.0])
    predictions[1][0, 4, 0, 0] = logit(0.25)
    (found,) = postprocess(predictions, ANCHORS, STRIDES)
    assert found.scores.tolist() == pytest.approx([0.125])


def test_boxes_are_clipped_to_the_input():
    predictions = silence()
    put(predictions[0], (3, 0), [0.9, 0.0])  # centre (56, 8), 16 x 32: from -8 to 24
    (found,) = postprocess(predictions, ANCHORS, STRIDES)
    assert found.boxes.tolist() == [[48, 0, 64, 24]]


def test_boxes_outside_the_input_are_none():
    predictions = silence()
    put(predictions[1], (1, 1), [0.9, 0.0], offset=(50.0, 50.0))  # centre (80, 80): of its 32 x 32 nothing is inside
    assert len(postprocess(predictions, ANCHORS, STRIDES)[0]) == 0


def neighbours(scores: tuple[list[float], list[float]]) -> tuple[Tensor, Tensor]:
    """Two boxes of 32 x 32 that overlap by 2/3: centres (16, 16) and (16 + 6.4, 16)."""
    predictions = silence()
    put(predictions[1], (0, 0), scores[0])
    put(predictions[1], (1, 0), scores[1], offset=(logit(0.1), 0.0))  # (1 + 2 * .1 - .5) * 32 = 22.4
    return predictions


def test_suppression_within_a_class():
    (found,) = postprocess(neighbours(([0.8, 0.0], [0.9, 0.0])), ANCHORS, STRIDES, Reading(nms_iou=0.5))
    assert found.scores.tolist() == pytest.approx([0.9])
    assert found.boxes[0, 0].item() == pytest.approx(6.4, abs=1e-4)


def test_no_suppression_across_classes():
    (found,) = postprocess(neighbours(([0.8, 0.0], [0.0, 0.9])), ANCHORS, STRIDES, Reading(nms_iou=0.5))
    assert found.labels.tolist() == [1, 0]


def test_suppression_starts_over_the_given_overlap():
    # overlap (32 - 6.4) / (32 + 6.4) = 2/3
    assert len(postprocess(neighbours(([0.8, 0.0], [0.9, 0.0])), ANCHORS, STRIDES, Reading(nms_iou=0.65))[0]) == 1
    assert len(postprocess(neighbours(([0.8, 0.0], [0.9, 0.0])), ANCHORS, STRIDES, Reading(nms_iou=0.68))[0]) == 2


def test_a_box_may_have_several_classes_or_its_best_only():
    predictions = silence()
    put(predictions[0], (1, 1), [0.6, 0.7])
    (several,) = postprocess(predictions, ANCHORS, STRIDES)
    assert several.labels.tolist() == [1, 0] and torch.equal(several.boxes[0], several.boxes[1])
    (best,) = postprocess(predictions, ANCHORS, STRIDES, Reading(one_class_per_box=True))
    assert best.labels.tolist() == [1] and best.scores.tolist() == pytest.approx([0.7])


def test_best_first_and_no_more_than_asked_for(monkeypatch: pytest.MonkeyPatch):
    predictions = silence()
    for cell, score in zip([(0, 0), (2, 0), (0, 3), (3, 3)], [0.3, 0.9, 0.5, 0.7]):
        put(predictions[0], cell, [score, 0.0])
    (found,) = postprocess(predictions, ANCHORS, STRIDES)
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.5, 0.3])
    assert postprocess(predictions, ANCHORS, STRIDES, Reading(max_detections=2))[0].scores.tolist() == pytest.approx([0.9, 0.7])
    assert postprocess(predictions, ANCHORS, STRIDES, Reading(confidence=0.6))[0].scores.tolist() == pytest.approx([0.9, 0.7])
    monkeypatch.setattr(Reading, "enter", 3)
    assert postprocess(predictions, ANCHORS, STRIDES)[0].scores.tolist() == pytest.approx([0.9, 0.7, 0.5])


def test_as_many_as_asked_for_enter_suppression():
    predictions = [torch.randn(1, 7, 32, 32, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    assert len(postprocess(predictions, ANCHORS, STRIDES, Reading(nms_iou=1.0, confidence=0.0))[0]) == 100
    assert 1000 < len(postprocess(predictions, ANCHORS, STRIDES, Reading(nms_iou=1.0, confidence=0.0, max_detections=1500))[0]) <= 1500


def test_a_suppressed_box_takes_no_one_elses_place():
    """The limit counts what is left after suppression."""
    predictions = neighbours(([0.8, 0.0], [0.9, 0.0]))
    put(predictions[1], (0, 1), [0.3, 0.0])
    assert postprocess(predictions, ANCHORS, STRIDES, Reading(max_detections=2))[0].scores.tolist() == pytest.approx([0.9, 0.3])


def test_a_vote_moves_a_kept_box_by_the_squares_of_the_scores():
    """Edges 0 and 6.4 with scores 0.8 and 0.9, overlap 2/3: the mean of those that overlap by enough, and nobody else's."""
    predictions = neighbours(([0.8, 0.0], [0.9, 0.0]))
    (found,) = postprocess(predictions, ANCHORS, STRIDES, Reading(vote_iou=0.66))
    assert found.boxes[0].tolist() == pytest.approx([6.4 * 0.81 / (0.81 + 0.64), 0, 32 + 6.4 * 0.81 / (0.81 + 0.64), 32], abs=1e-3)
    assert found.scores.tolist() == pytest.approx([0.9])
    (alone,) = postprocess(predictions, ANCHORS, STRIDES, Reading(vote_iou=0.67))
    assert alone.boxes[0].tolist() == pytest.approx([6.4, 0, 38.4, 32], abs=1e-3)


def test_a_vote_is_of_one_class():
    predictions = neighbours(([0.8, 0.0], [0.0, 0.9]))
    voted, plain = (postprocess(predictions, ANCHORS, STRIDES, Reading(vote_iou=iou))[0] for iou in (0.5, 0.0))
    torch.testing.assert_close(voted.boxes, plain.boxes, atol=1e-4, rtol=0)


def test_boxes_under_the_floor_vote_too():
    predictions = neighbours(([0.4, 0.0], [0.9, 0.0]))
    high, low = (postprocess(predictions, ANCHORS, STRIDES, Reading(vote_iou=0.5, confidence=c))[0].boxes[0] for c in (0.5, 0.1))
    assert torch.equal(high, low) and high[0] < 6.3


def test_a_vote_is_taken_in_full_precision_under_autocast():
    predictions = neighbours(([0.8, 0.0], [0.9, 0.0]))
    (wanted,) = postprocess(predictions, ANCHORS, STRIDES, Reading(vote_iou=0.5))
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = postprocess(predictions, ANCHORS, STRIDES, Reading(vote_iou=0.5))
    assert torch.equal(found.boxes, wanted.boxes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vote_of_next_to_nothing_is_finite(dtype: torch.dtype):
    predictions = [torch.full((1, 7, 64 // s, 64 // s), -30.0, dtype=dtype) for s in STRIDES]
    (found,) = postprocess(predictions, ANCHORS, STRIDES, Reading(confidence=0.0, vote_iou=0.5))
    assert len(found) and found.boxes.isfinite().all() and found.scores.max() < 1e-20


def test_pictures_of_a_batch_keep_to_themselves():
    predictions = silence(batch=3)
    put(predictions[0], (1, 1), [0.9, 0.0], picture=0)
    put(predictions[0], (1, 1), [0.0, 0.6], picture=2)
    found = postprocess(predictions, ANCHORS, STRIDES)
    assert [d.labels.tolist() for d in found] == [[0], [], [1]]
    assert found[1].boxes.shape == (0, 4)


def test_ties_fall_the_same_way_every_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Reading, "enter", 20)
    predictions = silence(batch=2)
    for picture in (0, 1):
        for cell in [(x, y) for x in range(4) for y in range(4)]:
            put(predictions[0], cell, [0.5, 0.5], picture=picture)
    first, twin = postprocess(predictions, ANCHORS, STRIDES, Reading(max_detections=7, nms_iou=0.4))
    again, _ = postprocess(predictions, ANCHORS, STRIDES, Reading(max_detections=7, nms_iou=0.4))
    for other in (twin, again):
        assert torch.equal(first.boxes, other.boxes) and torch.equal(first.labels, other.labels)
    assert len(first) == 7


@pytest.mark.parametrize("h, w", [(64, 128), (128, 64)])
def test_anchors_grow_with_the_longer_side(h: int, w: int):
    predictions = [torch.zeros(1, 6, h // s, w // s) for s in STRIDES]
    boxes, _, _ = decode(predictions, ANCHORS, STRIDES)
    assert (boxes[0, 0, 2:] - boxes[0, 0, :2]).tolist() == [32, 64]  # a quarter and a half of the longer side
