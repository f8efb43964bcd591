"""Published detectors: `detector, info = spyolo.load("spyv4_lite_voc")`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spyolo.checkpoint import WeightsInfo
    from spyolo.detection import SpikingYOLO


def load(name: str | Path) -> tuple[SpikingYOLO, WeightsInfo]:
    """A published detector by name (or any weights file by path), in evaluation mode, and what its file says of it.

    Raises:
        InputError: as `resolve`, and `checkpoint.load_detector`.
    """
    from spyolo.checkpoint import load_detector

    return load_detector(name)
