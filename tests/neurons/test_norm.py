"""Norms of synaptic currents: batch renormalisation, and statistics that can be frozen or taken anew."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from spyolo.neurons import BatchRenorm2d, build_norm, fresh_statistics, frozen_statistics, norms


@pytest.fixture
def x() -> Tensor:
    return 3 * torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1


def matched(x: Tensor) -> BatchRenorm2d:
    """A renorm whose running statistics are the batch's, with an affine part that is not the identity."""
    norm = BatchRenorm2d(2).double()
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(var)
    nn.init.constant_(norm.weight, 1.5)
    nn.init.constant_(norm.bias, -0.5)
    return norm


def test_renorm_is_batch_norm_where_running_and_batch_statistics_agree(x: Tensor):
    renorm, batch = matched(x), nn.BatchNorm2d(2).double()
    batch.load_state_dict(renorm.state_dict())
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    ya, yb = renorm(a), batch(b)
    assert torch.allclose(ya, yb, rtol=0, atol=1e-12)
    weights = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)
    (ya * weights).sum().backward()
    (yb * weights).sum().backward()
    assert torch.allclose(a.grad, b.grad, rtol=0, atol=1e-12)
    for name, buffer in renorm.named_buffers():
        assert torch.allclose(buffer.double(), dict(batch.named_buffers())[name].double(), rtol=0, atol=1e-12), name


def test_training_sees_what_inference_will_see(x: Tensor):
    # Running statistics off by less than the clips: the output in training is the one of eval mode, which batch norm's is not.
    renorm = matched(x)
    renorm.running_mean += 0.7
    renorm.running_var *= 2
    seen = {}
    for training in (False, True):
        renorm.train(training)
        with frozen_statistics(renorm):
            seen[training] = renorm(x)
    assert torch.allclose(seen[True], seen[False], rtol=0, atol=1e-9)


def test_corrections_are_clipped():
    # Batch 0 and 20: mean 10, std 10; running mean 0, std 1: r = 10 -> 3, d = 10 -> 5; y = ((x - 10) / 10) 3 + 5 = 2 and 8.
    x = torch.tensor([0.0, 20.0], dtype=torch.float64).view(2, 1, 1, 1)
    y = BatchRenorm2d(1, r_max=3, d_max=5).double()(x)
    assert y.flatten().tolist() == pytest.approx([2, 8], abs=1e-4)


def test_corrections_carry_no_gradient(x: Tensor):
    # With r = 3 and d clipped, y is 3 times the batch norm plus a constant: so must be its gradient.
    renorm, batch = BatchRenorm2d(2).double(), nn.BatchNorm2d(2).double()
    far = 100 * x
    a, b = far.clone().requires_grad_(), far.clone().requires_grad_()
    (renorm(a) ** 3).sum().backward()
    y = batch(b)
    ((3 * y + (renorm_shift(renorm, far))) ** 3).sum().backward()
    assert torch.allclose(a.grad, b.grad, rtol=1e-6, atol=1e-9)


def renorm_shift(renorm: BatchRenorm2d, x: Tensor) -> Tensor:
    """d of a fresh renorm (running mean 0, variance 1), as a constant."""
    return (x.mean((0, 2, 3)) / (1 + renorm.eps) ** 0.5).clamp(-5, 5).view(1, -1, 1, 1)


def test_renorm_in_eval_mode_is_batch_norm_in_eval_mode(x: Tensor):
    renorm = matched(x).eval()
    batch = nn.BatchNorm2d(2).double().eval()
    batch.load_state_dict(renorm.state_dict())
    assert torch.equal(renorm(x + 1), batch(x + 1))


@pytest.mark.parametrize("kind", ["batch", "renorm"])
def test_no_momentum_is_a_cumulative_mean(kind: str, x: Tensor):
    """That is how statistics are recalibrated: reset, momentum None, a few batches."""
    norm = build_norm(kind, 2).double()
    norm.momentum = None
    norm.reset_running_stats()
    batches = [x, 2 * x + 1, x - 5]
    for batch in batches:
        norm(batch)
    means = torch.stack([b.mean((0, 2, 3)) for b in batches])
    variances = torch.stack([b.var((0, 2, 3)) for b in batches])
    assert torch.allclose(norm.running_mean, means.mean(0)) and torch.allclose(norm.running_var, variances.mean(0))
    assert norm.num_batches_tracked == 3


def test_statistics_taken_anew_are_those_of_the_plain_norm_in_every_layer():
    """What a renormalised layer passes on while it gathers must not be corrected by half-gathered statistics."""
    gathered = {}
    for kind in ("batch", "renorm"):
        torch.manual_seed(0)
        model = nn.Sequential(*(m for _ in range(3) for m in (nn.Conv2d(2, 2, 3), build_norm(kind, 2), nn.ReLU()))).double()
        with torch.no_grad():
            model[0].weight.mul_(20)
        with fresh_statistics(model):
            for _ in range(4):
                model(torch.randn(3, 2, 12, 12, dtype=torch.float64))
        gathered[kind] = [s for m in norms(model) for s in (m.running_mean, m.running_var)]
    for plain, renormalised in zip(gathered["batch"], gathered["renorm"]):
        torch.testing.assert_close(renormalised, plain)


@pytest.mark.parametrize("kind", ["batch", "renorm"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_frozen_statistics_leave_everything_alone(kind: str, momentum: float | None, x: Tensor):
    model = nn.Sequential(nn.Conv2d(2, 2, 1), build_norm(kind, 2), nn.Sequential(build_norm(kind, 2))).double()
    for norm in norms(model):
        norm.momentum = momentum
    model(x)
    before = {name: b.clone() for name, b in model.named_buffers()}
    assert len(before) == 6
    with frozen_statistics(model):
        first = model(x + 3)
        second = model(x + 3)
    assert torch.equal(first, second) and model.training
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())
    assert [n.momentum for n in norms(model)] == [momentum] * 2
    model(x + 3)
    assert not torch.equal(model[1].running_mean, before["1.running_mean"])  # and afterwards they move again


def test_frozen_statistics_are_freed_after_an_error(x: Tensor):
    norm = nn.BatchNorm2d(2).double()
    with pytest.raises(RuntimeError, match="in between"), frozen_statistics(norm):
        raise RuntimeError("in between")
    assert norm.momentum == 0.1


def test_norms_finds_all_of_them():
    model = nn.ModuleList([nn.BatchNorm2d(2), nn.Sequential(BatchRenorm2d(2), nn.Linear(1, 1)), nn.BatchNorm1d(3)])
    assert len(norms(model)) == 3
