"""Anchors: six shapes at an input of 416 pixels, three a scale; they grow with the input size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# YOLOv4-tiny's shapes (width, height) at 416. Its mask gives stride 16 the shapes 1, 2, 3 and so leaves the smallest unused and shares
# the fourth; ours gives each scale its own three: 0, 1, 2 to stride 16 and 3, 4, 5 to stride 32.
REFERENCE_SIZE = 416
DEFAULT_ANCHORS: tuple[tuple[float, float], ...] = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))
DEFAULT_MASKS: tuple[tuple[int, ...], ...] = ((0, 1, 2), (3, 4, 5))
REFERENCE_MASKS: tuple[tuple[int, ...], ...] = ((1, 2, 3), (3, 4, 5))


def anchors_per_scale(
    anchors: Sequence[Sequence[float]] = DEFAULT_ANCHORS, masks: Sequence[Sequence[int]] = DEFAULT_MASKS
) -> list[Tensor]:
    """For each scale (stride 16, then 32), its anchors [A, 2] as fractions of the input size.

    Raises:
        ValueError: fewer anchors than a mask names, sides that are not positive, or scales with different numbers of anchors.
    """
    shapes = torch.tensor([[float(w), float(h)] for w, h in anchors]) / REFERENCE_SIZE
    if not all(w > 0 and h > 0 for w, h in anchors):
        raise ValueError(f"anchors must have positive sides, got {anchors}")
    if len({len(mask) for mask in masks}) != 1:
        raise ValueError(f"every scale needs the same number of anchors, got masks {masks}")
    if max(max(mask) for mask in masks) >= len(shapes):
        raise ValueError(f"masks {masks} name more anchors than there are: {len(shapes)}")
    return [shapes[list(mask)] for mask in masks]
