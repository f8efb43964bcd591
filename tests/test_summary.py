"""What a run says at its end: the protocol is eval's, and the energy says over how many pictures."""

from __future__ import annotations

import json

from spyolo.checkpoint import WeightsInfo
from spyolo.cli import eval as evaluation
from spyolo.cli.eval_model import protocol_of
from spyolo.summary import finish
from spyolo.trainer import Trainer


def test_the_protocol_of_a_run_has_what_eval_records(tiny_config):
    config = tiny_config(epochs=1, max_detections=7)
    trainer = Trainer(config, quiet=True)
    assert trainer.fit()
    told = finish(trainer)
    metrics = json.loads(trainer.folder.metrics.read_text())
    protocol = metrics["protocol"]
    args = evaluation.parser().parse_args(["--weights", "w", "--data", "d"])
    names = protocol_of(args, WeightsInfo(trainer.detector.spec, trainer.classes, 64), 64, trainer.device)
    shared = {"split", "weights", "weights_of", "confidence_floor", "nms_iou", "max_detections", "precision_of_convolutions", "device"}
    assert shared <= names.keys() and shared <= protocol.keys()
    assert (protocol["max_detections"], protocol["precision_of_convolutions"], protocol["device"]) == (7, "none", "cpu")
    assert f"energy a picture, over the first {metrics['energy']['pictures']}: " in told
