"""Torchvision's FCOS on our spiking backbone, trained on the drawn sample set.

    python docs/examples/fcos.py --rule fptt        # one update a time step, memory of one step
    python docs/examples/fcos.py --rule bptt        # one update a batch, through all steps

The neurons' state belongs to the loop that trains (`spyolo.carry_state`), so the detector around the backbone need not know of it.
"""

from __future__ import annotations

import torch
from common import options, run, spiking_backbone
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator

import spyolo
from spyolo.data import SAMPLE_CLASSES

if __name__ == "__main__":
    args = options(__doc__)
    torch.manual_seed(args.seed)
    body = spiking_backbone(args)
    detector = FCOS(
        spyolo.with_fpn(body, 64),
        num_classes=len(SAMPLE_CLASSES),
        anchor_generator=AnchorGenerator(tuple((s,) for s in body.strides), ((1.0,),) * len(body.strides)),
        min_size=args.size, max_size=args.size, image_mean=[0.0] * 3, image_std=[1.0] * 3,  # the backbone takes pictures in [0, 1]
        score_thresh=0.005, nms_thresh=0.5,
    )  # fmt: skip
    run(detector, args)
