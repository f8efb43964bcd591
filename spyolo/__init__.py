"""spyolo: a Spiking-YOLOv4 detector of liquid-time-constant neurons, trained online with FPTT."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spyolo.checkpoint import load_detector
    from spyolo.detection import build_detector
    from spyolo.features import backbone, carry_state, with_fpn
    from spyolo.predictor import Predictor
    from spyolo.weights import load

__version__ = "0.1.0"
__all__ = ["Predictor", "backbone", "build_detector", "carry_state", "load", "load_detector", "with_fpn"]

_HOMES = {
    "Predictor": "spyolo.predictor",
    "backbone": "spyolo.features",
    "build_detector": "spyolo.detection",
    "carry_state": "spyolo.features",
    "load": "spyolo.weights",
    "load_detector": "spyolo.checkpoint",
    "with_fpn": "spyolo.features",
}


def __getattr__(name: str) -> Any:
    """Public names are loaded when asked for: `--help` of a command line needs no torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'spyolo' has no attribute {name!r}")
