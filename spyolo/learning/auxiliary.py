"""Labels that come only at the end: the auxiliary loss of Kag & Saligrama (ICML 2021), which gives every part of a sequence a target.

Part p of P, w = (p + 1) / P:    loss = w CE(o, y) + (1 - w) CE(o, Q[y, p])

Q[y, p] estimates which class distribution a network can be asked for after part p of a sequence of class y: uniform to begin with, later
what it says about such sequences; in the last part w = 1 and the label alone counts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

POLICIES = ("average", "misclassified")
SCALINGS = ("sound", "reference")


class AuxiliaryLoss(nn.Module):
    """`rule.step(x, y, loss=aux.at(p))`, then `aux.update(seen.output, y, p)`.

    Args:
        classes, parts: sizes of Q [classes, parts, classes].
        warm_up: epochs (`epoch`, which the caller sets) in which Q stays uniform.
        policy: `average`, Q moves toward the mean answer to each class, by `rate`; `misclassified` (the reference): in each batch the first
            sample of a class that is misclassified after part p overwrites Q[y, p] with its answer.
        scaling: `sound`, the second term is a cross-entropy, as the first; `reference`: its mean over the classes too, 1/classes of that.
    """

    Q: Tensor

    def __init__(
        self, classes: int, parts: int, *, warm_up: int = 0, policy: str = "average", rate: float = 0.1, scaling: str = "sound"
    ) -> None:
        super().__init__()
        if policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(POLICIES)}; got {policy!r}")
        if scaling not in SCALINGS:
            raise ValueError(f"scaling must be one of {', '.join(SCALINGS)}; got {scaling!r}")
        self.parts, self.warm_up, self.policy, self.rate, self.scaling, self.epoch = parts, warm_up, policy, rate, scaling, 0
        self.register_buffer("Q", torch.full((classes, parts, classes), 1 / classes))

    def forward(self, output: Tensor, target: Tensor, part: int) -> Tensor:
        """Logits [B, classes], labels [B] and the part's number -> scalar."""
        w = (part + 1) / self.parts
        loss = w * nn.functional.cross_entropy(output, target)
        if w == 1:
            return loss
        asked = self.Q[target, part].to(output.dtype)
        second = -(asked * torch.log_softmax(output, -1)).sum(-1).mean()
        return loss + (1 - w) * (second / output.shape[-1] if self.scaling == "reference" else second)

    def at(self, part: int) -> Callable[[Tensor, Tensor], Tensor]:
        """The loss of part `part`, as a rule takes it."""
        return partial(self.forward, part=part)

    @torch.no_grad()
    def update(self, output: Tensor, target: Tensor, part: int) -> None:
        """Let Q follow what the network says after part `part` (not in the warm-up)."""
        if self.epoch < self.warm_up:
            return
        answer = torch.softmax(output, -1).to(self.Q.dtype)
        if self.policy == "average":
            count = torch.bincount(target, minlength=len(self.Q)).to(answer.dtype)
            mean = torch.zeros_like(self.Q[:, part]).index_add_(0, target, answer) / count.clamp(min=1)[:, None]
            self.Q[:, part].lerp_(mean, (self.rate * (count > 0).to(answer.dtype))[:, None])
            return
        wrong = answer.argmax(-1) != target
        for label in target[wrong].unique().tolist():
            first = (wrong & (target == label)).nonzero()[0, 0]
            self.Q[label, part] = answer[first]
