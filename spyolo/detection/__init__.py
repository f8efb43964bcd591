"""The detector: backbone, neck, heads, anchors, assignment, loss, decoding."""

from spyolo.detection.anchors import DEFAULT_ANCHORS, DEFAULT_MASKS, REFERENCE_MASKS
from spyolo.detection.assignment import Targets, assign
from spyolo.detection.blocks import Units
from spyolo.detection.build import DETECTORS, build_detector, detector_spec
from spyolo.detection.decode import Reading, decode, postprocess
from spyolo.detection.detector import DetectorSpec, DetectorState, Predictions, SpikingYOLO
from spyolo.detection.fast import PRECISIONS, fold, fuse
from spyolo.detection.firing import firing_rates, rate_penalty
from spyolo.detection.loss import DetectionLoss, LossParts
from spyolo.detection.settle import settled

__all__ = [
    "DEFAULT_ANCHORS", "DEFAULT_MASKS", "DETECTORS", "PRECISIONS", "REFERENCE_MASKS", "DetectionLoss", "DetectorSpec", "DetectorState",
    "LossParts", "Predictions", "Reading", "SpikingYOLO", "Targets", "Units", "assign", "build_detector", "decode", "detector_spec",
    "firing_rates", "fold", "fuse", "postprocess", "rate_penalty", "settled",
]  # fmt: skip
