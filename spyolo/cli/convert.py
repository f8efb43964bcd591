"""Convert a data set between VOC folders, COCO JSON and YOLO text.

    tools/convert.py --from voc --to coco --data DIR --split 2007:train --out coco/
    tools/convert.py --from coco --to voc --data coco/annotations/instances_train.json --out mine/
    tools/convert.py --from yolo --to voc --data yolo/ --split train --out mine/
    tools/convert.py --from voc --to yolo --data DIR --split 2007:train --out yolo/ --pictures link

What comes out, by format:
    voc    OUT/VOCdevkit/VOC<year>: Annotations, ImageSets/Main/<name>.txt, JPEGImages
    coco   OUT/annotations/instances_<name>.json and OUT/<name>/
    yolo   OUT/images/<name>/, OUT/labels/<name>/ and OUT/data.yaml
Run it once for each part (train, val) with the same --out. Nothing that is there is overwritten: two parts may share a picture, but an id
that stands for another picture, or in voc for other objects, is refused.

`difficult`: in COCO it becomes `iscrowd` 1 (which COCO's scoring leaves out) and a field of its own, so it comes back; YOLO text cannot
carry it (see --difficult), nor the pictures' sizes, which are read from the pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from spyolo.cli.options import Parser, refuse_unread
from spyolo.data.classes import parse_classes
from spyolo.data.coco_format import read_coco, write_coco
from spyolo.data.convert import PICTURES, Collection, read_voc, write_voc
from spyolo.data.splits import Split, parse_splits
from spyolo.data.yolo_format import read_yolo, write_yolo
from spyolo.errors import InputError

FORMATS = ("voc", "coco", "yolo")


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="convert", description=__doc__)
    p.add_argument("--from", dest="source", required=True, choices=FORMATS, help="format of --data")
    p.add_argument("--to", dest="target", required=True, choices=FORMATS, help="format of --out")
    p.add_argument("--data", required=True, metavar="PATH", help="voc, yolo: the folder; coco: the JSON file")
    p.add_argument("--out", required=True, metavar="DIR", help="folder to write into; made where it is not there")
    p.add_argument("--split", help="part to convert. voc: 2007:train or 2007:train+2012:train; yolo: train; coco: none")
    p.add_argument("--name", help="name of the part in --out [as it was: train]")
    p.add_argument("--year", default="2007", help="to voc: the folder's year, VOC<year> [%(default)s]")
    p.add_argument("--classes", help="from voc, yolo: voc, sample, cat,dog or a file, one name a line, in label order [voc: VOC's where "
                   "they suffice, else all that are found; yolo: as listed there]")  # fmt: skip
    p.add_argument("--pictures", default="copy", choices=PICTURES, help="copy them, link to them, or leave them out [%(default)s]")
    p.add_argument("--picture-folder", metavar="DIR", help="from coco: where the pictures are [the folder beside annotations/]")
    p.add_argument("--difficult", default="keep", choices=("keep", "drop"), help="to yolo: as ordinary ones, or not at all [%(default)s]")
    p.add_argument("--strict", action="store_true", help="fail on a bad sample instead of warning")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    check(args)
    collection, found_name = _read(args)
    name = args.name or found_name
    if parse_splits(name) != [Split("", name)]:  # it becomes a file name, and is asked for with --split
        raise InputError(f"{name!r} is no name for a part: + and : tell parts apart, and it has no space around it; give another --name")
    if args.target == "voc":
        written = write_voc(collection, args.out, name, args.year, args.pictures)
    elif args.target == "coco":
        written = write_coco(collection, args.out, name, args.pictures)
    else:
        written = write_yolo(collection, args.out, name, args.pictures, args.difficult == "drop")
    print(f"{written}: {collection.counts()}: {', '.join(collection.classes)}")
    difficult = sum(thing.difficult for entry in collection.entries for thing in entry.things)
    if args.target == "yolo" and difficult:
        print(f"{difficult} difficult objects are " + ("ordinary ones now" if args.difficult == "keep" else "left out"))
    return 0


def check(args: argparse.Namespace) -> None:
    """Raises InputError for options that these two formats have no use for."""
    default_of = parser().get_default
    if args.source == "coco":
        refuse_unread(args, ("split", "classes"), default_of, "not for --from coco: a file is one part, and lists its own classes")
    else:
        refuse_unread(args, ("picture_folder",), default_of, f"for --from coco; --from {args.source} has its pictures' places fixed")
    if args.target != "voc":
        refuse_unread(args, ("year",), default_of, f"for --to voc; --to {args.target} has no years")
    if args.target != "yolo":
        refuse_unread(args, ("difficult",), default_of, f"for --to yolo; --to {args.target} keeps which objects are difficult")


def _read(args: argparse.Namespace) -> tuple[Collection, str]:
    """The data set and the name of its part."""
    classes = parse_classes(args.classes) if args.classes else None
    if args.source == "coco":
        return read_coco(args.data, args.picture_folder, args.strict), Path(args.data).stem.removeprefix("instances_")
    if not args.split:
        raise InputError(f"--split is missing: the part to convert, such as {'2007:train' if args.source == 'voc' else 'train'}")
    if args.source == "yolo":
        return read_yolo(args.data, args.split, classes, args.strict), args.split
    names = dict.fromkeys(split.name for split in parse_splits(args.split))
    return read_voc(args.data, args.split, classes, args.strict), "_".join(names)
