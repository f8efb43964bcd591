"""Looking a data set over: every kind of trouble is found, and a good set gives none."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from spyolo.cli import run
from spyolo.cli.anchors import USUAL
from spyolo.data import SAMPLE_CLASSES
from spyolo.data.annotation import Thing
from spyolo.data.check import check_sets
from spyolo.data.images import read_image
from spyolo.data.kmeans import parse_anchors
from spyolo.errors import InputError

ANCHORS = parse_anchors(USUAL)
CAT, DOG = Thing("cat", (10, 5, 50, 40)), Thing("dog", (4, 4, 60, 44), difficult=True)


def look(root, *splits: str, classes=("cat", "dog")) -> dict:
    return check_sets(root, splits, classes, ANCHORS)


def test_a_good_set_has_no_findings_and_right_counts(make_devkit):
    tree = look(make_devkit({"a": [CAT, CAT, DOG], "b": [CAT, Thing("dog", (4, 4, 60, 44))]}), "2007:train")
    assert tree["findings"] == []
    counts = tree["splits"]["2007:train"]["counts"]
    assert counts == {"cat": {"objects": 3, "difficult": 0, "pictures": 2}, "dog": {"objects": 2, "difficult": 1, "pictures": 2}}


def test_boxes_are_measured_on_the_canvas(make_devkit):
    """64 x 48 grows by 6.5 to 416: a box of 40 x 30 becomes 260 x 195, nearest to 344,319 or 135,169 by IoU."""
    boxes = look(make_devkit({"a": [Thing("cat", (0, 0, 40, 30))]}), "2007:train")["splits"]["2007:train"]["boxes"]
    assert boxes["longer_side"]["median"] == 260 and boxes["thinner_than_8"] == 0
    assert boxes["boxes_per_anchor"] == [0, 0, 0, 0, 0, 1] and boxes["mean_best_iou"] == pytest.approx(260 * 195 / (344 * 319), abs=1e-4)


def finding(tree: dict, words: str) -> bool:
    return any(words in line for line in tree["findings"])


def test_classes_that_do_not_match(make_devkit):
    root = make_devkit({"a": [CAT, CAT]})
    tree = look(root, "2007:train", classes=("person",))
    assert finding(tree, "no class of the list occurs; its annotations name cat. AP would be 0") and finding(tree, "left out: cat (2)")
    assert look(root, "2007:train")["findings"] == ["2007:train: no object of dog"]


def test_bad_boxes_and_pictures(make_devkit):
    root = make_devkit({"a": [CAT, DOG], "b": [Thing("cat", (-9, 0, 70, 30))], "c": [Thing("cat", (90, 0, 99, 9))], "d": [CAT], "e": [CAT]})
    pictures = root / "VOCdevkit/VOC2007/JPEGImages"
    (pictures / "d.jpg").write_bytes(b"")
    Image.new("RGB", (10, 10)).save(pictures / "e.jpg")
    tree = look(root, "2007:train")
    assert finding(tree, "1 x box clipped; first: ") and finding(tree, "1 x box left out; first: ")
    assert finding(tree, "pictures that cannot be used: 2; first: ")
    assert [("empty" in line, "10 x 10" in line) for line in tree["splits"]["2007:train"]["bad_pictures"]] == [(True, False), (False, True)]


def test_boxes_that_suit_no_anchor_or_are_too_thin(make_devkit):
    tree = look(make_devkit({"a": [Thing("cat", (0, 20, 64, 21)), DOG]}), "2007:train")
    assert finding(tree, "100% of the boxes are like no anchor") and finding(tree, "100% of the boxes are thinner than 8 pixels")


def test_pictures_in_two_splits_are_found_by_their_pixels(make_devkit):
    """Found under another name and in another file format; a picture that differs is not."""
    root = make_devkit({"a": [CAT, DOG], "b": [CAT]}, split="train")
    make_devkit({"c": [CAT, DOG], "d": [CAT], "b": [CAT]}, split="val")
    folder = root / "VOCdevkit/VOC2007/JPEGImages"
    for name, value in (("a", 10), ("b", 60), ("d", 200)):
        Image.fromarray(np.full((48, 64, 3), value, np.uint8)).save(folder / f"{name}.jpg")
    (folder / "c.jpg").unlink()
    Image.fromarray(read_image(folder / "a.jpg")).save(folder / "c.png")
    tree = look(root, "2007:train", "2007:val")
    assert tree["duplicates"]["ids"] == {"2007:train and 2007:val": ["b"]}
    assert sorted(tree["duplicates"]["pictures"]["2007:train and 2007:val"]) == [["a", "c"], ["b", "b"]]
    assert finding(tree, "share 2 pictures: a = c, b") or finding(tree, "share 2 pictures: b, a = c")


def test_a_split_named_twice_is_refused(make_devkit):
    with pytest.raises(InputError, match="split 2007:train is named twice"):
        look(make_devkit({"a": [CAT]}), "2007:train", "2007:train")


def test_a_picture_twice_in_one_split(make_devkit):
    root = make_devkit({"a": [CAT, DOG], "b": [CAT]})
    folder = root / "VOCdevkit/VOC2007/JPEGImages"
    shutil.copyfile(folder / "a.jpg", folder / "b.jpg")
    tree = look(root, "2007:train")
    assert tree["duplicates"]["within"] == {"2007:train": [["a", "b"]]}
    assert finding(tree, "has pictures under several ids, 1 of them: a = b")


def test_command_line_writes_text_json_and_a_sheet(sample_root, tmp_path, capsys):
    data = ["--data", str(sample_root), "--split", "2007:train", "2007:val", "--out", str(tmp_path)]
    assert run("check_data", [*data, "--classes", "sample", "--pictures", "6"]) in (0, 1)
    page = capsys.readouterr().out
    assert all(name in page for name in SAMPLE_CLASSES) and "2007:val: 4 pictures" in page
    told = json.loads((tmp_path / "check.json").read_text())
    assert told["splits"]["2007:train"]["pictures"] == 16 and told["duplicates"] == {"ids": {}, "pictures": {}, "within": {}}
    assert read_image(tmp_path / "sheet.png").shape[1] == 6 * 260 + 4
    assert run("check_data", data) == 1 and "AP would be 0" in capsys.readouterr().out  # VOC's classes are not the sample's
    assert run("check_data", ["--data", str(tmp_path / "nowhere")]) == 2


def test_anchors_grow_with_the_size_as_the_detectors_do(sample_root, tmp_path):
    told = {}
    for size in (416, 96):
        options = ["--data", sample_root, "--split", "2007:val", "--classes", "sample", "--size", size, "--out", tmp_path / str(size)]
        assert run("check_data", [str(option) for option in options]) in (0, 1)
        told[size] = json.loads((tmp_path / str(size) / "check.json").read_text())["splits"]["2007:val"]["boxes"]
    assert told[96]["mean_best_iou"] == pytest.approx(told[416]["mean_best_iou"], abs=1e-3)
    assert told[96]["boxes_per_anchor"] == told[416]["boxes_per_anchor"]
