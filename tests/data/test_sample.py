"""The sample set: the same bytes every time, and nothing but the outline tells classes apart."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from spyolo.cli import run
from spyolo.data import SAMPLE_CLASSES, VOCSet, make_sample, shuffle_labels
from spyolo.data.sample_drawing import draw_picture, shape_mask
from spyolo.errors import InputError
from spyolo.files import held


def digest(root) -> dict[str, str]:
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.*") if path.is_file()}


def test_the_same_seed_draws_the_same_bytes_and_does_not_draw_twice(sample_root, tmp_path):
    again = make_sample(tmp_path, pictures=20, seed=0)
    assert digest(again) == digest(sample_root)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    make_sample(tmp_path, pictures=20, seed=0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before


def test_a_damaged_or_different_set_is_drawn_anew(sample_root, tmp_path):
    picture = make_sample(tmp_path, pictures=20) / "VOCdevkit/VOC2007/JPEGImages/000003.jpg"
    picture.write_bytes(b"")
    make_sample(tmp_path, pictures=20)
    assert digest(tmp_path) == digest(sample_root)
    make_sample(tmp_path, pictures=10)
    assert len(list((tmp_path / "VOCdevkit/VOC2007/JPEGImages").iterdir())) == 10


def test_two_processes_do_not_draw_into_one_folder(tmp_path):
    out = make_sample(tmp_path, pictures=6, progress=False)
    with held(tmp_path / "VOCdevkit"):
        assert make_sample(out, pictures=6, progress=False) == out  # it is whole: nothing is drawn
        with pytest.raises(InputError, match="VOCdevkit is in use by another process; wait for it, or give another --out"):
            make_sample(out, pictures=7, progress=False)
    assert make_sample(out, pictures=7, progress=False) == out


def test_nothing_of_other_people_is_overwritten(make_devkit):
    root = make_devkit({"000001": []})
    before = digest(root)
    with pytest.raises(InputError, match="is no sample set"):
        make_sample(root)
    assert digest(root) == before


@pytest.mark.parametrize("content", ["[]", "7", "{", '{"files": [], "made_by": "somebody else"}'])
def test_a_folder_whose_stamp_is_not_ours_is_left_alone(make_devkit, content):
    root = make_devkit({"000001": []})
    (root / "VOCdevkit/VOC2007/sample.json").write_text(content)
    before = digest(root)
    with pytest.raises(InputError, match="is no sample set"):
        make_sample(root)
    assert digest(root) == before


def test_it_is_read_by_the_code_that_reads_voc(sample_root):
    train, val = (VOCSet(sample_root, f"2007:{name}", SAMPLE_CLASSES, strict=True) for name in ("train", "val"))
    assert (len(train), len(val)) == (16, 4) and not set(train.ids) & set(val.ids)
    assert all(train.image(i).shape[:2] == train.size(i)[::-1] and 1 <= len(train.objects(i)) <= 5 for i in range(len(train)))
    flagged = VOCSet(sample_root, "2007:square_trainval", SAMPLE_CLASSES)
    assert len(flagged) == 20


@pytest.fixture(scope="module")
def things():
    """name, width, height, centre x and y (of the picture), difficult, mean colour: of the objects of 250 pictures."""
    names, figures, touching = [], [], []
    for k in range(250):
        image, annotation = draw_picture(np.random.default_rng([7, k]))
        boxes = torch.tensor([thing.box for thing in annotation.things], dtype=torch.float32)
        touching += ((box_iou(boxes, boxes) > 0).sum(1) > 1).tolist()
        for thing in annotation.things:
            x1, y1, x2, y2 = thing.box
            side = max(x2 - x1, y2 - y1) / min(annotation.width, annotation.height)
            place = ((x1 + x2) / 2 / annotation.width, (y1 + y2) / 2 / annotation.height)
            names.append(thing.name)
            figures.append([side, (x2 - x1) / (y2 - y1), *place, thing.difficult, *image[y1:y2, x1:x2].mean((0, 1))])
    return np.array(names), np.array(figures), np.array(touching)


def test_sizes_overlaps_and_difficult_are_as_promised(things):
    names, figures, touching = things
    side, difficult = figures[:, 0], figures[:, 4]
    assert 0.07 <= side.min() < 0.1 and 0.5 < side.max() <= 0.71
    assert 0.18 <= touching.mean() <= 0.32
    assert 0.05 <= difficult.mean() <= 0.25
    assert len(SAMPLE_CLASSES) >= 5 and all(0.6 <= (names == name).mean() * len(SAMPLE_CLASSES) <= 1.4 for name in SAMPLE_CLASSES)


def test_size_place_and_colour_say_nothing_of_the_class(things):
    """Each figure's mean over a class is the mean over all, to four standard errors."""
    names, figures, _ = things
    for name in SAMPLE_CLASSES:
        own = figures[names == name]
        off = abs(own.mean(0) - figures.mean(0)) / (figures.std(0) / np.sqrt(len(own)))
        assert (off < 4).all(), (name, off)


def test_outlines_differ_even_when_small_and_turned():
    """At 13 x 13 pixels, no class's mask is like another's at any rotation in use."""
    masks = {name: [shape_mask(name, turn, 13, 13) for turn in (-25, -12, 0, 12, 25)] for name in SAMPLE_CLASSES}
    for name in SAMPLE_CLASSES:
        for other in set(SAMPLE_CLASSES) - {name}:
            assert min(abs(a - b).mean() for a in masks[name] for b in masks[other]) > 0.05, (name, other)


def test_boxes_are_tight(sample_root):
    """An outline touches all four sides of its box."""
    for name in SAMPLE_CLASSES:
        mask = shape_mask(name, 17.0, 40, 30)
        assert mask.shape == (30, 40)
        assert min(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) > 0.1, name


def test_shuffled_labels_keep_boxes_and_counts(sample_root):
    voc = VOCSet(sample_root, "2007:trainval", SAMPLE_CLASSES)
    other = shuffle_labels(voc, seed=1)
    own, new = (torch.cat([v.objects(i).labels for i in range(len(v))]) for v in (voc, other))
    assert torch.equal(own.bincount(), new.bincount()) and not torch.equal(own, new)
    assert all(torch.equal(voc.objects(i).boxes, other.objects(i).boxes) for i in range(len(voc)))
    assert torch.equal(torch.cat([voc.objects(i).labels for i in range(len(voc))]), own)  # the first one is as it was


def test_command_line(tmp_path, capsys):
    assert run("make_sample", ["--out", str(tmp_path), "--pictures", "5"]) == 0
    assert "2007:val" in capsys.readouterr().out
    assert run("make_sample", ["--out", str(tmp_path), "--pictures", "3"]) == 2
    assert "too few" in capsys.readouterr().err
