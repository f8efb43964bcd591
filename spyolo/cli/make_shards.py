"""Write a data set as WebDataset shards, to train on from several disks or machines.

    tools/make_shards.py --data DIR --split 2007:train+2012:trainval --out shards/train
    tools/make_shards.py --data DIR --split 2007:val --out shards/val
    tools/train.py --preset voc --source shards --data shards --train train --val val

Pictures keep their own bytes. Each shard is a tar of NUMBER.jpg and NUMBER.json; index.json says what each holds (docs/scaling.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from spyolo.cli.options import Parser
from spyolo.errors import InputError


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="make_shards", description=__doc__)
    p.add_argument("--data", required=True, metavar="DIR", help="folder that holds VOCdevkit, or any set in its format")
    p.add_argument("--split", required=True, help="pictures to write, such as 2007:train+2012:trainval")
    p.add_argument("--out", required=True, metavar="DIR", help="a new folder for the shards and their index")
    p.add_argument("--classes", default="voc", help="names: voc, sample, cat,dog or a file, one a line [%(default)s]")
    p.add_argument("--per-shard", type=int, default=500, metavar="N", help="pictures a shard [%(default)s]")
    p.add_argument("--strict", action="store_true", help="fail on a bad annotation instead of warning")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.per_shard < 1:
        raise InputError(f"--per-shard must be at least 1, got {args.per_shard}")
    from spyolo.data import VOCSet, parse_classes
    from spyolo.data.shard_writing import make_shards

    voc = VOCSet(args.data, args.split, parse_classes(args.classes), strict=args.strict)
    written = make_shards(voc, args.out, args.per_shard)
    size = sum(path.stat().st_size for path in written)
    print(f"{len(voc):,} pictures in {len(written)} shard(s), {size / 1e6:,.1f} MB -> {args.out}")
    return 0
