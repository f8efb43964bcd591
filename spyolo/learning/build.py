"""A learning rule by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from spyolo.learning.bptt import BPTT
from spyolo.learning.eligibility import OSTL, EProp
from spyolo.learning.fptt import FPTT
from spyolo.learning.ottt import OTTT
from spyolo.learning.sequence_rule import Loss, SequenceRule
from spyolo.learning.window import SLTT, WindowRule

RULES = ("bptt", "fptt", "eprop", "ostl", "ottt", "sltt")


def build_rule(
    name: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    *,
    parts: int | str | None = None,
    mean: bool = False,
    clip: float | None = None,
    alpha: float | None = None,
    form: str | None = None,
    **options: Any,
) -> SequenceRule:
    """A rule for `network` around any torch optimizer; how to drive it: `spyolo.learning.sequence_rule`.

    Args:
        name: one of `RULES`.
        loss: (output, target) -> scalar, a mean over the batch.
        parts: updates a sequence; None is the rule's habit: after every step for fptt, once at the end for the others.
        mean: divide a part's gradient by its number of steps with a target.
        clip: global L2 norm of each update's gradient.
        alpha, form: FPTT's; None: 0.1 and `feddyn`.
        options: the rule's own.

    Raises:
        ValueError: no such rule, or values of options that make no sense.
        TypeError: an option that the rule does not have.
        InputError: a rule that is not defined for these cells, with the reason.
    """
    if name not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}; got {name!r}")
    if name == "fptt":
        update = FPTT(optimizer, 0.1 if alpha is None else alpha, form=form or "feddyn", clip=clip)
        return WindowRule(network, update, loss, parts="all" if parts is None else parts, mean=mean, **options)
    if alpha is not None or form is not None:
        raise TypeError(f"alpha and form are FPTT's; {name} has neither")
    plain, parts = BPTT(optimizer, clip=clip), 1 if parts is None else parts
    if name == "bptt":
        return WindowRule(network, plain, loss, parts=parts, mean=mean, **options)
    rules: dict[str, type[SequenceRule]] = {"eprop": EProp, "ostl": OSTL, "ottt": OTTT, "sltt": SLTT}
    return rules[name](network, plain, loss, parts=parts, mean=mean, **options)
