"""Sound files of each kind that the detector's parts read, and the readers of them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from spyolo.checkpoint import WeightsInfo, load_detector, save_weights
from spyolo.cli.energy_table import read_run
from spyolo.config import Config, load_config
from spyolo.data import VOCSet, image_size, read_image
from spyolo.data.annotation import Annotation, Thing, write_annotation
from spyolo.data.classes import parse_classes
from spyolo.data.coco_format import read_coco
from spyolo.data.splits import read_image_set
from spyolo.data.yolo_format import read_yolo
from spyolo.detection import build_detector
from spyolo.evaluation.energy import energy_table
from spyolo.evaluation.predictions import read_predictions
from spyolo.evaluation.prices import read_prices
from spyolo.evaluation.tallies import Counts, LayerCounts, Tally
from spyolo.legacy import read_pth
from spyolo.published import read_manifest

CLASSES = ("cat", "dog")


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
    synapse = LayerCounts("cell", "synapse", 10, (Tally(rows=1, dense_macs=100, acs=10, values=10, nonzero=1, binary_values=10),))
    unit = LayerCounts("cell.unit", "unit", 0, (Tally(rows=1, neurons=10, spikes=1, gate_updates=10),))
    energy = energy_table(Counts(1, (synapse, unit)))
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
    for name in ("images", "labels"):
        (root / name / "train").mkdir(parents=True, exist_ok=True)
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
