"""Frames and truth of the pseudo-video, and flicker, on pictures drawn here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spyolo.boxes import Detections, Objects
from spyolo.errors import InputError
from spyolo.evaluation.flicker import between
from spyolo.evaluation.video import PseudoVideo, View, camera, render


class Drawn:
    """Pictures of one white rectangle on black, in every picture elsewhere; the rectangle is the object."""

    def __init__(self, count=4, width=200, height=120, box=(10, 30, 80, 90), difficult=False):
        self.ids = [f"{i:06d}" for i in range(count)]
        self.shape, self.box, self.difficult = (height, width), box, difficult

    def __len__(self):
        return len(self.ids)

    def image(self, i):
        picture = np.zeros((*self.shape, 3), np.uint8)
        x1, y1, x2, y2 = self.place(i)
        picture[y1:y2, x1:x2] = 255
        return picture

    def place(self, i):
        x1, y1, x2, y2 = self.box
        shift = 36 * (i % 4)
        return x1 + shift, y1, x2 + shift, y2

    def objects(self, i):
        return Objects(torch.tensor([self.place(i)], dtype=torch.float32), torch.tensor([1]), torch.tensor([self.difficult]))


def test_truth_follows_the_picture_through_pan_and_zoom():
    """The white rectangle in every frame is where the truth says, to a pixel."""
    video = PseudoVideo(Drawn(), size=96, clips=6, shots=2, frames=4, seed=3)
    scales, checked = set(), 0
    for clip in range(len(video)):
        for frame in video.clip(clip):
            scales.add(round(frame.view.scale, 3))
            white = np.argwhere((frame.image > 127).all(-1))
            if not len(white):  # gone, or less than a pixel left
                assert not len(frame.objects) or (frame.objects.boxes[0, 2:] - frame.objects.boxes[0, :2]).min() < 1
                continue
            (y1, x1), (y2, x2) = white.min(0), white.max(0) + 1
            assert frame.objects.boxes[0].tolist() == pytest.approx([x1, y1, x2, y2], abs=1.0)
            checked += 1
    assert checked > 40
    assert len(scales) > 6  # some shots zoom


def test_frames_are_a_function_of_the_seed():
    def frames(seed):
        video = PseudoVideo(Drawn(), size=64, clips=2, shots=2, frames=3, seed=seed)
        return [frame for clip in range(2) for frame in video.clip(clip)]

    one, again, other = frames(5), frames(5), frames(6)
    assert [f.name for f in one] == [f"{c}/{s}/{n}" for c in range(2) for s in range(2) for n in range(3)]
    assert all(np.array_equal(a.image, b.image) and a.view == b.view for a, b in zip(one, again))
    assert any(a.view != b.view for a, b in zip(one, other))
    assert [(f.shot, f.since_cut) for f in one[:6]] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


def test_every_picture_is_used_before_one_comes_again():
    video = PseudoVideo(Drawn(count=6), clips=4, shots=3)
    shown = [video.picture(clip, shot) for clip in range(4) for shot in range(3)]
    assert sorted(shown[:6]) == sorted(shown[6:]) == list(range(6))


def test_a_view_there_and_back():
    view = View.of(np.array([100.0, 60.0]), side=80, size=160)
    assert view.window().tolist() == [60, 20, 140, 100]
    boxes = torch.tensor([[70.0, 30, 90, 50]])
    assert view.to_frame(boxes).tolist() == [[20, 20, 60, 60]]
    assert torch.allclose(view.to_picture(view.to_frame(boxes)), boxes)


def test_rendering_puts_a_square_exactly_where_the_view_says():
    """The middle of its light, to a fraction of a pixel, also from a copy at another size."""
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[10:20, 20:36] = 255
    view = View(3.0, -45.3, -15.4, 90)
    for source in (picture, picture.repeat(2, 0).repeat(2, 1)):
        light = render(source, picture.shape, view)[..., 0].astype(float)
        y, x = ((np.indices(light.shape) + 0.5) * light).sum((1, 2)) / light.sum()
        assert (x, y) == pytest.approx((28 * 3 - 45.3, 15 * 3 - 15.4), abs=0.15)


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (300, 300)])
def test_the_camera_stays_in_the_picture_where_it_fits(width, height):
    for seed in range(30):
        for view in camera(np.random.default_rng(seed), width, height, 128, frames=5):
            x1, y1, x2, y2 = view.window().tolist()
            side = x2 - x1
            assert 0.5 - 1e-6 <= side / max(width, height) <= 1 + 1e-6
            for low, high, extent in ((x1, x2, width), (y1, y2, height)):
                if side < extent:
                    assert low >= -1e-3
                    assert high <= extent + 1e-3
                else:
                    assert low + high == pytest.approx(extent, abs=1e-3)  # centred


def test_objects_that_hardly_show_are_difficult_and_those_outside_are_gone():
    video = PseudoVideo(Drawn(), size=100)
    view = View(1.0, 0.0, 0.0, 100)
    boxes = [[10, 10, 50, 50], [80, 10, 140, 60], [70, 10, 120, 60], [10, 10, 15, 60], [100, 10, 140, 50], [20, 20, 60, 60]]
    objects = Objects(torch.tensor(boxes, dtype=torch.float32), torch.arange(6), torch.tensor([False] * 5 + [True]))
    seen = video.seen(objects, view)
    assert seen.labels.tolist() == [0, 1, 2, 3, 5]  # 4 lies outside
    assert seen.difficult.tolist() == [False, True, False, True, True]  # a third shows; three fifths; five pixels wide; annotated so
    assert seen.boxes[1].tolist() == [80, 10, 100, 60]


@pytest.mark.parametrize("option", ["size", "clips", "shots", "frames"])
def test_options_must_be_positive(option):
    with pytest.raises(InputError, match=option):
        PseudoVideo(Drawn(), **{option: 0})


def test_a_set_with_nothing_to_find_makes_no_video():
    with pytest.raises(InputError, match="not difficult"):
        PseudoVideo(Drawn(difficult=True))


def boxes_of(*rows):
    """Rows of (label, score, box)."""
    return Detections(
        torch.tensor([row[2] for row in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([row[1] for row in rows], dtype=torch.float32),
        torch.tensor([row[0] for row in rows], dtype=torch.int64),
    )


STILL = View(1.0, 0.0, 0.0, 100)


def test_flicker_by_hand():
    """One box moves (IoU 0.6), one changes its class, one stays, one is too faint to count."""
    before = boxes_of((0, 0.9, [0, 0, 10, 10]), (1, 0.9, [50, 50, 60, 60]), (2, 0.9, [20, 20, 40, 40]), (0, 0.1, [0, 80, 10, 90]))
    after = boxes_of((0, 0.9, [0, 0, 10, 6]), (2, 0.9, [50, 50, 60, 60]), (2, 0.9, [20, 20, 40, 40]))
    sums = between(before, after, STILL, STILL, confidence=0.3)
    assert (sums.before, sums.after, sums.pairs) == (3, 3, 2)
    assert sums.moved == pytest.approx(0.4)
    figures = sums.summary()
    assert figures["flicker"] == pytest.approx((2 * 0.4 + 1 + 1) / 6)
    assert figures["jitter"] == pytest.approx(0.2)
    assert figures["appeared"] == figures["vanished"] == pytest.approx(1 / 3)


def test_boxes_that_follow_a_moving_camera_do_not_flicker():
    first, second = View.of(np.array([100.0, 60]), 80, 160), View.of(np.array([110.0, 64]), 70, 160)
    objects = torch.tensor([[80.0, 40, 110, 70], [100, 60, 130, 80]])
    seen = [Detections(view.to_frame(objects), torch.tensor([0.9, 0.8]), torch.tensor([0, 0])) for view in (first, second)]
    assert between(*seen, first, second, 0.3).summary()["flicker"] == pytest.approx(0, abs=1e-5)
    frozen = between(seen[0], seen[0], first, second, 0.3).summary()  # boxes that stay where they were in the frame do
    assert frozen["flicker"] > 0.3


def test_boxes_that_leave_the_frame_do_not_count_as_vanished():
    left, right = View(1.0, 0.0, 0.0, 100), View(1.0, -50.0, 0.0, 100)  # a pan by half the frame
    before = boxes_of((0, 0.9, [0, 0, 40, 40]), (0, 0.9, [60, 60, 90, 90]))
    after = boxes_of((0, 0.9, [10, 60, 40, 90]))
    assert between(before, after, left, right, 0.3).summary()["vanished"] == 0


def test_an_object_that_comes_into_view_is_the_same_object():
    """A pan shows more of it from frame to frame: cut to what both frames show, its boxes are equal."""
    left, right = View(1.0, 0.0, 0.0, 100), View(1.0, -50.0, 0.0, 100)
    sums = between(boxes_of((0, 0.9, [90, 20, 100, 60])), boxes_of((0, 0.9, [40, 20, 90, 60])), left, right, 0.3)
    assert (sums.before, sums.after, sums.pairs, sums.moved) == (1, 1, 1, 0.0)


def test_no_boxes_no_flicker():
    nothing = Detections.empty()
    assert between(nothing, nothing, STILL, STILL, 0.3).summary() == {"flicker": None, "jitter": None, "appeared": None, "vanished": None}
    one = boxes_of((0, 0.9, [0, 0, 10, 10]))
    assert between(nothing, one, STILL, STILL, 0.3).summary() == {"flicker": 1.0, "jitter": None, "appeared": 1.0, "vanished": None}
