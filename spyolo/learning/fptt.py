"""Forward Propagation Through Time (Kag & Saligrama, ICML 2021; Yin, Corradi & Bohte, 2023) around any torch optimizer.

Learning is online: after each part of a sequence the weights are updated, pulled toward their running average and along a running
estimate of the loss gradient. Memory is that of one part plus two copies of the weights, however long the sequence.

    feddyn      grad <- g + alpha (W - W_bar) - lambda;  optimizer;  lambda <- lambda - alpha (W - W_bar);
                W_bar <- (W_bar + W) / 2 - lambda / (2 alpha).   One backward: at the optimum of its inner problem lambda IS the gradient.
    paper       grad <- g + alpha (W - W_bar) - g' / 2;  optimizer;  g' <- gradient of the same part at the new W (a second forward and
                backward);  W_bar <- (W_bar + W) / 2 - g' / (2 alpha).   The article's equations.
    reference   feddyn as the authors ran it: the gradient is clipped after the regulariser is added, and W <- W_bar after each epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FORMS = ("feddyn", "paper", "reference")
Closure = Callable[[], Any]  # recomputes the part's loss at the present weights, from the same incoming state, and calls backward


def weights_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All tensors an optimizer trains, in its order."""
    return [w for group in optimizer.param_groups for w in group["params"]]


def clip_(weights: list[Tensor], norm: float | None) -> None:
    """Scale the gradients of `weights` down to a global L2 norm; no host synchronisation."""
    if norm is not None:
        torch.nn.utils.clip_grad_norm_(weights, norm, foreach=True)


class FPTT:
    """FPTT as an object around an optimizer: call `step()` where you would call `optimizer.step()`.

    Args:
        optimizer: any torch optimizer; it consumes the regularised gradient.
        alpha: strength of the pull toward the running average.
        form: `feddyn`, `paper` or `reference`, see the module.
        clip: global L2 norm to which the task's gradient is clipped, before the regulariser is added (`reference`: after).

    Attributes:
        weights: what trains (W).
        average: the running average W_bar, one tensor a weight.
        lam: lambda (feddyn, reference) or the last part's gradient g' (paper).
    """

    name = "fptt"

    def __init__(self, optimizer: torch.optim.Optimizer, alpha: float = 0.1, *, form: str = "feddyn", clip: float | None = None) -> None:
        if not alpha > 0:
            raise ValueError(f"alpha must be positive, got {alpha}")
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form!r}")
        self.optimizer, self.alpha, self.form, self.clip = optimizer, alpha, form, clip
        self.needs_closure = form == "paper"
        self.weights = weights_of(optimizer)
        self.average = [w.detach().clone() for w in self.weights]
        self.lam = [torch.zeros_like(w) for w in self.weights]

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> None:
        """Consume the gradients in place: call after `backward` of one part of the sequence.

        Args:
            closure: needed by form `paper` only; it must leave norm statistics alone and reuse the same masks.

        Raises:
            RuntimeError: no gradients, or form `paper` without a closure; nothing has been moved then.
        """
        if self.form == "paper" and closure is None:
            raise RuntimeError("form 'paper' needs step(closure): a second forward and backward at the new weights")
        trained = [(w, a, m) for w, a, m in zip(self.weights, self.average, self.lam) if w.grad is not None]
        if not trained:
            raise RuntimeError("FPTT.step() found no gradients: call backward() first")
        weights, average, lam = (list(column) for column in zip(*trained))
        grads = [w.grad for w in weights]
        if self.form != "reference":
            clip_(weights, self.clip)
        torch._foreach_add_(grads, torch._foreach_sub(weights, average), alpha=self.alpha)
        torch._foreach_sub_(grads, lam, alpha=0.5 if self.form == "paper" else 1.0)
        if self.form == "reference":
            clip_(weights, self.clip)
        self.optimizer.step()
        if closure is not None and self.form == "paper":
            self._gradient_at_new_weights(closure, weights, lam)
        else:
            torch._foreach_sub_(lam, torch._foreach_sub(weights, average), alpha=self.alpha)
        torch._foreach_lerp_(average, weights, 0.5)
        torch._foreach_sub_(average, lam, alpha=0.5 / self.alpha)

    def _gradient_at_new_weights(self, closure: Closure, weights: list[Tensor], into: list[Tensor]) -> None:
        """Second backward of form `paper`: g' of the part just seen, at the weights just reached."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            closure()
        clip_(weights, self.clip)
        for g, w in zip(into, weights):
            g.zero_() if w.grad is None else g.copy_(w.grad)
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def end_epoch(self) -> None:
        """What the form does between epochs: `reference` goes on from the average; the others do nothing."""
        if self.form == "reference":
            torch._foreach_copy_(self.weights, self.average)

    @torch.no_grad()
    def restart(self) -> None:
        """Warm start from the present weights: W_bar = W, lambda = 0 (the optimizer's moments are the caller's)."""
        torch._foreach_copy_(self.average, self.weights)
        torch._foreach_zero_(self.lam)

    def state_dict(self) -> dict[str, list[Tensor]]:
        return {"average": self.average, "lam": self.lam}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        torch._foreach_copy_(self.average, state["average"])
        torch._foreach_copy_(self.lam, state["lam"])
