"""The fused LTC step against `ltc_step`, its oracle: the same numbers and gradients, compiled or not, in any layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spyolo.neurons import LTCState, LTCUnit, build_gate, ltc_step, multi_gaussian
from spyolo.neurons.fused import Compiling, fused_ltc_step, is_dense, kernels
from spyolo.neurons.surrogate import triangle


@pytest.fixture(params=[True, False], ids=["compiled", "plain"])
def compiling(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param and not Compiling.enabled:
        pytest.skip("no compiler here")
    monkeypatch.setattr(Compiling, "enabled", request.param)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def both(current: Tensor, logit: Tensor, u: Tensor, **options) -> list[tuple[Tensor, ...]]:
    """(s, u, gradients of current, logit and membrane) by either step."""
    answers = []
    for fused in (True, False):
        inputs = [t.detach().requires_grad_() for t in (current, logit, u)]
        x, g, m = inputs
        state = LTCState(m, torch.zeros_like(x))
        after = fused_ltc_step(x, g, state, **options) if fused else ltc_step(x, torch.sigmoid(g), state, **options)
        weight_s, weight_u = noise(*after.s.shape, seed=1), noise(*after.s.shape, seed=2)
        grads = torch.autograd.grad((after.s * weight_s + after.u * weight_u).sum(), inputs)
        answers.append((after.s, after.u, *grads))
    return answers


def assert_equal(answers: list[tuple[Tensor, ...]]) -> None:
    fused, oracle = answers
    assert 0.05 < oracle[0].mean() < 0.95  # both sides of the threshold are met
    assert torch.equal(fused[0], oracle[0])
    for name, a, b in zip(["u", "d current", "d logit", "d u"], fused[1:], oracle[1:], strict=True):
        assert a.shape == b.shape, name
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-13), name


@pytest.mark.usefixtures("compiling")
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("surrogate", [multi_gaussian, triangle])
def test_same_numbers_and_gradients(detach_reset: bool, surrogate):
    current, logit, u = 3 * noise(2, 4, 5, 3), noise(2, 4, 5, 3, seed=4), noise(2, 4, 5, 3, seed=5)
    assert_equal(both(current, logit, u, threshold=0.7, detach_reset=detach_reset, surrogate=surrogate))


@pytest.mark.usefixtures("compiling")
@pytest.mark.parametrize(
    "layout",
    {
        "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
        "half of the channels": lambda x: torch.cat([x, x], 1)[:, :4],
        "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        "expanded": lambda x: x[:1].expand(x.shape),
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.parametrize("which", ["current", "logit", "u", "all"])
def test_any_memory_layout(layout, which: str):
    tensors = {"current": 3 * noise(2, 4, 5, 3), "logit": noise(2, 4, 5, 3, seed=4), "u": noise(2, 4, 5, 3, seed=5)}
    tensors = {name: layout[1](t) if which in (name, "all") else t for name, t in tensors.items()}
    assert_equal(both(**tensors, threshold=1.0, detach_reset=False, surrogate=multi_gaussian))


@pytest.mark.usefixtures("compiling")
def test_a_logit_a_channel_gets_the_summed_gradient():
    current, logit, u = 3 * noise(2, 4, 5, 3), noise(4, 1, 1, seed=4), noise(2, 4, 5, 3, seed=5)
    assert_equal(both(current, logit, u, threshold=1.0, detach_reset=False, surrogate=multi_gaussian))


@pytest.mark.usefixtures("compiling")
def test_either_output_may_go_unused():
    options = {"threshold": 1.0, "detach_reset": False, "surrogate": multi_gaussian}
    for use in ("s", "u"):
        grads = []
        for fused in (True, False):
            x, g = (3 * noise(3, 4)).requires_grad_(), noise(3, 4, seed=4)
            state = LTCState(noise(3, 4, seed=5), torch.zeros(3, 4, dtype=x.dtype))
            after = fused_ltc_step(x, g, state, **options) if fused else ltc_step(x, torch.sigmoid(g), state, **options)
            grads.append(torch.autograd.grad(getattr(after, use).sum(), x)[0])
        assert grads[0].count_nonzero() > 0 and torch.allclose(*grads, rtol=1e-10, atol=1e-13)


@pytest.mark.usefixtures("compiling")
def test_a_bf16_current_leaves_the_membrane_in_fp32():
    x, g = noise(3, 4).bfloat16().requires_grad_(), noise(3, 4, seed=4).bfloat16().requires_grad_()
    u = noise(3, 4, seed=5).float().requires_grad_()
    after = fused_ltc_step(x, g, LTCState(u, torch.zeros_like(x)), threshold=1.0, detach_reset=False, surrogate=multi_gaussian)
    assert (after.s.dtype, after.u.dtype) == (torch.bfloat16, torch.float32)
    (after.s.float() + after.u).sum().backward()
    assert (x.grad.dtype, g.grad.dtype, u.grad.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)


@pytest.mark.usefixtures("compiling")
def test_exactly_at_the_threshold_is_silent():
    x = torch.ones(1, 3)
    after = fused_ltc_step(x, torch.zeros(1, 3), LTCState(x, x), threshold=1.0, detach_reset=False, surrogate=multi_gaussian)
    assert after.s.tolist() == [[0, 0, 0]] and after.u.tolist() == [[1, 1, 1]]


@pytest.mark.usefixtures("compiling")
def test_the_unit_is_the_same_either_way():
    unit = LTCUnit(build_gate("depthwise", 4)).double().eval()
    x = 3 * noise(6, 2, 4, 5, 5)
    ran = {}
    for fused in (True, False):
        unit.fused = fused
        state = unit.initial_state(x[0])
        for current in x:
            _, state = unit(current, state)
        ran[fused] = state
    assert torch.equal(ran[True].s, ran[False].s) and torch.allclose(ran[True].u, ran[False].u, atol=1e-12)
    assert ran[True].s.count_nonzero() > 0


@pytest.mark.parametrize("compiling", [True], indirect=True)
@pytest.mark.usefixtures("compiling")
def test_a_kernel_is_compiled_once_for_all_shapes():
    """Where it would be compiled anew, `fail_on_recompile` ends in the plain functions, with a warning."""
    for i, shape in enumerate([(2, 4, 5, 3), (3, 6), (1, 6), (2, 4, 5, 5), (1, 1, 2, 2), (7, 3, 5)]):
        with torch.compiler.set_stance("fail_on_recompile" if i else "default"):
            x, u = (torch.randn(2, *shape)[k].requires_grad_() for k in (0, 1))  # views: u's storage begins before it
            first = fused_ltc_step(x, u, None, threshold=0.5, detach_reset=True, surrogate=triangle)
            fused_ltc_step(x, u, first, threshold=0.5, detach_reset=True, surrogate=triangle).u.sum().backward()
        assert Compiling.enabled


def test_a_state_of_another_batch_is_refused_and_costs_no_compiler(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Compiling, "enabled", True)
    for gate, dtype in (("static", torch.float32), ("depthwise", torch.bfloat16)):  # a gate adds up current and membrane in a kernel, too
        unit = LTCUnit(build_gate(gate, 4)).to(dtype)
        with pytest.raises(ValueError, match=r"state is of shape \[2, 4, 3, 3\], the current of \[3, 4, 3, 3\]"):
            unit(torch.zeros(3, 4, 3, 3, dtype=dtype), unit.initial_state(torch.zeros(2, 4, 3, 3, dtype=dtype)))
        assert Compiling.enabled


@pytest.mark.parametrize(
    ("error", "told"),
    [(RuntimeError("no C++ compiler found"), r"RuntimeError: no C\+\+ compiler found"), (AssertionError(), "AssertionError")],
)
def test_without_a_compiler_it_warns_once_and_goes_on(monkeypatch: pytest.MonkeyPatch, error: Exception, told: str):
    def no_compiler(*inputs: object) -> None:
        raise error

    monkeypatch.setattr(Compiling, "enabled", True)
    monkeypatch.setattr("spyolo.neurons.fused.kernels", lambda compiled: (no_compiler, no_compiler) if compiled else kernels(False))
    x = torch.full((1, 2), 3.0)
    with pytest.warns(UserWarning, match=rf"not to be had here \({told}\)"):
        s = fused_ltc_step(x, x, LTCState(x, x), threshold=1.0, detach_reset=False, surrogate=multi_gaussian).s
    assert s.tolist() == [[1, 1]] and not Compiling.enabled


@pytest.mark.parametrize(
    "tensor, dense",
    [
        (torch.zeros(2, 3, 4), True),
        (torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last), True),
        (torch.zeros(2, 1, 4)[:, :, ::2], False),
        (torch.zeros(1, 3).expand(2, 3), False),
        (torch.zeros(2, 6)[:, :3], False),
        (torch.zeros(4, 6)[1:3], True),
    ],
)
def test_dense_means_without_gaps_or_overlaps(tensor: Tensor, dense: bool):
    assert is_dense(tensor) == dense
