"""Reading a devkit as published, and what happens when it is not as published."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spyolo.data import DataWarning, VOCSet, parse_classes, parse_splits, scan_classes
from spyolo.data.annotation import Thing, read_annotation
from spyolo.errors import InputError

CLASSES = ("cat", "dog")
CAT = Thing("cat", (10.0, 5.0, 40.0, 30.0))


def annotation_of(root: Path, image_id: str) -> Path:
    return root / "VOCdevkit" / "VOC2007" / "Annotations" / f"{image_id}.xml"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# --- splits and folders ---


def test_splits_are_written_with_a_plus():
    assert parse_splits("2007:train+2012:trainval") == [("2007", "train"), ("2012", "trainval")]
    assert parse_splits("train") == [("", "train")]


@pytest.mark.parametrize("text", ["", "2007:", "2007:train+", "2007:../train", "../x:train", "a:b:c", "2007:train+2007:train"])
def test_splits_that_make_no_sense_are_refused(text):
    with pytest.raises(InputError, match="split"):
        parse_splits(text)


@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_root_may_be_any_of_the_folders_on_the_way(make_devkit, below):
    assert VOCSet(make_devkit({"000012": [CAT]}) / below, "2007:train", CLASSES).ids == ["000012"]


def test_a_set_without_a_year_lies_in_the_root_itself(make_devkit):
    root = make_devkit({"a": [CAT]}) / "VOCdevkit" / "VOC2007"
    assert VOCSet(root.rename(root.parent / "mine"), "train", CLASSES).ids == ["a"]


def test_a_missing_devkit_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"VOCdevkit/VOC2007/ImageSets/Main.*make_sample"):
        VOCSet(tmp_path, "2007:train")


def test_a_missing_split_names_those_that_are_there(make_devkit):
    with pytest.raises(InputError, match=r"test\.txt does not exist; image sets there: train"):
        VOCSet(make_devkit({"a": [CAT]}), "2007:test", CLASSES)


def test_lines_of_an_image_set_may_carry_a_flag(make_devkit):
    root = make_devkit({"000012": [CAT], "000017": [], "my photo": []})
    (root / "VOCdevkit/VOC2007/ImageSets/Main/cat_train.txt").write_text("000012  1\n000017 -1\n\nmy photo  0\n000012  1\n")
    assert VOCSet(root, "2007:cat_train", CLASSES).ids == ["000012", "000017", "my photo"]


@pytest.mark.parametrize("line", ["../../etc/passwd", "a/b", "a\\b", ".."])
def test_ids_that_leave_the_folder_are_refused(make_devkit, line):
    root = make_devkit({"a": [CAT]})
    (root / "VOCdevkit/VOC2007/ImageSets/Main/train.txt").write_text(f"a\n{line}\n")
    with pytest.raises(InputError, match=r"train.txt, line 2: .*path separators"):
        VOCSet(root, "2007:train", CLASSES)


def test_two_years_join_and_may_not_share_an_id(make_devkit):
    make_devkit({"a": [CAT]}, year="2007")
    root = make_devkit({"b": [CAT, CAT]}, year="2012")
    both = VOCSet(root, "2007:train+2012:train", CLASSES)
    assert both.ids == ["a", "b"] and [len(both.objects(i)) for i in range(2)] == [1, 2]
    make_devkit({"a": [CAT]}, year="2012")
    with pytest.raises(InputError, match="image id a is both in"):
        VOCSet(root, "2007:train+2012:train", CLASSES)


# --- what is read ---


def test_boxes_are_continuous_corners_and_difficult_is_flagged(make_devkit):
    root = make_devkit({"a": [Thing("dog", (0, 0, 64, 48), difficult=True), CAT]})
    text = annotation_of(root, "a").read_text()
    assert "<xmin>11</xmin>" in text and "<xmax>40</xmax>" in text  # 1-based and inclusive, as VOC writes them
    voc = VOCSet(root, "2007:train", CLASSES, strict=True)
    assert voc.objects(0).boxes.tolist() == [[0, 0, 64, 48], [10, 5, 40, 30]]
    assert voc.objects(0).labels.tolist() == [1, 0]
    assert voc.objects(0).difficult.tolist() == [True, False]
    assert voc.size(0) == (64, 48) and voc.image(0).shape == (48, 64, 3)


def test_fractional_coordinates_stay_fractional(make_devkit):
    root = make_devkit({"a": [Thing("cat", (9.5, 4.25, 40.75, 30))]})
    assert VOCSet(root, "2007:train", CLASSES, strict=True).objects(0).boxes.tolist() == [[9.5, 4.25, 40.75, 30]]


def test_parts_of_objects_are_not_objects(make_devkit):
    root = make_devkit({"a": [CAT]})
    edit(annotation_of(root, "a"), "</object>", "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>")
    assert len(VOCSet(root, "2007:train", CLASSES, strict=True).objects(0)) == 1


def test_no_picture_need_be_there_until_one_is_asked_for(make_devkit):
    root = make_devkit({"a": [CAT]})
    shutil.rmtree(root / "VOCdevkit/VOC2007/JPEGImages")
    voc = VOCSet(root, "2007:train", CLASSES, strict=True)
    assert len(voc.objects(0)) == 1 and voc.size(0) == (64, 48)
    with pytest.raises(InputError, match=r"a\.jpg does not exist"):
        voc.image(0)


def test_a_good_set_warns_of_nothing_and_hands_out_copies(make_devkit):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        voc = VOCSet(make_devkit({"a": [CAT]}), "2007:train", CLASSES)
    voc.objects(0).boxes.zero_()
    assert voc.objects(0).boxes.tolist() == [[10, 5, 40, 30]] and not voc.warnings


def test_subset_keeps_the_order_asked_for(make_devkit):
    voc = VOCSet(make_devkit({"a": [CAT], "b": [CAT, CAT], "c": []}), "2007:train", CLASSES)
    part = voc.subset([2, 1])
    assert part.ids == ["c", "b"] and [len(part.objects(i)) for i in range(2)] == [0, 2]
    assert part.index("b") == 1 and voc.index("b") == 1 and voc.index("c") == 2


def test_class_lists(make_devkit, tmp_path):
    assert len(parse_classes("voc")) == 20 and len(parse_classes("sample")) >= 5
    assert parse_classes("cat, dog") == ("cat", "dog") and parse_classes("cat") == ("cat",)
    many = tuple(f"thing {i}" for i in range(1000))  # as a path, too long to look for
    assert parse_classes(",".join(many)) == many
    (tmp_path / "names.txt").write_text("dog\n\ncat\n")
    assert parse_classes(str(tmp_path / "names.txt")) == ("dog", "cat")
    assert scan_classes(make_devkit({"a": [Thing("zebra", (0, 0, 9, 9)), CAT]}), "2007:train") == ("cat", "zebra")
    (tmp_path / "a,b").mkdir()
    (tmp_path / "names.txt").rename(tmp_path / "a,b" / "names.txt")
    assert parse_classes(str(tmp_path / "a,b" / "names.txt")) == ("dog", "cat")
    never = ("nowhere.txt", "does not exist"), ("cat,nowhere.txt", "does not exist"), ("x" * 300, "cannot be looked for")
    for bad, why in (("cat,cat", "more than once"), (" , ", "empty"), *never):
        with pytest.raises(InputError, match=why):
            parse_classes(bad)


# --- bad samples: tolerated with a counted warning, or refused ---

BAD_BOXES = {
    "box clipped": Thing("cat", (-5, 5, 70, 30)),
    "box left out": Thing("cat", (70, 5, 90, 30)),
}


@pytest.mark.parametrize(("kind", "thing"), BAD_BOXES.items())
def test_a_box_outside_its_picture(make_devkit, kind, thing):
    root = make_devkit({"a": [CAT, thing], "b": [thing]})
    with pytest.warns(DataWarning, match=f"2 x {kind}; first: .*a.xml, object 2 .cat.: field <bndbox>.*64 x 48"):
        voc = VOCSet(root, "2007:train", CLASSES)
    assert voc.warnings == {kind: 2}
    assert voc.objects(1).boxes.tolist() == ([[0, 5, 64, 30]] if kind == "box clipped" else [])
    with pytest.raises(InputError, match=r"object 2 .cat.: field <bndbox>"):
        VOCSet(root, "2007:train", CLASSES, strict=True)


@pytest.mark.parametrize("value", ["5", "nan", "", "wide", "1e999"])
def test_a_box_with_no_area_or_no_numbers(make_devkit, value):
    root = make_devkit({"a": [CAT]})
    edit(annotation_of(root, "a"), "<xmax>40</xmax>", f"<xmax>{value}</xmax>")
    with pytest.warns(DataWarning, match="1 x box left out"):
        assert len(VOCSet(root, "2007:train", CLASSES).objects(0)) == 0
    with pytest.raises(InputError, match=r"a.xml, object 1 .*<bndbox>"):
        VOCSet(root, "2007:train", CLASSES, strict=True)


def test_an_unknown_class(make_devkit):
    root = make_devkit({"a": [CAT, Thing("unicorn", (0, 0, 9, 9))], "b": [Thing("unicorn", (0, 0, 9, 9)), Thing("elf", (0, 0, 9, 9))]})
    with pytest.warns(DataWarning, match=r"3 x object of unknown class left out: unicorn \(2\), elf \(1\)") as caught:
        voc = VOCSet(root, "2007:train", CLASSES)
    assert len(caught) == 1 and voc.unknown_classes == {"unicorn": 2, "elf": 1} and len(voc.objects(0)) == 1
    with pytest.raises(InputError, match=r"a.xml, object 2 \(unicorn\): field <name> is none of the 2 classes"):
        VOCSet(root, "2007:train", CLASSES, strict=True)


BOMB = '<!DOCTYPE a [<!ENTITY b "ha">]><annotation><filename>&b;</filename></annotation>'


@pytest.mark.parametrize("damage", ["cut off", "missing", "entities", "another format", "empty", "binary"])
def test_an_annotation_that_cannot_be_read(make_devkit, damage):
    root = make_devkit({"a": [CAT], "b": [CAT]})
    path = annotation_of(root, "a")
    whole = path.read_text()
    texts = {"cut off": whole[: len(whole) // 2], "entities": BOMB, "another format": "<html></html>", "empty": "", "binary": "\x00\x01"}
    path.unlink() if damage == "missing" else path.write_text(texts[damage])
    with pytest.warns(DataWarning, match=r"1 x picture left out; first: .*a\.xml"):
        voc = VOCSet(root, "2007:train", CLASSES)
    assert voc.ids == ["b"] and len(voc.objects(0)) == 1
    with pytest.raises(InputError, match=r"a\.xml"):
        VOCSet(root, "2007:train", CLASSES, strict=True)
    annotation_of(root, "b").unlink()
    with pytest.raises(InputError, match=r"no picture of 2007:train is usable; first problem: .*a\.xml"):
        VOCSet(root, "2007:train", CLASSES)


def test_a_size_that_is_missing_is_taken_from_the_picture(make_devkit):
    root = make_devkit({"a": [Thing("cat", (-3, 5, 40, 30))]})
    edit(annotation_of(root, "a"), "<width>64</width>", "<width>0</width>")
    with pytest.warns(DataWarning, match="box clipped"), pytest.warns(DataWarning, match="size taken from the picture"):
        voc = VOCSet(root, "2007:train", CLASSES)
    assert voc.size(0) == (64, 48) and voc.objects(0).boxes.tolist() == [[0, 5, 40, 30]]
    with pytest.raises(InputError, match="field <size> is missing or zero"):
        VOCSet(root, "2007:train", CLASSES, strict=True)


def test_a_picture_whose_size_disagrees(make_devkit):
    root = make_devkit({"a": [CAT]})
    Image.new("RGB", (32, 24)).save(root / "VOCdevkit/VOC2007/JPEGImages/a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg is 32 x 24 pixels, but field <size> of .*a\.xml says 64 x 48"):
        VOCSet(root, "2007:train", CLASSES).image(0)


def test_exif_orientation_counts_where_the_annotation_says_so(make_devkit):
    """A camera held upright stores 48 x 64 lying down as 64 x 48 and a note; annotators may have seen either."""
    root = make_devkit({"a": [CAT]})
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:, :32] = 255
    note = Image.Exif()
    note[274] = 6  # turn a quarter clockwise
    Image.fromarray(stored).save(root / "VOCdevkit/VOC2007/JPEGImages/a.jpg", exif=note)
    assert VOCSet(root, "2007:train", CLASSES).image(0)[:, :20].min() > 200  # as stored: white on the left
    path = annotation_of(root, "a")
    edit(path, "<width>64</width>", "<width>48</width>")
    edit(path, "<height>48</height>", "<height>64</height>")
    assert VOCSet(root, "2007:train", CLASSES).image(0)[:20].min() > 200  # as seen: white on top


def test_an_annotation_reads_back_as_it_was_written(make_devkit):
    things = [Thing("cat", (0.5, 1, 20.125, 30)), Thing("dog", (3, 4, 5, 6), difficult=True)]
    assert read_annotation(annotation_of(make_devkit({"a": things}), "a")).things == things


def test_a_byte_order_mark_is_no_part_of_the_first_word(make_devkit, tmp_path):
    root = make_devkit({"000012": [CAT], "000017": []})
    (root / "VOCdevkit/VOC2007/ImageSets/Main/train.txt").write_text("000012\n000017\n", "utf-8-sig")
    assert VOCSet(root, "2007:train", CLASSES).ids == ["000012", "000017"]
    (tmp_path / "names.txt").write_text("cat\ndog\n", "utf-8-sig")
    assert parse_classes(str(tmp_path / "names.txt")) == CLASSES
