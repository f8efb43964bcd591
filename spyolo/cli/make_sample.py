"""Draw a small data set in VOC's format, so that everything can be tried without a download.

    tools/make_sample.py --out data/sample
    tools/train.py --data data/sample --classes cross,disc,ring,square,triangle

Its classes are told apart by shape alone. The same arguments give the same files, byte for byte; a folder that holds them is left as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from spyolo.cli.options import Parser, check_seed
from spyolo.data import SAMPLE_CLASSES, VOCSet
from spyolo.data.sample import make_sample


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="make_sample", description=__doc__)
    p.add_argument("--out", required=True, help="folder to draw into; the devkit comes to lie in OUT/VOCdevkit/VOC2007")
    p.add_argument("--pictures", type=int, default=400, help="how many; every fifth is held out as `val` [%(default)s]")
    p.add_argument("--seed", type=int, default=0, help="another seed draws other pictures [%(default)s]")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    check_seed(args.seed)
    root = make_sample(args.out, args.pictures, args.seed, progress=True)
    for split in ("2007:train", "2007:val"):
        print(VOCSet(root, split, SAMPLE_CLASSES))
    return 0
