"""Files from anybody: whatever is in them, a reader returns or says in one line what is wrong. No other exception, no hang, no swelling.

Each reader gets files of its kind, spoilt by a seeded mutator (fuzzing.py): some in every run of the tests, 10,000 with `pytest -m slow
tests/test_fuzz.py`. What hypothesis draws comes below. A failure names reader and number: `spoilt("annotation", 17)` is that file again.
"""

from __future__ import annotations

import io
import json
import random
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fuzzing import mutate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from spyolo.checkpoint import WeightsInfo, load_detector, save_weights
from spyolo.cli.energy_table import read_run
from spyolo.config import Config, load_config
from spyolo.data import VOCSet, image_size, read_image
from spyolo.data.annotation import Annotation, Thing, write_annotation
from spyolo.data.classes import parse_classes
from spyolo.data.coco_format import read_coco
from spyolo.data.splits import parse_splits, read_image_set
from spyolo.data.yolo_format import read_yolo
from spyolo.detection import build_detector
from spyolo.errors import InputError
from spyolo.evaluation.predictions import read_predictions
from spyolo.evaluation.prices import read_prices
from spyolo.legacy import read_pth
from spyolo.weights import read_manifest

CLASSES = ("cat", "dog")
SLOW = 10_000  # files of all kinds together
SECONDS, MEGABYTES = 5, 1500  # for one file; growth over all


# --- files of each kind ---


def annotations(folder: Path) -> list[bytes]:
    made = []
    for k, name in enumerate(("cat", "dog", "no such class")):
        things = [Thing(name, (1.0 + k, 2, 30, 40), bool(k)), Thing("cat", (0, 0, 64, 48))]
        write_annotation(folder / "a.xml", Annotation(64, 48, things), "a.jpg", "VOC2007")
        made.append((folder / "a.xml").read_bytes())
    bomb = b'<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;&b;">]><annotation><filename>&c;</filename></annotation>'
    return [*made, bomb, b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>']


def pictures(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8))
    kinds: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("JPEG", noise, {}), ("JPEG", noise, {"progressive": True}), ("JPEG", noise.convert("CMYK"), {}), ("PNG", noise, {}),
        ("PNG", noise.quantize(8), {}), ("PNG", Image.fromarray(rng.integers(0, 65535, (24, 32), np.uint16)), {}),
        ("PNG", noise.convert("RGBA"), {}), ("GIF", noise.quantize(8), {}), ("BMP", noise, {}), ("WEBP", noise, {}), ("TIFF", noise, {}),
        ("TIFF", noise, {"compression": "tiff_lzw"}), ("PPM", noise, {}), ("TGA", noise, {}), ("ICO", noise, {}),
    ]  # fmt: skip
    made = []
    for kind, picture, how in kinds:
        out = io.BytesIO()
        picture.save(out, kind, **how)
        made.append(out.getvalue())
    return made


def coco_results(folder: Path) -> list[bytes]:
    rows = [{"image_id": "a", "category_id": 1, "category": "cat", "bbox": [1.5, 2, 3, 4], "score": 0.5, "id": k} for k in range(3)]
    return [json.dumps(rows[:1]).encode(), json.dumps(rows, indent=1).encode(), b"[]"]


def voc_results(folder: Path) -> list[bytes]:
    return [b"a 0.5 1 2 3 4\na 0.25 2.5 3 4 5\n", b"a 1e-3 1 1 2 2\n"]


def configs(folder: Path) -> list[bytes]:
    bomb = "a: &a [1, 2]\n" + "".join(f"{k}: &{k} [{', '.join([f'*{p}'] * 8)}]\n" for p, k in zip("abcdefgh", "bcdefghi"))
    kinds = ["lr: 0.1\nclasses: [cat, dog]\n", "learning:\n  lr: 1e-2\n  timesteps: 3\n", bomb + "lr: *i\n", bomb + "classes: *i\n"]
    return [Config().to_yaml().encode(), *(kind.encode() for kind in kinds)]


def weights(folder: Path) -> list[bytes]:
    made = []
    for name in ("spyv4_lite", "yolov4_tiny"):
        torch.manual_seed(0)
        detector = build_detector(name, 2, width=0.05)
        save_weights(folder / "w", detector, WeightsInfo(detector.spec, CLASSES, size=64, timesteps=2))
        whole = (folder / "w").read_bytes()
        made.append(whole)
    return made


def manifests(folder: Path) -> list[bytes]:
    row = {"name": "tiny", "file": "t.safetensors", "sha256": "0" * 64, "config": {}, "classes": ["cat"], "training": {}, "protocol": {},
           "metrics": {"voc10_ap50": 0.5}, "firing_rate": 0.1, "energy": {}}  # fmt: skip
    return [json.dumps({"format": 1, "models": [row, row | {"name": "other"}]}).encode(), b'{"models": []}']


def coco_sets(folder: Path) -> list[bytes]:
    tree = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}, {"id": 2, "file_name": "b.jpg", "width": 64, "height": 48}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    return [json.dumps(tree).encode()]


def image_sets(folder: Path) -> list[bytes]:
    return [b"000012\n000017 -1\nmy photo  0\n", b"a\n"]


def class_lists(folder: Path) -> list[bytes]:
    return [b"cat\ndog\n\nbird\n", "Käse\nくま\n".encode()]


def pickles(folder: Path) -> list[bytes]:
    made = []
    for how in (True, False):
        torch.save({"a.weight": torch.ones(3, 2), "b": torch.arange(4)}, folder / "p", _use_new_zipfile_serialization=how)
        made.append((folder / "p").read_bytes())
    return made


def price_lists(folder: Path) -> list[bytes]:
    return [b"mine: {mac: 4.6, add: 0.9, bits: 32, source: here}\nother: {mac: 1, add: 2, bits: 8, source: there}\n"]


def metrics(folder: Path) -> list[bytes]:
    energy = {"by_price": {"fp32": {"per_timestep": [{"total_mj": 1.0}]}}, "per_timestep": [{"timesteps": 1}]}
    return [json.dumps({"protocol": {"detector": "d"}, "energy": energy}).encode()]


def yolo_labels(folder: Path) -> list[bytes]:
    return [b"0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.2 0.2\n"]


def yolo_indices(folder: Path) -> list[bytes]:
    return [b"path: .\ntrain: images/train\nnames:\n  0: cat\n  1: dog\n", b"names: [cat, dog]\n"]


# --- and their readers, which find the file in a folder that holds all that belongs with it ---


def devkit(folder: Path) -> Path:
    base = folder / "VOCdevkit" / "VOC2007"
    if not (base / "ImageSets").exists():
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (base / name).mkdir(parents=True, exist_ok=True)
        (base / "ImageSets" / "Main" / "train.txt").write_text("a\n")
        Image.new("RGB", (64, 48)).save(base / "JPEGImages" / "a.jpg")
    return base


def read_devkit(path: Path) -> None:
    voc = VOCSet(path.parents[3], "2007:train", CLASSES)
    boxes = voc.objects(0).boxes
    width, height = voc.size(0)
    assert boxes.isfinite().all() and (boxes >= 0).all() and (boxes <= torch.tensor([width, height] * 2)).all()


def read_picture(path: Path) -> None:
    width, height = image_size(path)
    image = read_image(path, max_pixels=4_000_000)
    assert image.dtype == np.uint8 and image.shape[2] == 3 and {image.shape[0], image.shape[1]} == {width, height}


def read_results(path: Path) -> None:
    table = read_predictions(path, ["a", "b"], CLASSES)
    assert np.isfinite(table.boxes).all() and np.isfinite(table.scores).all()


def read_weights(path: Path) -> None:
    detector, info = load_detector(path)
    assert len(info.classes) == detector.spec.num_classes and all(p.isfinite().all() for p in detector.parameters())


def read_yolo_set(path: Path) -> None:
    root = path.parents[2] if path.suffix == ".txt" else path.parent
    (root / "images" / "train").mkdir(parents=True, exist_ok=True)
    if not (root / "images" / "train" / "a.png").exists():
        Image.new("RGB", (64, 48)).save(root / "images" / "train" / "a.png")
    read_yolo(root, "train", CLASSES if path.suffix == ".txt" else None)


@dataclass(frozen=True)
class Kind:
    seeds: Callable[[Path], list[bytes]]
    place: str  # of the file, in a folder of its own
    read: Callable[[Path], Any]
    share: int  # of the files


KINDS = {
    "annotation": Kind(annotations, "VOCdevkit/VOC2007/Annotations/a.xml", read_devkit, 16),
    "picture": Kind(pictures, "a.img", read_picture, 24),
    "COCO results": Kind(coco_results, "r.json", read_results, 8),
    "VOC results": Kind(voc_results, "r/comp4_det_test_cat.txt", lambda path: read_results(path.parent), 8),
    "config": Kind(configs, "c.yaml", load_config, 10),
    "weights": Kind(weights, "w.safetensors", read_weights, 8),
    "manifest": Kind(manifests, "manifest.json", lambda path: read_manifest(path.parent), 6),
    "COCO set": Kind(coco_sets, "annotations/instances_a.json", read_coco, 6),
    "image set": Kind(image_sets, "ImageSets/Main/a.txt", lambda path: read_image_set(path.parents[2], "a"), 3),
    "class list": Kind(class_lists, "names.txt", lambda path: parse_classes(str(path)), 2),
    "pickle": Kind(pickles, "p.pth", read_pth, 4),
    "price list": Kind(price_lists, "p.yaml", read_prices, 2),
    "metrics": Kind(metrics, "m.json", lambda path: read_run(str(path)), 1),
    "YOLO labels": Kind(yolo_labels, "labels/train/a.txt", read_yolo_set, 1),
    "YOLO index": Kind(yolo_indices, "data.yaml", read_yolo_set, 1),
}
ALL = sum(kind.share for kind in KINDS.values())


@cache
def seeds_of(kind: str, folder: Path) -> list[bytes]:
    folder.mkdir(exist_ok=True)
    return KINDS[kind].seeds(folder)


def spoilt(kind: str, number: int, folder: Path) -> bytes:
    return mutate(seeds_of(kind, folder / "seeds"), random.Random(f"{kind} {number}"))


@contextmanager
def bounded(what: str, seconds: int = SECONDS) -> Iterator[None]:
    """The inside must end in time, by returning or with an InputError of one line of bounded length."""

    def late(*_: object) -> None:
        raise TimeoutError(f"{what}: still reading after {60 * seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60 * seconds)  # of the wall's clock, which other processes slow down
    began = time.process_time()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except InputError as error:
        message = str(error)
        assert "\n" not in message and len(message) < 4000, f"{what}: {message[:300]!r}"
    except BaseException as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {str(error)[:300]}") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert time.process_time() - began < seconds, f"{what} took {time.process_time() - began:.1f} s"


def peak() -> float:
    """Megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_spoilt(kind: str, numbers: range, folder: Path) -> None:
    path = folder / KINDS[kind].place
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "annotation":
        devkit(folder)
    before = peak()
    for number in numbers:
        path.write_bytes(spoilt(kind, number, folder))
        with bounded(f"{kind} {number}"):
            KINDS[kind].read(path)
    assert peak() - before < MEGABYTES


@pytest.mark.parametrize("kind", KINDS)
def test_sound_files_are_read(kind, tmp_path):
    """Else nothing below would mean anything."""
    path = tmp_path / KINDS[kind].place
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "annotation":
        devkit(tmp_path)
    path.write_bytes(seeds_of(kind, tmp_path / "seeds")[0])
    with warnings.catch_warnings(action="ignore"):
        KINDS[kind].read(path)


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_files_are_read_or_refused_in_one_line(kind, tmp_path):
    read_spoilt(kind, range(4 * KINDS[kind].share), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_spoilt_files(kind, tmp_path):
    read_spoilt(kind, range(-(-SLOW * KINDS[kind].share // ALL)), tmp_path)


# --- what hypothesis draws ---

DRAWS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["a", "cat", 1, 2, 0.5])
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5), max_leaves=12
)
NUMBERS = st.floats() | st.integers() | st.text(max_size=5)
RESULT = st.fixed_dictionaries(
    {"image_id": SCALARS, "category_id": SCALARS, "bbox": st.lists(SCALARS, max_size=5) | TREES, "score": SCALARS},
    optional={"id": SCALARS, "category": SCALARS},
)


@DRAWS
@given(tree=TREES | st.lists(RESULT, max_size=4))
def test_results_of_any_shape(tree, tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(tree))
    with bounded("results"):
        read_results(tmp_path / "r.json")


@DRAWS
@given(values=st.dictionaries(st.sampled_from(sorted(Config.fields())) | st.text(max_size=8), TREES, max_size=4))
def test_configs_of_any_shape(values, tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    with bounded("config"):
        config = load_config(tmp_path / "c.yaml")
        assert load_config(write(tmp_path / "d.yaml", config.to_yaml())) == config  # what was taken comes back as it was


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@DRAWS
@given(corners=st.lists(NUMBERS, min_size=4, max_size=4), size=st.tuples(st.integers(), st.floats()))
def test_boxes_of_any_numbers(corners, size, tmp_path):
    base = devkit(tmp_path)
    keys = ("xmin", "ymin", "xmax", "ymax")
    escaped = [str(c).replace("&", "").replace("<", "").encode("ascii", "ignore").decode() for c in corners]
    box = "".join(f"<{k}>{c}</{k}>" for k, c in zip(keys, escaped))
    text = (
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>"
        f"<object><name>cat</name><bndbox>{box}</bndbox></object></annotation>"
    )
    with bounded("boxes"):
        read_devkit(write(base / "Annotations" / "a.xml", text))


@DRAWS
@given(text=st.text(max_size=40))
def test_words_of_the_command_line(text, tmp_path):
    for read in (parse_splits, parse_classes):
        with bounded(read.__name__):
            read(text)


@DRAWS
@given(content=st.binary(max_size=300))
def test_any_bytes_at_all(content, tmp_path):
    for kind in KINDS.values():
        path = tmp_path / kind.place
        path.parent.mkdir(parents=True, exist_ok=True)
        devkit(tmp_path)
        path.write_bytes(content)
        with bounded(kind.place):
            kind.read(path)


# --- what was found, and stays found ---


def test_a_few_lines_of_yaml_that_stand_for_gigabytes(tmp_path):
    """Aliases of aliases: the tree is small, its text is not, and an error message is text."""
    names = [chr(97 + k) for k in range(12)]
    bomb = "a: &a [x, x]\n" + "".join(f"{k}: &{k} [{', '.join([f'*{p}'] * 10)}]\n" for p, k in pairwise(names))
    for field in ("lr", "classes", "readout", "strict", "anchors", "learning", "detector"):
        with pytest.raises(InputError), bounded_raising("bomb"):
            load_config(write(tmp_path / "c.yaml", bomb.replace("a: &a", "unknown_a: &a") + f"{field}: *l\n"))
        with pytest.raises(InputError, match=field), bounded_raising("bomb"):
            load_config(write(tmp_path / "d.yaml", f"{field}: {nested(12)}\n"))


def nested(depth: int) -> str:
    """Anchors inside one value."""
    parts = ["&a0 [x, x]", *(f"&a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, depth))]
    return "[" + ", ".join(parts) + "]"


@contextmanager
def bounded_raising(what: str) -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < SECONDS, what


def test_a_description_that_claims_more_than_the_file_holds(tmp_path):
    """Nothing of the size that a few letters ask for is made."""
    from spyolo.checkpoint import load_tensors, save_tensors

    path = tmp_path / "w.safetensors"
    path.write_bytes(weights(tmp_path)[0])
    tensors, described = load_tensors(path)
    spec = json.loads(described["spec"])
    before = peak()
    for change in ({"width": 60.0}, {"depth": 60}, {"width": 1e9}, {"depth": 10**9}, {"in_channels": 1000}, {"width": float("inf")}):
        save_tensors(path, tensors, described | {"spec": json.dumps(spec | change)})
        with bounded("claim"), pytest.raises(InputError, match=r"expected|must be at most|is missing"):
            load_detector(path)
    for field, value in (("size", 2**40), ("timesteps", 10**9)):
        save_tensors(path, tensors, described | {field: value})
        with pytest.raises(InputError, match=f"field '{field}' of its metadata is malformed"):
            load_detector(path)
    assert peak() - before < 500


def test_a_pipe_or_a_device_is_no_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        with bounded("device"), pytest.raises(InputError, match="no ordinary file"):
            load_config(path)


@pytest.mark.parametrize("text", ["when: 2020-99-99", "lr: !!int x", "[" * 5000, "lr: 0x" + "f" * 6000, "? [a]\n: b", "lr: !!binary x"])
def test_yaml_that_its_reader_chokes_on(text, tmp_path):
    with pytest.raises(InputError):
        load_config(write(tmp_path / "c.yaml", text))


@pytest.mark.parametrize("attack", ["entities", "external", "parameter"])
def test_entities_are_refused_before_they_grow(attack, tmp_path):
    secret = write(tmp_path / "secret", "the secret")
    lol = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 12))
    texts = {
        "entities": f'<!DOCTYPE a [<!ENTITY l0 "lol">{lol}]><annotation><filename>&l11;</filename></annotation>',
        "external": f'<!DOCTYPE a [<!ENTITY s SYSTEM "file://{secret}">]><annotation><object><name>&s;</name></object></annotation>',
        "parameter": f'<!DOCTYPE a [<!ENTITY % p SYSTEM "file://{secret}"> %p;]><annotation/>',
    }
    base = devkit(tmp_path)
    with bounded(attack), pytest.raises(InputError, match=r"no picture of 2007:train is usable.*(Entities|DTD)") as caught:
        read_devkit(write(base / "Annotations" / "a.xml", texts[attack]))
    assert "the secret" not in str(caught.value)
