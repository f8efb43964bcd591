"""Files of predictions: written and read back without loss, and refused with one clear message when they are wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from eval_scenes import CLASSES, found, random_scene

from spyolo.boxes import Detections
from spyolo.errors import InputError
from spyolo.evaluation.coco_json import write_coco_json
from spyolo.evaluation.predictions import read_predictions
from spyolo.evaluation.tables import DetectionTable
from spyolo.evaluation.voc_text import write_voc_text

IDS = ["000012", "2008_000002"]
GOOD = {"image_id": "000012", "category_id": 2, "category": "cat", "bbox": [9, 19, 30, 40], "score": 0.5}


def read_rows(tmp_path, *rows, **options):
    path = tmp_path / "preds.json"
    path.write_text(json.dumps(rows))
    return read_predictions(path, IDS, CLASSES, **options)


def changed(**fields):
    return {key: value for key, value in {**GOOD, **fields}.items() if value is not ...}


def test_json_is_coco_results_with_the_devkits_ids(tmp_path):
    write_coco_json(tmp_path / "p.json", {"000012": found(("cat", 0.5, [9, 19, 39, 59]))}, CLASSES)
    assert json.loads((tmp_path / "p.json").read_text()) == [GOOD]


def test_voc_text_counts_corners_from_one_inclusive(tmp_path):
    write_voc_text(tmp_path, {"000012": found(("cat", 0.5, [9, 19, 39, 59]))}, CLASSES)
    assert (tmp_path / "comp4_det_test_cat.txt").read_text() == "000012 0.5 10.0 20.0 39.0 59.0\n"
    assert (tmp_path / "comp4_det_test_dog.txt").read_text() == ""


@pytest.mark.parametrize("text", [False, True])
def test_what_is_written_is_read_back_exactly(tmp_path, text):
    draw = torch.Generator().manual_seed(0)
    corner = torch.rand(50, 2, generator=draw) * 100
    boxes = torch.cat([corner, corner + torch.rand(50, 2, generator=draw) * 300], dim=1)
    labels = torch.arange(50) % len(CLASSES)
    detections = {"2008_000002": Detections(boxes, torch.rand(50, generator=draw), labels), "000012": Detections.empty()}
    if text:
        write_voc_text(tmp_path / "results", detections, CLASSES)
    else:
        write_coco_json(tmp_path / "results", detections, CLASSES)
    back = read_predictions(tmp_path / "results", IDS, CLASSES)
    wanted = DetectionTable.of(detections, IDS, CLASSES)
    if text:  # by class first, in the order given within a class
        wanted = wanted[np.argsort(wanted.labels, kind="stable")]
    for column in ("image", "labels", "scores", "boxes"):
        np.testing.assert_array_equal(getattr(back, column), getattr(wanted, column))


def test_rows_keep_the_files_order_also_across_pictures(tmp_path):
    rows = [changed(image_id=name, bbox=[place, 0, 5, 5]) for place, name in enumerate(["000012", "2008_000002", "000012"])]
    table = read_rows(tmp_path, *rows)
    assert table.image.tolist() == [0, 1, 0] and table.ranking.tolist() == [0, 1, 2]


def test_tables_and_dictionaries_hold_the_same(tmp_path):
    truth, detections = random_scene(3)
    table = DetectionTable.of(detections, list(truth), CLASSES)
    again = DetectionTable.of(table.by_image(), list(truth), CLASSES)
    for name in truth:
        order = torch.argsort(detections[name].scores, descending=True, stable=True)
        assert torch.equal(table.by_image()[name].boxes.float(), detections[name].boxes[order])
    assert sorted(again.scores) == sorted(table.scores)


def test_no_detections_are_fine(tmp_path):
    assert len(read_rows(tmp_path)) == 0


def test_the_name_beside_the_number_may_be_left_out(tmp_path):
    assert read_rows(tmp_path, changed(category=...)).labels.tolist() == [1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (changed(image_id="000099"), "1 image ids are not among the 2 pictures judged: 000099 .*entry 1.*--split"),
        (changed(image_id=12), "entry 1: field 'image_id' must be the picture's name in the devkit as text, such as \"000012\", not 12"),
        (changed(image_id=...), "entry 1: field 'image_id' is missing"),
        (changed(category_id=0), r"unknown class: category_id 0 is outside 1..3"),
        (changed(category_id=4), r"unknown class: category_id 4 is outside 1..3"),
        (changed(category_id="cat"), "field 'category_id' must be a whole number, from 1 in class order, not \"cat\""),
        (changed(category_id=True), "field 'category_id' must be a whole number"),
        (changed(category="unicorn"), "unknown class 'unicorn': it is none of bird, cat, dog; .*--classes"),
        (changed(category=["cat"]), r"unknown class \['cat'\]"),
        (changed(category="dog"), "category_id 2 is 'cat' in the class list, but the entry calls it 'dog'"),
        (changed(score=float("nan")), r"entry 1 \(picture 000012\): the score is not a number"),
        (changed(score=float("inf")), "the score is not a number"),
        (changed(score="0.5"), "field 'score' must be a number, not \"0.5\""),
        (changed(score=None), "field 'score' must be a number, not null"),
        (changed(score=10**400), "a number is too large"),
        (changed(bbox=[9, 19, -30, 40]), "the box is upside down"),
        (changed(bbox=[9, 19, 30, -40]), "the box is upside down"),
        (changed(bbox=[9, 19, float("nan"), 40]), "the box has a coordinate that is not a number"),
        (changed(bbox=[9, 19, 30]), "field 'bbox' must be four numbers"),
        (changed(bbox="9 19 30 40"), "field 'bbox' must be four numbers"),
        ([1, 2], "a detection is an object with image_id"),
    ],
)
def test_a_bad_entry_is_named(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        read_rows(tmp_path, row)


def test_the_entry_named_is_the_bad_one(tmp_path):
    with pytest.raises(InputError, match="entry 3"):
        read_rows(tmp_path, GOOD, changed(score=0.1), changed(score=float("nan")), changed(bbox=[0, 0, -1, -1]))


def test_rows_that_are_there_twice_are_named_or_allowed(tmp_path):
    with pytest.raises(InputError, match=r"1 rows are there twice .*entry 1 and .*entry 3; .*--allow-duplicates"):
        read_rows(tmp_path, GOOD, changed(score=0.25), GOOD)
    assert len(read_rows(tmp_path, GOOD, GOOD, allow_duplicates=True)) == 2


def test_ids_that_are_there_twice_are_named(tmp_path):
    with pytest.raises(InputError, match="entries 1 and 2 have the same id 7"):
        read_rows(tmp_path, changed(id=7), changed(id=7, score=0.25))


def test_a_file_cut_short_says_where(tmp_path):
    path = tmp_path / "preds.json"
    path.write_text(json.dumps([GOOD, GOOD], indent=1)[:-40])
    with pytest.raises(InputError, match=r"preds.json, line \d+, column \d+: not valid JSON .* cut short"):
        read_predictions(path, IDS, CLASSES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": []}', "COCO results are a list of detections"),
        (b"\xff\xfe\x00", "not a JSON text"),
        (b"", "not valid JSON"),
        (b"[" * 100_000, "not a JSON text"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "preds.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_predictions(path, IDS, CLASSES)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json: no such predictions"):
        read_predictions(tmp_path / "nowhere.json", IDS, CLASSES)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no VOC results"),
        ({"comp4_det_test_unicorn.txt": ""}, "unknown class 'unicorn'"),
        ({"comp4_det_test_cat.txt": "", "comp3_det_val_cat.txt": ""}, "two files for class 'cat'"),
        ({"comp4_det_test_cat.txt": "000012 0.5 1 1 9 9\n000012 0.5 1 1"}, "line 2: expected .* found 4 words"),
        ({"comp4_det_test_cat.txt": "000012 high 1 1 9 9\n"}, "line 1: could not convert string to float: 'high'"),
        ({"comp4_det_test_cat.txt": "000012 nan 1 1 9 9\n"}, r"line 1 \(picture 000012\): the score is not a number"),
        ({"comp4_det_test_cat.txt": "000012 0.5 9 1 7 9\n"}, "line 1 .*the box is upside down"),
        ({"comp4_det_test_cat.txt": "000099 0.5 1 1 9 9\n"}, "not among the 2 pictures judged: 000099"),
        ({"comp4_det_test_cat.txt": "000012 0.5 1 1 9 9\n" * 2}, "line 1 and .*line 2; remove them"),
    ],
)
def test_bad_voc_text_is_named(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_predictions(tmp_path, IDS, CLASSES)


def test_a_byte_order_mark_is_no_part_of_the_first_id(tmp_path):
    (tmp_path / "comp4_det_test_cat.txt").write_text("000012 0.5 1 1 9 9\n", "utf-8-sig")
    assert read_predictions(tmp_path, IDS, CLASSES).boxes.tolist() == [[0, 0, 9, 9]]


def test_voc_text_of_another_competition_and_class_names_with_a_low_line_are_read(tmp_path):
    (tmp_path / "comp3_det_val_hot_dog.txt").write_text("2008_000002 0.5 1 1 9 9\n")
    table = read_predictions(tmp_path, IDS, ["cat", "hot_dog"])
    assert table.labels.tolist() == [1] and table.boxes.tolist() == [[0, 0, 9, 9]]


def test_what_was_written_before_survives_a_write_that_fails(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder cannot be written"):
        write_coco_json(tmp_path / "folder", {}, CLASSES)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_class_that_cannot_be_a_file_name_is_refused(tmp_path):
    with pytest.raises(InputError, match="'a/b' cannot be part of a file name"):
        write_voc_text(tmp_path, {}, ["a/b"])
