"""Rules by autograd over a window of steps: BPTT (window = part), FPTT (the same gradient, another update) and SLTT (window = one step)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spyolo.learning.sequence_rule import Loss, Seen, SequenceRule, Update
from spyolo.neurons import Stack, detach, frozen_statistics


class WindowRule(SequenceRule):
    """The exact gradient inside each part, nothing across its border: the graph lives as long as the part.

    parts=1 is BPTT, parts=K truncated BPTT; with the update `FPTT` it is FPTT-K, with parts='all' online FPTT.
    """

    def __init__(self, network: nn.Module, update: Update, loss: Loss, **options: Any) -> None:
        super().__init__(network, update, loss, **options)
        self.name = update.name

    def _begin(self) -> None:
        self._total: Tensor | None = None
        self._shown: list[tuple[Tensor, Any, float, Loss]] = []
        self._incoming: Any = None

    def _advance(self, x: Tensor, target: Any, weight: float, loss: Loss) -> Seen:
        if self.update.needs_closure:  # a second pass will be asked for: keep what it needs
            if not self._shown:
                self._incoming, self._noise = detach(self.state), _noise(x.device)
            self._shown.append((x, target, weight, loss))
        output, self.state = self.network(x, self.state)
        if target is None:
            return Seen(output.detach(), None)
        value = loss(output, target)
        self._total = weight * value if self._total is None else self._total + weight * value
        return Seen(output.detach(), value.detach())

    @property
    def skims(self) -> bool:
        """Where the network can run over a span, and no second pass is asked for."""
        return not self.update.needs_closure and type(self.network) is Stack and self.network.can_span

    def _pass(self, x: Tensor) -> None:
        assert isinstance(self.network, Stack)
        self.state = self.network.span(x, self.state)

    def _gather(self) -> None:
        assert self._total is not None
        self._total.backward()

    def _again(self) -> None:
        total: Tensor | float = 0.0
        state = self._incoming
        devices = [self._shown[0][0].device] if self._shown[0][0].is_cuda else []
        with torch.random.fork_rng(devices), frozen_statistics(self.network):
            _set_noise(self._noise, self._shown[0][0].device)
            for x, target, weight, loss in self._shown:
                output, state = self.network(x, state)
                if target is not None:
                    total = total + weight * loss(output, target)
        assert isinstance(total, Tensor)
        (total / self._targets if self.mean else total).backward()

    def _close(self) -> None:
        self.state, self._total, self._shown = detach(self.state), None, []


class SLTT(SequenceRule):
    """Spatial learning through time (Meng et al., ICCV 2023): no gradient through time at all, for any network.

    Args:
        steps: learn at this many of the steps with a target only, drawn anew for each batch from `seed` (SLTT-K); None: at all of them.
            `mean` then divides by the steps that were learned at. Where not every step has a target, `start` must be told how many have.
    """

    name = "sltt"

    def __init__(self, *args: Any, steps: int | None = None, seed: int = 0, **options: Any) -> None:
        super().__init__(*args, **options)
        if steps is not None and steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        self.learn_at = steps
        self._generator = torch.Generator().manual_seed(seed)

    def _begin(self) -> None:
        self._left, self._to_come = min(self.learn_at or self.targets, self.targets), self.targets
        self._learned = 0

    def _advance(self, x: Tensor, target: Any, weight: float, loss: Loss) -> Seen:
        learn = target is not None and self._chosen()
        with torch.set_grad_enabled(learn):
            output, state = self.network(x, self.state)
            value = None if target is None else loss(output, target)
        if learn and value is not None:
            (weight * value).backward()
            self._learned += 1
        self.state = detach(state)
        return Seen(output.detach(), None if value is None else value.detach())

    def _chosen(self) -> bool:
        """Whether this step with a target is drawn: all sets of `steps` of them are alike."""
        if self.learn_at is None:
            return True
        chosen = self._left > max(self._to_come, 0) * torch.rand((), generator=self._generator).item()
        self._left, self._to_come = self._left - chosen, self._to_come - 1
        return chosen

    def _end_part(self) -> None:
        self._targets = self._learned  # none drawn: nothing to take
        super()._end_part()

    def _close(self) -> None:
        self._learned = 0

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._generator.set_state(state["generator"])


def _noise(device: torch.device) -> Tensor:
    """Where the random numbers stand, so that a second pass draws the same masks."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_noise(noise: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(noise, device)
    else:
        torch.set_rng_state(noise)
