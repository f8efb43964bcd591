"""Detectors by name."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from spyolo.detection.blocks import Units
from spyolo.detection.detector import DetectorSpec, SpikingYOLO

DETECTORS: dict[str, DetectorSpec] = {
    # The paper's network: 3x3 gates, logits of the last step.
    "spyv4": DetectorSpec(name="spyv4", readout="last", units=Units(gate="conv")),
    # Our default: depthwise gates, leaky readout. Arctan's tails reach neurons far from their threshold, and a lower threshold lets more of
    # them speak: both learned faster in development, a comparison not repeated since (docs/training.md).
    "spyv4_lite": DetectorSpec(name="spyv4_lite", readout="leaky", units=Units(gate="depthwise", threshold=0.5, surrogate="arctan")),
    # The ANN twin: the same graph of LeakyReLU units; one step is all it needs.
    "yolov4_tiny": DetectorSpec(name="yolov4_tiny", readout="last", units=Units(kind="relu")),
}


def detector_spec(name: str = "spyv4_lite", num_classes: int = 20, **options: Any) -> DetectorSpec:
    """The named detector's description with options changed: any field of `DetectorSpec` or of its `Units`.

    Raises:
        ValueError: an unknown name or option, with the known ones.
    """
    if name not in DETECTORS:
        raise ValueError(f"unknown detector {name!r}; known: {', '.join(DETECTORS)}")
    spec = DETECTORS[name]
    unit_options = {f.name for f in fields(Units)}
    spec_options = {f.name for f in fields(DetectorSpec)} - {"name", "units"}
    unknown = set(options) - unit_options - spec_options
    if unknown:
        raise ValueError(f"unknown option {', '.join(sorted(unknown))}; known: {', '.join(sorted(unit_options | spec_options))}")
    units = replace(spec.units, **{k: v for k, v in options.items() if k in unit_options})
    return replace(spec, num_classes=num_classes, units=units, **{k: v for k, v in options.items() if k in spec_options})


def build_detector(name: str = "spyv4_lite", num_classes: int = 20, **options: Any) -> SpikingYOLO:
    """Build a detector by name: `spyv4`, `spyv4_lite` or `yolov4_tiny`, with the options of `detector_spec`."""
    return SpikingYOLO(detector_spec(name, num_classes, **options))
