"""What a run says at its end: the protocol is eval's, and the energy says over how many pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from spyolo.boxes import Detections
from spyolo.checkpoint import WeightsInfo, load_detector
from spyolo.cli import eval as evaluation
from spyolo.cli.eval_model import protocol_of
from spyolo.data import SAMPLE_CLASSES, DataWarning, DetectionDataset, VOCSet
from spyolo.detection import detector_spec
from spyolo.errors import InputError
from spyolo.summary import finish, page
from spyolo.trainer import Trainer


def test_the_protocol_of_a_run_has_what_eval_records(tiny_config):
    config = tiny_config(epochs=1, max_detections=7, vote_iou=0.5, nms_iou=0.4)
    trainer = Trainer(config, quiet=True)
    assert trainer.fit()
    told = finish(trainer)
    metrics = json.loads(trainer.folder.metrics.read_text())
    protocol = metrics["protocol"]
    args = evaluation.parser().parse_args(["--weights", "w", "--data", "d"])
    names = protocol_of(args, WeightsInfo(trainer.detector.spec, trainer.classes, 64), 64, trainer.device)
    shared = {"split", "weights", "weights_of", "confidence_floor", "nms_iou", "max_detections", "vote_iou", "precision_of_convolutions"}
    shared |= {"device"}
    assert shared <= names.keys() and shared <= protocol.keys()
    saved = load_detector(trainer.folder.best)[1]
    assert (protocol["vote_iou"], protocol["nms_iou"]) == (saved.vote_iou, saved.nms_iou) == (0.5, 0.4)
    assert (protocol["max_detections"], protocol["precision_of_convolutions"], protocol["device"]) == (7, "none", "cpu")
    assert f"energy a picture, over the first {metrics['energy']['pictures']}: " in told


@pytest.mark.parametrize("strict", [False, True])
def test_a_picture_that_cannot_be_read_costs_the_page_only_where_the_set_is_strict(sample_root: Path, tmp_path: Path, strict: bool):
    root = Path(shutil.copytree(sample_root, tmp_path / "sample"))
    voc = VOCSet(root, "2007:val", SAMPLE_CLASSES, strict=strict)
    voc.image_path(1).write_bytes(b"")
    found = dict.fromkeys(voc.ids, Detections.empty())
    info = WeightsInfo(detector_spec(num_classes=len(SAMPLE_CLASSES)), SAMPLE_CLASSES, 64)
    dataset = DetectionDataset(voc, 64, "eval")
    if strict:
        with pytest.raises(InputError, match="the file is empty"):
            page(dataset, found, info)
        return
    with pytest.warns(DataWarning, match=rf"{voc.ids[1]}.* \(the file is empty\); grey stands in"):
        assert page(dataset, found, info).ndim == 3
