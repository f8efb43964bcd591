"""Detectors worth exporting: narrow, untrained, but with calibrated norms, active neurons and logits that differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from torch import Tensor

from spyolo.checkpoint import WeightsInfo
from spyolo.detection import Reading, SpikingYOLO, build_detector
from spyolo.neurons import norms

CLASSES = ("a", "b", "c")


class Live(Protocol):
    def __call__(self, name: str = ..., **options: Any) -> tuple[SpikingYOLO, WeightsInfo]: ...


@pytest.fixture(scope="session")
def soft_pictures() -> Tensor:
    """Three pictures of soft colours, uint8 [3, 3, 64, 64]."""
    coarse = 255 * torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear").to(torch.uint8)


@pytest.fixture(scope="session")
def live(soft_pictures: Tensor) -> Live:
    """`live("spyv4", readout="mean")` -> a detector and its description, 64 pixels, T = 3."""

    @torch.no_grad()
    def make(name: str = "spyv4_lite", **options: Any) -> tuple[SpikingYOLO, WeightsInfo]:
        torch.manual_seed(0)
        detector = build_detector(name, len(CLASSES), **{"width": 0.1, "threshold": 0.3} | options).train()
        for m in norms(detector):
            m.momentum = None
        state = None
        for _ in range(3):
            _, state = detector(soft_pictures, state)
        for head in detector.heads:
            head.conv.weight.normal_(std=0.3)
            head.conv.bias.normal_()
            if head.leak is not None:
                head.leak.normal_()
        return detector.eval(), WeightsInfo(detector.spec, CLASSES, size=64, timesteps=3)

    return make


@pytest.fixture(scope="session")
def exported(live: Live, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The default detector in both forms; every class over a floor of 0.05."""
    return in_both_forms(live, tmp_path_factory.mktemp("exported"), Reading(0.05))


@pytest.fixture(scope="session")
def exported_best(live: Live, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same, of each box the best class over 0.3: what `Predictor` gives."""
    return in_both_forms(live, tmp_path_factory.mktemp("best"), None)


def in_both_forms(live: Live, folder: Path, reading: Any) -> dict[str, Path]:
    pytest.importorskip("onnx")
    from spyolo.export import export_onnx

    return {form: export_onnx(*live(), folder / f"{form}.onnx", form=form, reading=reading) for form in ("step", "unrolled")}
