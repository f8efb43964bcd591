"""Two looks are settled when no box worth showing changed."""

from __future__ import annotations

import pytest
import torch

from spyolo.boxes import Detections
from spyolo.detection import settled


def seen(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = torch.tensor(rows).view(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long())


ONE, TWO = (0.0, 0.0, 10.0, 10.0, 0.9, 1), (50.0, 50.0, 80.0, 90.0, 0.6, 2)


@pytest.mark.parametrize(
    "before, after, expected",
    [
        (seen(), seen(), True),
        (seen(ONE, TWO), seen(TWO, ONE), True),
        (seen(ONE), seen((0.0, 0.0, 10.0, 10.3, 0.88, 1)), True),
        (seen(ONE), seen((0.0, 0.0, 10.0, 13.0, 0.9, 1)), False),  # moved
        (seen(ONE), seen((0.0, 0.0, 10.0, 10.0, 0.8, 1)), False),  # surer or less sure
        (seen(ONE), seen((0.0, 0.0, 10.0, 10.0, 0.9, 3)), False),  # another class
        (seen(ONE), seen(ONE, TWO), False),
        (seen(ONE, ONE), seen(ONE, TWO), False),
        (seen(ONE), seen(ONE, (1.0, 1.0, 5.0, 5.0, 0.2, 0)), True),  # the new one is too faint to be shown
    ],
)
def test_settled(before: Detections, after: Detections, expected: bool):
    assert settled(before, after) is expected
