"""The fast path against the plain one, in float64, where only the order of operations differs; and its precisions layer by layer."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spyolo.detection import SpikingYOLO, build_detector, fuse
from spyolo.detection import fast as path
from spyolo.detection.fast import FastDetector, PackedConv, fold
from spyolo.neurons import LTCUnit, has_bf16, native, norms

needs_compiler = pytest.mark.skipif(bool(native.why_not()), reason=native.why_not())


def lively(**options) -> SpikingYOLO:
    """A small detector in float64 whose norms have seen data, so that its neurons fire."""
    torch.manual_seed(0)
    detector = build_detector(num_classes=3, **{"width": 0.25, **options}).double().train()
    for norm in norms(detector):
        norm.momentum = None
    with torch.no_grad():
        for p in detector.parameters():
            if p.dim() == 1:
                p.add_(0.2 * torch.randn_like(p))
        for _ in detector.run(pictures(), 3):
            pass
    return detector.eval()


def pictures(height: int = 96, width: int = 64) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@needs_compiler
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"name": "spyv4", "width": 0.375, "depth": 2},  # widths that fill no vector
        {"depth": 0},
        {"gate": "pointwise", "start": "uniform", "readout": "mean"},
        {"kind": "lif"},
    ],
    ids=["spyv4_lite", "spyv4", "no inner cells", "pointwise", "lif"],
)
def test_float64_equals_the_plain_path(options: dict):
    plain = lively(**options)
    fast = fuse(plain, "fp64")
    assert isinstance(fast, FastDetector)
    with torch.no_grad():
        for (logits, state), (ours, after) in zip(plain.run(pictures(), 4), fast.run(pictures(), 4), strict=True):
            for a, b in zip(logits, ours, strict=True):
                assert torch.allclose(a, b, rtol=0, atol=1e-9)
            assert state.cells.keys() == after.cells.keys()
            for name, cell in state.cells.items():
                assert torch.equal(cell.s, after.cells[name].s), name
                assert torch.allclose(cell.u, after.cells[name].u, rtol=0, atol=1e-9), name
    assert sum(float(c.s.mean()) for c in state.cells.values()) > 0.5  # not a silent agreement


@needs_compiler
def test_a_returned_state_is_never_written_again():
    fast = fuse(lively(), "fp64")
    _, state = fast(pictures())
    kept = {name: (c.u.clone(), c.s.clone()) for name, c in state.cells.items()}
    _, second = fast(pictures(), state)
    fast(pictures(), second)
    assert all(torch.equal(c.u, kept[name][0]) and torch.equal(c.s, kept[name][1]) for name, c in state.cells.items())


@needs_compiler
def test_a_state_of_the_plain_path_can_be_carried_on():
    plain = lively()
    with torch.no_grad():
        _, state = plain(pictures())
        expected, _ = plain(pictures(), state)
    ours, _ = fuse(plain, "fp64")(pictures(), state)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(expected, ours, strict=True))


@needs_compiler
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("gate", ["depthwise", "pointwise"])
@pytest.mark.parametrize("other", [pictures()[:1], pictures(64, 64)], ids=["batch", "size"])
def test_a_state_of_another_batch_or_size_is_refused(precision: str, gate: str, other: Tensor):
    fast = fuse(lively(gate=gate).float(), precision)
    _, state = fast(other.float())
    with pytest.raises(ValueError, match=r"state is of shape \[\d, 16, \d+, 32\], the current of \[2, 16, 48, 32\]: start from rest"):
        fast(pictures().float(), state)


@needs_compiler
@pytest.mark.parametrize("current, spikes", [p for p in native.STEPS if p[0] != torch.float64], ids=lambda d: str(d).split(".")[1])
@pytest.mark.parametrize("channels", [16, 32, 12])
def test_a_layer_in_fp32_and_bf16(current: torch.dtype, spikes: torch.dtype, channels: int):
    """The native layer against the unit in float64, on the same inputs: membranes to 1e-5, spikes wherever none hangs on the threshold."""
    generator = torch.Generator().manual_seed(0)
    shape, layout = (2, channels, 7, 5), torch.channels_last
    x = (3 * torch.randn(shape, generator=generator)).to(current).contiguous(memory_format=layout)
    u = torch.randn(shape, generator=generator).contiguous(memory_format=layout)
    gate = torch.nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
    tau = torch.sigmoid(gate.double()(x.double() + u.double()))
    expected = u + tau * (x.double() - u)
    kernel = gate.weight.detach().float().view(channels, 9).t().contiguous()
    wide = torch.zeros(2, channels + 8, 7, 5, dtype=spikes).contiguous(memory_format=layout)
    copy = torch.zeros(2, channels - 4, 7, 5, dtype=spikes).contiguous(memory_format=layout)
    assert gate.bias is not None
    after = native.ltc_layer(x, u, gate.bias.detach().float(), wide[:, 4:-4], 0.5, kernel=kernel, copy=copy, copy_from=4)
    fired = wide[:, 4:-4].double()
    sure = (expected - 0.5).abs() > 1e-4
    assert torch.equal(fired[sure], (expected > 0.5).double()[sure]) and 0.1 < fired.mean() < 0.9
    assert torch.allclose(after[sure].double(), torch.where(expected > 0.5, 0.0, expected)[sure], rtol=1e-5, atol=1e-5)
    assert torch.equal(copy, wide[:, 8:-4])
    assert not wide[:, :4].any() and not wide[:, -4:].any()  # nothing beside its place


@needs_compiler
@pytest.mark.parametrize("there", [True, False])
def test_without_bf16_the_fast_path_takes_what_is_fast(monkeypatch: pytest.MonkeyPatch, there: bool):
    """A CPU that has none cannot even lay its weights out for it: fp32 then, and a warning; int8 keeps its currents in fp32."""
    if there and not has_bf16(torch.device("cpu")):
        pytest.skip("no bf16 here")
    monkeypatch.setattr(path, "has_bf16", lambda device: there)
    plain = lively().float()
    with nullcontext() if there else pytest.warns(UserWarning, match="no bf16 instructions: the fast path takes fp32"):
        narrow = fuse(plain, "bf16")
    small = fuse(plain, "int8")
    assert isinstance(narrow, FastDetector) and isinstance(small, FastDetector)
    assert (narrow.precision, narrow.dtype, small.precision, small.dtype) == (
        ("bf16", torch.bfloat16, "int8", torch.bfloat16) if there else ("fp32", torch.float32, "int8", torch.float32)
    )
    if there:
        return  # a rounding to bf16 flips spikes: tools/bench/agreement.py says what that comes to
    with torch.no_grad():
        expected, _ = fuse(plain, "fp32")(pictures().float())
        for a, b, c in zip(expected, narrow(pictures().float())[0], small(pictures().float())[0], strict=True):
            assert torch.equal(a, b) and 0 < (a - c).abs().mean() < 0.1 * a.abs().mean()


@needs_compiler
@pytest.mark.parametrize("logit", [-200.0, -40.0, 0.0, 40.0, 200.0])
def test_extreme_gates(logit: float):
    x = torch.full((1, 16, 2, 2), 2.0).contiguous(memory_format=torch.channels_last)
    s = torch.empty_like(x)
    after = native.ltc_layer(x, torch.full_like(x, -1.0), torch.full((16,), logit), s, 100.0)
    assert torch.allclose(after, -1 + 3 * torch.sigmoid(torch.tensor(logit)).expand_as(after), atol=1e-6)


@needs_compiler
def test_pooled_spikes_are_ors():
    a, b = ((torch.rand(2, c, 6, 4) < 0.3).to(torch.uint8).contiguous(memory_format=torch.channels_last) for c in (5, 8))
    expected = torch.nn.functional.max_pool2d(torch.cat([a, b], 1).float(), 2)
    assert torch.equal(native.pool(a, b).float(), expected)
    assert torch.equal(native.pool(a.bfloat16(), b.bfloat16()).float(), expected)


def test_int8_weights_meet_exact_spikes():
    """Products and sums are exact: only the weights are rounded, each by half a step of its channel's scale at most."""
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(24, 16, 3, stride=2, padding=1)
    spikes = (torch.rand(2, 24, 10, 8) < 0.3).to(torch.uint8).contiguous(memory_format=torch.channels_last)
    packed = PackedConv(conv, torch.float32, spikes8=True)
    step = conv.weight.detach().abs().amax((1, 2, 3), keepdim=True) / 127
    rounded = (conv.weight.detach() / step).round() * step
    assert ((rounded - conv.weight).abs() <= step / 2 + 1e-7).all() and not torch.equal(rounded, conv.weight)
    expected = torch.nn.functional.conv2d(spikes.float(), rounded, conv.bias, 2, 1)
    assert torch.allclose(packed(spikes), expected, atol=1e-5)


def test_folding_keeps_the_logits_and_the_original():
    plain = lively(name="yolov4_tiny")
    before = {k: v.clone() for k, v in plain.state_dict().items()}
    folded = fold(plain)
    assert not norms(folded) and all(torch.equal(v, before[k]) for k, v in plain.state_dict().items())
    with torch.no_grad():
        assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(plain(pictures())[0], folded(pictures())[0], strict=True))


def test_where_there_is_no_fast_path_it_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "why_not", lambda: "no C++ compiler")
    plain = lively()
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler"):
        folded = fuse(plain, "int8")
    with torch.no_grad():
        assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(plain(pictures())[0], folded(pictures())[0], strict=True))
    with pytest.warns(UserWarning, match="do not spike"):
        fuse(lively(name="yolov4_tiny"), "bf16")


def test_the_measured_agreement_claims_no_precision_that_nothing_ran_at(weights_file: Path):
    tool = Path(__file__).parents[2] / "tools" / "bench" / "agreement.py"
    command = [sys.executable, str(tool), "--weights", str(weights_file), "--data", "."]
    done = subprocess.run(command, env=os.environ | {"SPYOLO_NATIVE": "0"}, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "no fast path here to compare: SPYOLO_NATIVE=0" in done.stderr


@needs_compiler
def test_no_training_and_no_unknown_precision():
    with pytest.raises(ValueError, match="cannot be trained"):
        fuse(lively(), "fp64").train()
    with pytest.raises(ValueError, match="precision must be one of"):
        fuse(lively(), "int4")


def test_units_are_not_shared_with_the_original():
    plain = lively()
    fuse(plain, "fp32")
    assert all(p.dtype == torch.float64 for p in plain.parameters()) and any(isinstance(m, LTCUnit) for m in plain.modules())
