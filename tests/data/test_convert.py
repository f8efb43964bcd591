"""From one format to another and back, and what each of them cannot carry."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from spyolo.cli import run
from spyolo.data import SAMPLE_CLASSES, DataWarning, VOCSet
from spyolo.data.annotation import Thing
from spyolo.data.coco_format import read_coco, write_coco
from spyolo.data.convert import Collection, Entry, read_voc, write_voc
from spyolo.data.images import read_image
from spyolo.data.yolo_format import read_yolo, write_yolo
from spyolo.errors import InputError

CLASSES = ("cat", "dog")
THINGS = {
    "000012": [Thing("dog", (10, 5, 40, 30), difficult=True), Thing("cat", (0, 0, 64, 48))],
    "000017": [],
    "2008_1": [Thing("cat", (9.25, 4.5, 20.125, 47.75))],
}


@pytest.fixture
def collection(make_devkit) -> Collection:
    return read_voc(make_devkit(THINGS), "2007:train", CLASSES)


def told(collection: Collection) -> dict[str, object]:
    """All but the places of the pictures."""
    return {e.image_id: (e.width, e.height, e.things) for e in collection.entries} | {"classes": collection.classes}


def test_a_devkit_is_read_as_it_was_written(collection):
    assert told(collection) == {key: (64, 48, things) for key, things in THINGS.items()} | {"classes": CLASSES}


def test_voc_to_coco_and_back(collection, tmp_path):
    path = write_coco(collection, tmp_path / "coco", "train")
    there = read_coco(path, strict=True)
    assert told(there) == told(collection)
    write_voc(there, tmp_path / "back", "train")
    assert told(read_voc(tmp_path / "back", "2007:train", CLASSES, strict=True)) == told(collection)
    copied, original = (c.entries[0].picture.read_bytes() for c in (there, collection))
    assert copied == original


def test_pycocotools_reads_it_and_difficult_is_a_crowd_to_it(collection, tmp_path, capsys):
    coco = COCO(str(write_coco(collection, tmp_path, "train", pictures="none")))
    assert [coco.cats[k]["name"] for k in sorted(coco.cats)] == ["cat", "dog"] and min(coco.cats) == 1
    first = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert [(a["bbox"], a["iscrowd"], a["area"]) for a in first] == [([10, 5, 30, 25], 1, 750), ([0, 0, 64, 48], 0, 3072)]


def test_voc_to_yolo_and_back_but_for_difficult(collection, tmp_path):
    write_yolo(collection, tmp_path / "yolo", "train")
    assert (tmp_path / "yolo/labels/train/000017.txt").read_text() == ""
    assert (tmp_path / "yolo/labels/train/000012.txt").read_text().splitlines()[1] == "0 0.5 0.5 1 1"
    there = read_yolo(tmp_path / "yolo", "train", strict=True)
    easy = {key: (64, 48, [Thing(t.name, t.box) for t in things]) for key, things in THINGS.items()}
    assert told(there) == easy | {"classes": CLASSES}
    write_yolo(collection, tmp_path / "dropped", "train", drop_difficult=True)
    assert len((tmp_path / "dropped/labels/train/000012.txt").read_text().splitlines()) == 1


def test_a_whole_sample_set_goes_round(sample_root, tmp_path):
    start = read_voc(sample_root, "2007:trainval", SAMPLE_CLASSES, strict=True)
    coco = read_coco(write_coco(start, tmp_path / "coco", "all", "link"), strict=True)
    write_yolo(coco, tmp_path / "yolo", "all", "link")
    end = read_yolo(tmp_path / "yolo", "all", strict=True)
    assert told(coco) == told(start)
    assert [[(t.name, t.box) for t in e.things] for e in end.entries] == [[(t.name, t.box) for t in e.things] for e in start.entries]


def test_boxes_outside_are_clipped_or_refused_in_every_format(collection, tmp_path):
    path = write_coco(collection, tmp_path / "coco", "train")
    tree = json.loads(path.read_text())
    tree["annotations"][0]["bbox"] = [50, 5, 30, 25]
    path.write_text(json.dumps(tree))
    with pytest.warns(DataWarning, match=r"1 x box clipped; first: .*annotations, id 1: field bbox"):
        assert read_coco(path).entries[0].things[0].box == (50, 5, 64, 30)
    with pytest.raises(InputError, match="annotations, id 1: field bbox"):
        read_coco(path, strict=True)
    write_yolo(collection, tmp_path / "yolo", "train")
    (tmp_path / "yolo/labels/train/000017.txt").write_text("1 2 2 0.1 0.1\n0 nan 0 0 0\n")
    with pytest.warns(DataWarning, match=r"2 x box left out; first: .*000017\.txt, line 1"):
        assert read_yolo(tmp_path / "yolo", "train").entries[1].things == []


def test_numbers_that_are_too_large_are_no_box(collection, tmp_path):
    path = write_coco(collection, tmp_path, "train", "none")
    tree = json.loads(path.read_text())
    tree["annotations"][0]["bbox"], tree["annotations"][1]["bbox"] = [10**400, 0, 1, 1], [1e308, 0, 1e308, 1]
    path.write_text(json.dumps(tree))
    with pytest.warns(DataWarning, match=r"2 x box left out; first: .*annotations, id 1: field bbox does not hold four numbers"):
        assert read_coco(path).entries[0].things == []


def test_no_picture_is_brought_before_all_are_known_to_be_there(collection, tmp_path):
    collection.entries[-1].picture.unlink()
    with pytest.raises(InputError, match="does not exist; with --pictures none"):
        write_coco(collection, tmp_path / "coco", "train")
    assert not [path for path in (tmp_path / "coco").rglob("*") if path.is_file()]


BAD_JSON = {
    "cut off": (lambda t: json.dumps(t)[:-20], "no complete JSON"),
    "another file": (lambda t: "[]", "field images is missing"),
    "no name": (lambda t: json.dumps({**t, "images": [{"id": 1}]}), "images: field file_name is missing"),
    "path": (lambda t: json.dumps({**t, "images": [{**t["images"][0], "file_name": "../../a.jpg"}]}), "leaves the picture folder"),
    "size": (lambda t: json.dumps({**t, "images": [{**t["images"][0], "width": 0}]}), "width and height must be positive"),
    "twice": (lambda t: json.dumps({**t, "images": t["images"] * 2}), "id 1 is there twice"),
    "one name": (lambda t: json.dumps({**t, "images": [{**t["images"][0], "id": k} for k in (1, 2)]}), "would both get the id 000012"),
    "category": (lambda t: json.dumps({**t, "categories": t["categories"][:1]}), "category_id 2 is none of the file's"),
    "image": (lambda t: json.dumps({**t, "images": t["images"][1:]}), "annotations, id 1: image_id 1 is none of the file's"),
}


@pytest.mark.parametrize("damage", BAD_JSON)
def test_a_json_that_makes_no_sense(collection, tmp_path, damage):
    path = write_coco(collection, tmp_path, "train", "none")
    change, why = BAD_JSON[damage]
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(InputError, match=f"instances_train.json.*{why}"):
        read_coco(path)


NO_LINE = "is not `class x y width height`"


@pytest.mark.parametrize(
    ("line", "why"), [("0 0.5 0.5 1", NO_LINE), ("cat 0.5 0.5 1 1", NO_LINE), ("0 a b c d", NO_LINE), ("2 0 0 1 1", "of 2 classes")]
)
def test_a_line_that_makes_no_sense(collection, tmp_path, line, why):
    write_yolo(collection, tmp_path, "train")
    (tmp_path / "labels/train/000012.txt").write_text("\n" + line)
    with pytest.raises(InputError, match=rf"000012\.txt, line 2: .*{why}"):
        read_yolo(tmp_path, "train")


def test_a_byte_order_mark_is_no_part_of_the_first_line(collection, tmp_path):
    path = write_yolo(collection, tmp_path, "train")
    for file in (path, tmp_path / "labels/train/000012.txt"):
        file.write_text(file.read_text(), "utf-8-sig")
    assert [len(e.things) for e in read_yolo(tmp_path, "train", strict=True).entries] == [2, 0, 1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_yolo_boxes_are_of_the_picture_as_shown_and_voc_boxes_of_the_raster_as_stored(make_devkit, tmp_path, orientation):
    """Where the pixels of a marked object are, in both frames, is what the boxes must say."""
    stored, box = np.zeros((48, 64, 3), np.uint8), (8, 30, 24, 40)
    stored[30:40, 8:24] = 255
    root, note = make_devkit({"a": [Thing("cat", box)]}), Image.Exif()
    note[274] = orientation
    path = root / "VOCdevkit/VOC2007/JPEGImages/a.jpg"
    Image.fromarray(stored).save(path, quality=100, subsampling=0, exif=note)
    write_yolo(read_voc(root, "2007:train", CLASSES), tmp_path / "yolo", "train")
    shown = read_image(path)
    height, width = shown.shape[:2]
    x, y, w, h = (float(word) for word in (tmp_path / "yolo/labels/train/a.txt").read_text().split()[1:])
    rows, columns = (np.flatnonzero((shown[..., 0] > 127).any(axis)) for axis in (1, 0))
    seen = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height) == pytest.approx(seen)
    back = read_yolo(tmp_path / "yolo", "train", strict=True)
    assert told(back)["a"] == (64, 48, [Thing("cat", box)])
    write_voc(back, tmp_path / "voc", "train")
    again = VOCSet(tmp_path / "voc", "2007:train", CLASSES, strict=True)
    assert again.image(0).shape == (48, 64, 3) and (again.image(0)[30:40, 8:24] > 127).all()


def test_an_annotation_of_the_picture_as_shown_stays_one_in_yolo(make_devkit, tmp_path):
    root, note = make_devkit({"a": [Thing("cat", (0, 30, 20, 60))]}, size=(48, 64)), Image.Exif()
    note[274] = 6
    Image.new("RGB", (64, 48)).save(root / "VOCdevkit/VOC2007/JPEGImages/a.jpg", exif=note)
    write_yolo(read_voc(root, "2007:train", CLASSES), tmp_path, "train")
    numbers = [float(word) for word in (tmp_path / "labels/train/a.txt").read_text().split()[1:]]
    assert numbers == pytest.approx([10 / 48, 45 / 64, 20 / 48, 30 / 64])


def test_yolo_pictures_of_other_endings_and_labels_that_are_not_there_are_told(collection, tmp_path):
    write_yolo(collection, tmp_path, "train")
    images = tmp_path / "images" / "train"
    Image.new("RGB", (64, 48)).save(images / "d.tif")
    (images / "notes.txt").write_text("no picture")
    (images / "000017.jpg").rename(images / "000017.Jpg")
    with pytest.warns(DataWarning, match=r"2 x picture left out; first: .*000017.Jpg: endings taken are .jpg, .jpeg"):
        assert len(read_yolo(tmp_path, "train").entries) == 2
    with pytest.raises(InputError, match="endings taken are"):
        read_yolo(tmp_path, "train", strict=True)
    shutil.rmtree(tmp_path / "labels")
    with pytest.raises(InputError, match=r"no YOLO labels: .*images/train is there, but not .*labels/train"):
        read_yolo(tmp_path, "train")


def test_yolo_folders_in_the_other_order_and_without_names(collection, tmp_path):
    write_yolo(collection, tmp_path, "train")
    for kind in ("images", "labels"):
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / kind / "train").rename(tmp_path / "train" / kind)
    assert len(read_yolo(tmp_path, "train").entries) == 3
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(InputError, match=r"no class names: looked for data\.yaml and classes\.txt"):
        read_yolo(tmp_path, "train")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert read_yolo(tmp_path, "train").classes == CLASSES
    with pytest.raises(InputError, match="no YOLO pictures: looked for"):
        read_yolo(tmp_path, "val")


def test_nothing_that_is_there_is_overwritten(collection, tmp_path):
    for write in (write_voc, write_coco, write_yolo):
        write(collection, tmp_path / write.__name__, "train")
        before = {p: p.read_bytes() for p in (tmp_path / write.__name__).rglob("*.*") if p.is_file()}
        with pytest.raises(InputError, match="exists; give another --out or --name"):
            write(collection, tmp_path / write.__name__, "train")
        assert {p: p.read_bytes() for p in (tmp_path / write.__name__).rglob("*.*") if p.is_file()} == before
        write(collection, tmp_path / write.__name__, "val")  # another part may join
    with pytest.raises(InputError, match=r"data\.yaml names other classes"):
        write_yolo(Collection(("dog", "cat"), []), tmp_path / "write_yolo", "test")
    with pytest.raises(InputError, match=r"instances_train\.json has other categories, or in another order"):
        write_coco(Collection(("dog", "cat"), []), tmp_path / "write_coco", "test")
    (tmp_path / "write_coco" / "annotations" / "instances_train.json").write_text("[]")
    with pytest.raises(InputError, match=r"instances_train\.json is no part of a COCO set"):
        write_coco(collection, tmp_path / "write_coco", "test")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


def another(collection: Collection, folder: Path, value: int, things: list[Thing]) -> Collection:
    """A picture of as many bytes under the first id, and a new one."""
    entries = []
    for image_id in (collection.entries[0].image_id, "new"):
        picture = folder / f"{image_id}.bmp"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (64, 48), (value, value, value)).save(picture)
        entries.append(Entry(image_id, 64, 48, things, picture))
    return Collection(CLASSES, entries)


def test_another_part_with_an_id_that_is_there_is_refused_before_anything_is_written(collection, tmp_path):
    things = [Thing("cat", (1, 2, 3, 4))]
    first, second = another(collection, tmp_path / "a", 10, things), another(collection, tmp_path / "b", 20, things)
    assert first.entries[0].picture.stat().st_size == second.entries[0].picture.stat().st_size
    other_box = another(collection, tmp_path / "c", 10, [Thing("cat", (1, 2, 3, 5))])
    out = tmp_path / "out"
    write_voc(first, out, "train")
    before = contents(out)
    for pictures, part, told in (
        ("copy", second, r"000012\.bmp is another picture than"),
        ("link", second, r"000012\.bmp is another picture than"),
        ("copy", other_box, r"000012\.xml is there and says something else"),
        ("none", other_box, r"000012\.xml is there and says something else"),
    ):
        with pytest.raises(InputError, match=told):
            write_voc(part, out, "val", pictures=pictures)
        assert contents(out) == before
    write_voc(another(collection, tmp_path / "d", 10, things), out, "val")  # the same picture may be in two parts
    for write in (write_coco, write_yolo):
        write(first, tmp_path / write.__name__, "train")
        next((tmp_path / write.__name__).rglob("instances_train.json"), tmp_path / "nothing").unlink(missing_ok=True)
        shutil.rmtree(tmp_path / write.__name__ / "labels", ignore_errors=True)
        with pytest.raises(InputError, match=r"000012\.bmp is another picture than"):
            write(second, tmp_path / write.__name__, "train")


@pytest.mark.parametrize("name", ["a+b", "2007:x", " x", "../x"])
@pytest.mark.parametrize("target", ["voc", "coco", "yolo"])
def test_a_part_can_be_asked_for_under_its_name(make_devkit, tmp_path, capsys, name, target):
    options = ["--from", "voc", "--to", target, "--data", str(make_devkit(THINGS)), "--split", "2007:train", "--name", name]
    assert run("convert", [*options, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and ("is no name for a part" in told or "is not understood" in told) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("way", "options", "told"),
    [
        ("voc coco", "--difficult drop", "--difficult: for --to yolo; --to coco keeps"),
        ("voc voc", "--difficult drop", "--difficult: for --to yolo"),
        ("voc coco", "--year 1999", "--year: for --to voc; --to coco has no years"),
        ("voc yolo", "--picture-folder /nowhere", "--picture-folder: for --from coco"),
        ("coco voc", "--split 2007:train", "--split: not for --from coco"),
        ("coco voc", "--classes cat,dog", "--classes: not for --from coco"),
    ],
)
def test_options_that_do_not_apply_are_refused(tmp_path, capsys, way, options, told):
    source, target = way.split()
    command = f"--from {source} --to {target} --data nowhere --out {tmp_path / 'out'} {options}"
    assert run("convert", command.split()) == 2
    assert capsys.readouterr().err.startswith(f"error: {told}") and not (tmp_path / "out").exists()


def test_a_year_cannot_leave_the_folder(collection, tmp_path):
    with pytest.raises(InputError, match="no path separators"):
        write_voc(collection, tmp_path / "out", "train", "/../../../2007")
    assert not (tmp_path / "out").exists()


def test_missing_pictures_and_ids_that_voc_cannot_hold(collection, tmp_path):
    entry = collection.entries[0]
    Path(entry.picture).unlink()
    with pytest.raises(InputError, match=r"000012\.jpg does not exist; with --pictures none"):
        write_coco(collection, tmp_path, "train")
    odd = Collection(CLASSES, [type(entry)("photo 1", 64, 48, [], entry.picture)])
    with pytest.raises(InputError, match="'photo 1' cannot stand in an image set"):
        write_voc(odd, tmp_path / "odd", "train", pictures="none")


def test_a_part_that_failed_for_a_picture_can_be_written_once_the_picture_is_there(collection, tmp_path):
    missing = Path(collection.entries[-1].picture)
    content = missing.read_bytes()
    missing.unlink()
    with pytest.raises(InputError, match="does not exist"):
        write_yolo(collection, tmp_path / "out", "train")
    missing.write_bytes(content)
    write_yolo(collection, tmp_path / "out", "train")


def test_command_line_round_trip(sample_root, tmp_path, capsys):
    to_coco = f"--from voc --to coco --data {sample_root} --split 2007:val --out {tmp_path}/c"
    steps = [
        to_coco,
        f"--from coco --to voc --data {tmp_path}/c/annotations/instances_val.json --out {tmp_path}/v",
        f"--from voc --to yolo --data {tmp_path}/v --split 2007:val --out {tmp_path}/y --classes sample",
        f"--from yolo --to voc --data {tmp_path}/y --split val --out {tmp_path}/w --year 2030",
    ]
    for step in steps:
        assert run("convert", step.split()) == 0, capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        places = ((sample_root, "2007:val"), (tmp_path / "v", "2007:val"), (tmp_path / "w", "2030:val"))
        first, middle, last = (VOCSet(root, split, SAMPLE_CLASSES) for root, split in places)
    for i in range(len(first)):
        assert first.objects(i).boxes.tolist() == middle.objects(i).boxes.tolist() == last.objects(i).boxes.tolist()
        assert first.objects(i).difficult.tolist() == middle.objects(i).difficult.tolist()
    assert "difficult objects are ordinary ones now" in capsys.readouterr().out
    assert run("convert", to_coco.split()) == 2 and "exists" in capsys.readouterr().err
    assert run("convert", to_coco.replace("--split 2007:val", "").split()) == 2 and "--split is missing" in capsys.readouterr().err


@pytest.mark.parametrize("image_id", ["a\u2028b", "a\x0cb", "a\rb", "x" * 201, " a", "a 1", "a/b"])
def test_ids_that_an_image_set_would_not_give_back_are_refused(collection, tmp_path, image_id):
    first = replace(collection.entries[0], image_id=image_id)
    with pytest.raises(InputError, match="cannot stand in an image set; rename the picture"):
        write_voc(replace(collection, entries=[first]), tmp_path / "out", "train", pictures="none")


@pytest.mark.parametrize("name", ["", "cat\x01", "traffic  light", " cat", "c" * 101, "\ud800"])
def test_class_names_that_an_annotation_would_not_give_back_are_refused(collection, tmp_path, name):
    first = replace(collection.entries[0], things=[replace(collection.entries[0].things[0], name=name)])
    with pytest.raises(InputError, match="cannot stand in an annotation as the name of a class; rename the class"):
        write_voc(replace(collection, entries=[first]), tmp_path / "out", "train", pictures="none")


@pytest.mark.parametrize("write", [write_voc, write_yolo])
def test_pictures_that_would_not_be_found_again_are_refused(collection, tmp_path, write):
    picture = tmp_path / "a.tif"
    picture.write_bytes(collection.entries[0].picture.read_bytes())
    first = replace(collection.entries[0], picture=picture)
    with pytest.raises(InputError, match=r"a.tif: endings that are found again are .jpg, "):
        write(replace(collection, entries=[first]), tmp_path / "out", "train")
    assert not list((tmp_path / "out").rglob("*.txt"))


def test_a_class_named_twice_in_a_yolo_set_is_refused(collection, tmp_path):
    write_yolo(collection, tmp_path / "yolo", "train")
    next((tmp_path / "yolo").rglob("data.yaml")).write_text("names: [cat, cat, dog]")
    with pytest.raises(InputError, match=r"data.yaml: field names has 'cat' more than once: objects could not be told apart"):
        read_yolo(tmp_path / "yolo", "train")
