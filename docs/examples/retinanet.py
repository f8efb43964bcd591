"""Torchvision's RetinaNet on our spiking backbone, trained on the drawn sample set.

    python docs/examples/retinanet.py --rule fptt        # one update a time step, memory of one step
    python docs/examples/retinanet.py --rule bptt        # one update a batch, through all steps

The neurons' state belongs to the loop that trains (`spyolo.carry_state`), so the detector around the backbone need not know of it.
"""

from __future__ import annotations

from functools import partial

import torch
from common import options, run, spiking_backbone
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead

import spyolo
from spyolo.data import SAMPLE_CLASSES

if __name__ == "__main__":
    args = options(__doc__)
    torch.manual_seed(args.seed)
    body = spiking_backbone(args)
    classes, ratios = len(SAMPLE_CLASSES), (0.7, 1.0, 1.4)
    sizes = tuple((2 * s, int(2.8 * s)) for s in body.strides)  # two sizes a stride, three shapes a size
    detector = RetinaNet(
        spyolo.with_fpn(body, 64),
        num_classes=classes,
        anchor_generator=AnchorGenerator(sizes, (ratios,) * len(sizes)),
        head=RetinaNetHead(64, len(ratios) * 2, classes, norm_layer=partial(nn.GroupNorm, 16)),
        min_size=args.size, max_size=args.size, image_mean=[0.0] * 3, image_std=[1.0] * 3,  # the backbone takes pictures in [0, 1]
        score_thresh=0.005, nms_thresh=0.5,
    )  # fmt: skip
    run(detector, args)
