"""The presets: boxes stay on their objects, little is lost, and both backends agree on what they mean."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from spyolo.boxes import Objects
from spyolo.data import AugmentSettings, augment
from spyolo.data.augment import apply_train
from spyolo.data.augment_torch import apply_eval as apply_eval_torch
from spyolo.data.augment_torch import apply_train as apply_train_torch
from spyolo.data.letterbox import letterbox
from spyolo.data.placement import Placement, place_objects

PLAIN = AugmentSettings(hue=0, saturation=(1, 1), brightness=(1, 1))


def bright_thing(box: tuple[int, int, int, int], width: int = 120, height: int = 90, difficult: bool = False) -> tuple[np.ndarray, Objects]:
    """A black picture with one white rectangle, and its truth."""
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image, Objects(torch.tensor([box], dtype=torch.float32), torch.tensor([3]), torch.tensor([difficult]))


def bright_box(image: Tensor, inside: Tensor) -> list[float]:
    """The extent of what is white near a box."""
    x1, y1, x2, y2 = (int(v) for v in inside + torch.tensor([-4, -4, 4, 4]))
    x1, y1 = max(0, x1), max(0, y1)
    rows, columns = np.nonzero(image[0, y1:y2, x1:x2].numpy() > 184)  # brighter than the grey of an empty canvas and its blur
    return [x1 + columns.min(), y1 + rows.min(), x1 + columns.max() + 1, y1 + rows.max() + 1]


def as_tensor(picture: tuple[np.ndarray, Objects]) -> tuple[Tensor, Objects]:
    return torch.from_numpy(picture[0]).permute(2, 0, 1), picture[1]


def run(backend: str, pictures: list, size: int, settings: AugmentSettings, seed: int) -> tuple[Tensor, Objects]:
    rng = np.random.default_rng(seed)
    if backend == "albumentations":
        return apply_train(pictures, size, settings, rng)
    return apply_train_torch([as_tensor(p) for p in pictures], size, settings, rng)


@pytest.mark.parametrize("backend", ["albumentations", "torchvision"])
@pytest.mark.parametrize("count", [1, 4])
def test_boxes_stay_on_their_objects(backend, count):
    pictures = [bright_thing((20 + 5 * k, 15, 70, 60 - 4 * k)) for k in range(count)]
    seen = 0
    for seed in range(40):
        image, objects = run(backend, pictures, 128, PLAIN, seed)
        assert image.shape == (3, 128, 128) and image.dtype == torch.uint8
        for box in objects.boxes:
            assert np.allclose(bright_box(image, box), box.numpy(), atol=2.0), (seed, box)
            seen += 1
    assert seen > 25 * count  # scale and place vary, but most objects stay in view


@pytest.mark.parametrize("backend", ["albumentations", "torchvision"])
def test_every_kind_of_change_happens(backend):
    picture = bright_thing((10, 15, 50, 60))
    results = [run(backend, [picture], 128, AugmentSettings(), seed) for seed in range(30)]
    sides = torch.cat([objects.boxes[:, 2:] - objects.boxes[:, :2] for _, objects in results])
    assert sides[:, 0].max() > 1.8 * sides[:, 0].min()  # scale
    assert (sides[:, 0] / sides[:, 1]).max() > 1.2 * (sides[:, 0] / sides[:, 1]).min()  # aspect
    centres = torch.cat([objects.boxes[:, ::2].mean(1) for _, objects in results])
    assert centres.std() > 15  # place and flip
    red = np.zeros((90, 120, 3), np.uint8)
    red[...] = (180, 60, 60)
    colours = torch.stack(
        [run(backend, [(red, Objects.empty())], 64, AugmentSettings(scale=(1.5, 1.6)), seed)[0][:, 32, 32] for seed in range(30)]
    ).double()
    assert (colours.std(0) > 8).all()  # colour


@pytest.mark.parametrize("backend", ["albumentations", "torchvision"])
@pytest.mark.parametrize("count", [1, 4])
def test_the_empty_canvas_keeps_its_grey(backend, count):
    red = np.zeros((90, 120, 3), np.uint8)
    red[...] = (200, 20, 20)
    for seed in range(5):
        image, _ = run(backend, [(red, Objects.empty())] * count, 96, AugmentSettings(scale=(0.5, 0.8)), seed)
        grey, coloured = (image == 114).all(0), image[0] > image[2] + 40
        assert grey.any() and coloured.any() and (grey | coloured).all()


def test_difficult_and_label_travel_with_the_box():
    for seed in range(5):
        _, objects = run("albumentations", [bright_thing((40, 30, 80, 60), difficult=True)], 128, AugmentSettings(scale=(0.6, 0.9)), seed)
        assert objects.labels.tolist() == [3] and objects.difficult.tolist() == [True]


def test_a_picture_without_objects_stays_one():
    image, objects = run("albumentations", [(np.zeros((50, 60, 3), np.uint8), Objects.empty())], 64, AugmentSettings(), 0)
    assert len(objects) == 0 and objects.boxes.shape == (0, 4) and image.shape == (3, 64, 64)


def test_boxes_are_clipped_and_those_with_too_little_left_are_dropped():
    """A picture of 100 x 100 hangs 50 pixels out of the canvas on the left: what remains of x 0..60, 40..80 and 0..52 there?"""
    boxes = torch.tensor([[0.0, 0, 60, 50], [40, 0, 80, 50], [0, 0, 52, 50]])
    objects = Objects(boxes, torch.arange(3), torch.tensor([False, True, False]))
    left = place_objects(objects, (100, 100), Placement(100, 100, -50, 10, (0, 0, 128, 128)), AugmentSettings(min_visible=0.15))
    assert left.boxes.tolist() == [[0, 10, 10, 60], [0, 10, 30, 60]]  # 1/6 and 3/4 are enough, 2/52 is not
    assert left.labels.tolist() == [0, 1] and left.difficult.tolist() == [False, True]
    thin = place_objects(objects, (100, 100), Placement(4, 100, 0, 0, (0, 0, 128, 128)), AugmentSettings())
    assert len(thin) == 0  # 2.4 pixels wide


def test_the_torch_letterbox_is_nearly_the_other():
    noise = np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8)
    image = np.kron(noise, np.ones((20, 20, 1), np.uint8))
    ours, place = letterbox(image, 128)
    theirs, _, same = apply_eval_torch(torch.from_numpy(image).permute(2, 0, 1), Objects.empty(), 128)
    assert same == place and (theirs.permute(1, 2, 0).double() - torch.from_numpy(ours)).abs().mean() < 4


def test_without_albumentations_the_twin_serves(monkeypatch):
    picture = bright_thing((40, 30, 80, 60))
    usual, _ = run("albumentations", [picture], 64, AugmentSettings(), 0)
    monkeypatch.setitem(sys.modules, "albumentations", None)  # as if it were not installed
    augment._finish.cache_clear()
    try:
        twin, objects = run("albumentations", [picture], 64, AugmentSettings(), 0)
    finally:
        augment._finish.cache_clear()
    assert twin.shape == usual.shape and not torch.equal(twin, usual) and len(objects) == 1
