"""The log of pieces in a weights file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spyolo.checkpoint import WeightsInfo, save_weights
from spyolo.config import Config
from spyolo.detection import build_detector
from spyolo.pieces import origin, pieces_of, this_piece


def test_the_origin_of_a_log_that_does_not_say_is_unknown() -> None:
    for log in ([], [{"rule": "fptt"}], [{"detector": "spyv4_lite"}], [{"detector": "spyv4_lite", "from": "scratch"}, {"from": "scratch"}]):
        assert origin(log) == "unknown"


@pytest.mark.parametrize("log", [[1], {"a": 1}, [{}], [], "log", None])
def test_a_log_that_is_none_counts_as_one_unknown_piece(tmp_path: Path, log: Any) -> None:
    detector = build_detector("spyv4_lite", 2, width=0.05)
    save_weights(tmp_path / "w.safetensors", detector, WeightsInfo(detector.spec, ("a", "b"), 64, 2, notes={"pieces": log}))
    pieces = pieces_of(str(tmp_path / "w.safetensors"))
    assert pieces == [{"detector": "spyv4_lite", "from": "unknown"}] and origin(pieces) == "unknown"
    assert this_piece(Config(), pieces, epochs=1, seconds=60, device="cpu", amp="none", pictures=4)["from"] == "spyv4_lite"
