"""The detector's training path against the plain eager one of tools/bench: the same logits, losses' gradients and norm statistics."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from spyolo.detection import build_detector

BENCH = Path(__file__).parents[2] / "tools" / "bench"


@pytest.mark.parametrize("name", ["spyv4", "spyv4_lite", "yolov4_tiny"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=["fp64", "fp32"])
def test_logits_and_gradients_are_the_oracles(name: str, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch):
    """Two steps with the graph through both. In fp32 one step: a rounding can flip a spike of the second, and all that follows from it."""
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.delitem(sys.modules, "plain", raising=False)
    from plain import Plain

    torch.manual_seed(0)
    ours = build_detector(name, 3, width=0.25).to(dtype).train()
    theirs = build_detector(name, 3, width=0.25).to(dtype).train()
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, 64, 64, dtype=dtype)
    steps = 2 if dtype == torch.float64 else 1
    oracle = Plain(theirs)
    state, before, losses = None, None, [0.0, 0.0]
    for _ in range(steps):
        logits, state = ours(images, state)
        expected, before = oracle.step(images, before)
        assert all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(logits, expected, strict=True))
        for i, maps in enumerate((logits, expected)):
            losses[i] = losses[i] + sum((m * torch.linspace(-1, 1, m.numel(), dtype=dtype).view(m.shape)).sum() for m in maps)
    for loss in losses:
        loss.backward()
    whole = torch.stack([p.grad.norm() for p in theirs.parameters() if p.grad is not None]).norm()
    for (key, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), key
        if a.grad is not None:
            # a bias before a norm has no gradient but for rounding: there the whole gradient is the measure
            assert (a.grad - b.grad).norm() <= tolerance * torch.maximum(b.grad.norm(), 1e-3 * whole), key
    for (key, a), b in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance), key
