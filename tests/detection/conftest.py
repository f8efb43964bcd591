"""What the detector's tests share: truth written in a line, and a small detector whose neurons fire."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from spyolo.boxes import Objects
from spyolo.detection import SpikingYOLO, build_detector
from spyolo.neurons import norms
from spyolo.neurons.fused import Compiling


@pytest.fixture(autouse=True)
def no_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are over in less time than it takes to compile; tests/neurons hold the compiled step to the plain one."""
    monkeypatch.setattr(Compiling, "enabled", False)


@pytest.fixture
def truth() -> Callable[..., Objects]:
    """`truth((x1, y1, x2, y2, label), (x1, y1, x2, y2, label, "difficult"))` -> the objects of one picture."""

    def make(*rows: tuple) -> Objects:
        return Objects(
            torch.tensor([row[:4] for row in rows], dtype=torch.float32).view(-1, 4),
            torch.tensor([row[4] for row in rows], dtype=torch.int64),
            torch.tensor(["difficult" in row[5:] for row in rows], dtype=torch.bool),
        )

    return make


@pytest.fixture
def small() -> Callable[..., SpikingYOLO]:
    """`small("spyv4_lite", **options)` -> a narrow detector of 3 classes in eval mode, its norms calibrated so that it fires everywhere."""

    def make(name: str = "spyv4_lite", **options: object) -> SpikingYOLO:
        torch.manual_seed(0)
        detector = build_detector(name, **{"num_classes": 3, "width": 0.25, **options})
        pictures = torch.rand(4, detector.spec.in_channels, 96, 96)
        state = None
        for norm in norms(detector):
            norm.momentum = None  # a cumulative mean: statistics as after long training
        with torch.no_grad():
            for _ in range(6):
                _, state = detector(pictures, state)
            for head in detector.heads:  # logits one can tell apart
                head.conv.weight.normal_(std=0.3)
        return detector.eval()

    return make
