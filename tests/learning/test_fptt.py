"""FPTT against what its equations say, written out: identities on a quadratic, limits, two steps by hand, parts of a sequence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from spyolo.learning import FORMS, FPTT, split_steps

ALPHA = 0.3


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Quadratic:
    """l_t(W) = (W - c_t)' A (W - c_t) / 2 with a centre that moves: an online problem whose gradient is known."""

    def __init__(self, size: int = 4) -> None:
        root = noise(size, size, seed=1)
        self.a = root @ root.T / size + torch.eye(size, dtype=torch.float64)
        self.centres = noise(12, size, seed=2)

    def loss(self, w: Tensor, t: int) -> Tensor:
        away = w - self.centres[t]
        return away @ self.a @ away / 2

    def gradient(self, w: Tensor, t: int) -> Tensor:
        return self.a @ (w.detach() - self.centres[t])


def train(rule: FPTT, problem: Quadratic, steps: int, after_step: Callable[[int], None] = lambda t: None) -> None:
    """One update a time step."""
    (w,) = rule.weights
    for t in range(steps):

        def part(t: int = t) -> None:
            problem.loss(w, t).backward()

        rule.optimizer.zero_grad()
        part()
        rule.step(part if rule.needs_closure else None)
        after_step(t)


def weight(size: int = 4, seed: int = 3) -> Tensor:
    return noise(size, seed=seed).requires_grad_()


class Newton(torch.optim.Optimizer):
    """Solves FPTT's inner problem exactly: its objective is a quadratic of Hessian A + alpha."""

    def __init__(self, w: Tensor, hessian: Tensor) -> None:
        super().__init__([w], {})
        self.hessian = hessian

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for w in self.param_groups[0]["params"]:
            w -= torch.linalg.solve(self.hessian, w.grad)


def test_lambda_is_the_gradient_when_the_inner_problem_is_solved():
    problem, w = Quadratic(), weight()
    rule = FPTT(Newton(w, problem.a + ALPHA * torch.eye(4, dtype=torch.float64)), ALPHA)

    def lambda_is_gradient(t: int) -> None:
        torch.testing.assert_close(rule.lam[0], problem.gradient(w, t), rtol=0, atol=1e-13)

    train(rule, problem, 10, lambda_is_gradient)


def test_feddyn_without_pull_is_online_sgd():
    problem, w = Quadratic(), weight()
    train(FPTT(torch.optim.SGD([w], lr=0.1), alpha=1e-9), problem, 10)
    v = weight().detach()
    for t in range(10):
        v = v - 0.1 * problem.gradient(v, t)
    torch.testing.assert_close(w.detach(), v, rtol=0, atol=1e-7)


def test_paper_without_pull_is_sgd_with_a_running_gradient():
    """facts: SGD on g_t + D_{t-1} / 2 with D_t = (D_{t-1} + g_{t-1}) / 2, where g_{t-1} is taken at the weights that step t starts from."""
    problem, w = Quadratic(), weight()
    train(FPTT(torch.optim.SGD([w], lr=0.1), alpha=1e-7, form="paper"), problem, 10)
    v = weight().detach()
    d_before = d = torch.zeros_like(v)
    for t in range(10):
        v = v - 0.1 * (problem.gradient(v, t) + d_before / 2)
        d_before, d = d, (d + problem.gradient(v, t)) / 2
    torch.testing.assert_close(w.detach(), v, rtol=0, atol=1e-5)
    plain = weight().detach()
    for t in range(10):
        plain = plain - 0.1 * problem.gradient(plain, t)
    assert (plain - v).abs().max() > 0.01  # it is not plain SGD


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_steps_by_hand(dtype):
    """W = 1, gradients 2 then -1, learning rate 1/4, alpha 1/2: every figure is exact in binary."""
    w = torch.ones(1, dtype=dtype, requires_grad=True)
    rule = FPTT(torch.optim.SGD([w], lr=0.25), alpha=0.5)
    w.grad = torch.full_like(w, 2.0)
    rule.step()
    # W = 1 - 2/4; lambda = 0 - (W - W_bar)/2 = 1/4; W_bar = (1 + 1/2)/2 - lambda/(2 alpha) = 3/4 - 1/4
    assert (w.item(), rule.lam[0].item(), rule.average[0].item()) == (0.5, 0.25, 0.5)
    w.grad = torch.full_like(w, -1.0)
    rule.step()
    # gradient = -1 + (W - W_bar)/2 - lambda = -5/4; W = 1/2 + 5/16; lambda = 1/4 - 5/32; W_bar = (1/2 + 13/16)/2 - lambda
    assert (w.item(), rule.lam[0].item(), rule.average[0].item()) == (13 / 16, 3 / 32, 21 / 32 - 3 / 32)
    assert w.grad.item() == -1.25  # what the optimizer consumed
    assert rule.average[0].dtype == rule.lam[0].dtype == dtype


def test_two_steps_of_paper_by_hand():
    """As above; the second backward gives 4 (then 1) at the new weights."""
    w = torch.ones(1, requires_grad=True)
    rule = FPTT(torch.optim.SGD([w], lr=0.25), alpha=0.5, form="paper")

    def second(value: float) -> Callable[[], None]:
        def closure() -> None:
            assert w.grad is None and torch.is_grad_enabled()
            (value * w).sum().backward()

        return closure

    w.grad = torch.full_like(w, 2.0)
    rule.step(second(4.0))
    # W = 1 - 2/4; W_bar = (1 + 1/2)/2 - 4/(2 alpha)
    assert (w.item(), rule.lam[0].item(), rule.average[0].item()) == (0.5, 4.0, 0.75 - 4.0)
    w.grad = torch.full_like(w, -1.0)
    rule.step(second(1.0))
    # gradient = -1 + (1/2 + 13/4)/2 - 4/2 = -9/8
    assert (w.item(), rule.lam[0].item()) == (0.5 + 9 / 32, 1.0)
    assert rule.average[0].item() == (-3.25 + w.item()) / 2 - 1.0
    assert w.grad is None  # nothing is left for the next part to add to


def test_paper_hands_the_optimizer_the_gradient_of_the_steps_own_problem():
    """Equation (1) as it stands, l_t(W) + alpha/2 |W - W_bar - g/(2 alpha)|^2, by autograd, at each of ten steps; g of the step before."""
    problem, w = Quadratic(), weight()
    rule = FPTT(torch.optim.SGD([w], lr=0.1), ALPHA, form="paper")
    before, average, g = w.detach().clone(), rule.average[0].clone(), torch.zeros(4, dtype=torch.float64)

    def it_was_that_gradient(t: int) -> None:
        nonlocal before, average, g
        v = before.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(problem.loss(v, t) + ALPHA / 2 * (v - average - g / (2 * ALPHA)).square().sum(), v)
        torch.testing.assert_close((before - w.detach()) / 0.1, wanted, rtol=0, atol=1e-12)
        before, average, g = w.detach().clone(), rule.average[0].clone(), problem.gradient(w, t)

    train(rule, problem, 10, it_was_that_gradient)


def recurrent(w: Tensor, h: Tensor, xs: Tensor) -> tuple[Tensor, Tensor]:
    """Loss over some steps of a small recurrent network, and its last state."""
    loss = torch.zeros((), dtype=w.dtype)
    for x in xs:
        h = torch.tanh(w @ h + x)
        loss = loss + (h - 0.5).square().sum()
    return loss / len(xs), h


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_k_parts_are_bptt_inside_and_an_update_between(parts):
    xs = noise(7, 3, seed=5)
    w = (noise(3, 3, seed=6) / 2).requires_grad_()
    rule = FPTT(torch.optim.SGD([w], lr=0.1), ALPHA)
    h = torch.zeros(3, dtype=torch.float64)
    plan = split_steps(7, parts)
    for chunk in xs.split(plan):
        rule.optimizer.zero_grad()
        loss, h = recurrent(w, h.detach(), chunk)
        loss.backward()
        rule.step()

    v = noise(3, 3, seed=6) / 2
    v_bar, lam, h = v.clone(), torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    start = 0
    for steps in plan:
        v.requires_grad_()
        loss, h = recurrent(v, h.detach(), xs[start : start + steps])
        (g,) = torch.autograd.grad(loss, v)
        v = v.detach()
        v_new = v - 0.1 * (g + ALPHA * (v - v_bar) - lam)
        lam = lam - ALPHA * (v_new - v_bar)
        v_bar = (v_bar + v_new) / 2 - lam / (2 * ALPHA)
        v, start = v_new, start + steps
    torch.testing.assert_close(w.detach(), v)
    torch.testing.assert_close(rule.average[0], v_bar)
    torch.testing.assert_close(rule.lam[0], lam)


def consumed(rule: FPTT, gradient: float) -> Tensor:
    """The gradient that plain SGD of rate 1 was handed."""
    (w,) = rule.weights
    before = w.detach().clone()
    w.grad = torch.full_like(w, gradient)
    rule.step()
    return before - w.detach()


def test_clipping_spares_the_regulariser_except_in_the_reference():
    """Task gradient (3, 3, 3, 3) of norm 6, clipped to 1; the regulariser adds alpha (W - W_bar) = 0.3 (2, -2, 2, -2)."""
    both = torch.tensor([3.6, 2.4, 3.6, 2.4])
    for form, expected in (("feddyn", torch.tensor([1.1, -0.1, 1.1, -0.1])), ("reference", both / both.norm())):
        w = torch.tensor([2.0, -2.0, 2.0, -2.0], requires_grad=True)
        rule = FPTT(torch.optim.SGD([w], lr=1.0), ALPHA, form=form, clip=1.0)
        rule.average[0].zero_()
        torch.testing.assert_close(consumed(rule, 3.0), expected)


def test_the_second_gradient_of_paper_is_clipped_too():
    w = torch.full((4,), 2.0, requires_grad=True)
    rule = FPTT(torch.optim.SGD([w], lr=1.0), ALPHA, form="paper", clip=1.0)
    (3 * w).sum().backward()
    rule.step(lambda: (3 * w).sum().backward())
    torch.testing.assert_close(rule.lam[0], torch.full((4,), 0.5))


def test_only_the_reference_goes_on_from_the_average():
    for form in FORMS:
        problem, w = Quadratic(), weight()
        rule = FPTT(torch.optim.SGD([w], lr=0.1), ALPHA, form=form)
        train(rule, problem, 3)
        before, lam = w.detach().clone(), rule.lam[0].clone()
        assert not torch.equal(before, rule.average[0])
        rule.end_epoch()
        assert torch.equal(w.detach(), rule.average[0] if form == "reference" else before)
        assert torch.equal(rule.lam[0], lam)  # kept over epochs, as the authors ran it


def test_no_gradients_is_an_error():
    rule = FPTT(torch.optim.SGD([weight()], lr=0.1))
    with pytest.raises(RuntimeError, match="no gradients: call backward"):
        rule.step()


def test_paper_without_a_second_forward_is_an_error():
    w = weight()
    rule = FPTT(torch.optim.SGD([w], lr=0.1), form="paper")
    assert rule.needs_closure
    w.sum().backward()
    with pytest.raises(RuntimeError, match=r"needs step\(closure\)"):
        rule.step()
    assert torch.equal(w, weight())  # nothing has been moved


@pytest.mark.parametrize("form", FORMS)
def test_a_weight_without_gradient_is_left_alone(form):
    """Say, a head that this part did not reach: pulling it along would move it by the other weights' clock."""
    used, unused = weight(seed=1), weight(seed=2)
    rule = FPTT(torch.optim.Adam([used, unused], lr=0.1), ALPHA, form=form)
    rule.average[1] += 1.0
    rule.lam[1] += 2.0
    kept = [t.detach().clone() for t in (unused, rule.average[1], rule.lam[1])]

    def part() -> None:
        used.square().sum().backward()

    part()
    rule.step(part if rule.needs_closure else None)
    assert all(torch.equal(a.detach(), b) for a, b in zip((unused, rule.average[1], rule.lam[1]), kept))
    assert not torch.equal(used.detach(), weight(seed=1).detach()) and rule.lam[0].abs().sum() > 0


OPTIMIZERS: dict[str, Callable[[Tensor], torch.optim.Optimizer]] = {
    "sgd": lambda w: torch.optim.SGD([w], lr=0.05, momentum=0.9),
    "adam": lambda w: torch.optim.Adam([w], lr=0.1),
    "adamw": lambda w: torch.optim.AdamW([w], lr=0.1, fused=True),
    "adamax": lambda w: torch.optim.Adamax([w], lr=0.1),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_comes_down_a_fixed_quadratic(name, form):
    problem, w = Quadratic(), weight()
    problem.centres[:] = problem.centres[0]
    rule = FPTT(OPTIMIZERS[name](w), alpha=1.0, form=form)
    first = problem.loss(w, 0).item()
    for _ in range(20):
        train(rule, problem, 12)
    assert problem.loss(w, 0).item() < 0.05 * first


def test_the_optimizer_is_handed_the_regularised_gradient_whatever_it_is():
    """Adam around FPTT is Adam on g + alpha (W - W_bar) - lambda, with moments of that sum."""
    problem, w, v = Quadratic(), weight(), weight()
    train(FPTT(torch.optim.Adam([w], lr=0.1), ALPHA), problem, 6)
    adam, v_bar, lam = torch.optim.Adam([v], lr=0.1), v.detach().clone(), torch.zeros(4, dtype=torch.float64)
    for t in range(6):
        v.grad = problem.gradient(v, t) + ALPHA * (v.detach() - v_bar) - lam
        adam.step()
        lam = lam - ALPHA * (v.detach() - v_bar)
        v_bar = (v_bar + v.detach()) / 2 - lam / (2 * ALPHA)
    torch.testing.assert_close(w, v)


def test_state_goes_on_where_it_was():
    problem, w = Quadratic(), weight()
    rule = FPTT(torch.optim.SGD([w], lr=0.1), ALPHA)
    train(rule, problem, 5)
    saved = {k: [t.clone() for t in v] for k, v in rule.state_dict().items()}
    other_w = w.detach().clone().requires_grad_()
    other = FPTT(torch.optim.SGD([other_w], lr=0.1), ALPHA)
    other.load_state_dict(saved)
    for r in (rule, other):
        train(r, problem, 3)
    assert torch.equal(w, other_w) and torch.equal(rule.average[0], other.average[0]) and torch.equal(rule.lam[0], other.lam[0])
    assert not torch.equal(saved["lam"][0], other.lam[0])  # loaded by value: what was saved is not trained on


def test_restart_forgets_all_but_the_weights():
    problem, w = Quadratic(), weight()
    rule = FPTT(torch.optim.SGD([w], lr=0.1), ALPHA)
    train(rule, problem, 5)
    before = w.detach().clone()
    rule.restart()
    assert torch.equal(w.detach(), before) and torch.equal(rule.average[0], before) and not rule.lam[0].any()
    assert rule.average[0] is not w


@pytest.mark.parametrize(("options", "message"), [({"alpha": 0}, "alpha must be positive"), ({"form": "best"}, "feddyn, paper, reference")])
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        FPTT(torch.optim.SGD([weight()], lr=0.1), **options)
