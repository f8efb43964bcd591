"""A run's health: values that are not finite, layers that never or always fire.

A membrane that is NaN never spikes, so the loss of a spiking network can stay finite while a layer is dead for good; a loss alone is no
watch. What is looked at stays on the device, one row an update, and is read back every so many batches: no synchronisation in between.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spyolo.detection import DetectorState
from spyolo.distributed import ALONE, Peers
from spyolo.errors import InputError
from spyolo.neurons import first_not_finite, sum_of
from spyolo.resuming import Memory, weight_names

DEAD, SATURATED = 1e-4, 0.9  # mean firing rate of a layer over an epoch
IN_A_ROW = 20  # batches left out one after another: no accident any more, the weights are broken


def layer_sums(state: DetectorState) -> dict[str, Tensor]:
    """One number for each layer, in the order in which they run, that is finite when all its membranes (and readouts) are. On the device.

    A sum and not `isfinite(...).all()`: one pass, nothing allocated; NaN and infinity survive it, finite fp32 membranes do not overflow.
    """
    sums = {name: cell.u.detach().sum() for name, cell in state.cells.items() if cell is not None}
    return sums | {f"readout {i}": sum_of(r) for i, r in enumerate(state.readouts) if r is not None}


class NotFinite(InputError):
    """A state that no stream can go on from."""


def check_state(state: DetectorState) -> None:
    """For streams, whose state lives on from frame to frame.

    Raises:
        NotFinite: membranes that are not finite; names the first layer.
    """
    if where := first_not_finite(layer_sums(state)):
        raise NotFinite(f"the state of {where} is not finite: these neurons would never fire again; start anew from rest (no state)")


class Watch:
    """Looks at loss, gradients and state of each batch, and tells where a value first was not finite.

    Args:
        detector: what is trained.
        weights: the trained tensors whose gradients are looked at.
        skip: leave out a batch whose values are not finite, and count it in `skipped`. Each update then waits for the device.
        peers: processes that share the batches: what one of them leaves out, all do.
        memory: what rule and EMA remember of each weight: saved with the weights, and looked at with them.
    """

    def __init__(
        self, detector: nn.Module, weights: Sequence[Tensor], skip: bool = False, peers: Peers = ALONE, memory: Memory | None = None
    ) -> None:
        trained = {id(w) for w in weights}
        self.detector, self.skip, self.peers, self.memory = detector, skip, peers, memory or {}
        self.weights = [p for p in detector.parameters() if id(p) in trained]  # in forward order
        self.names = weight_names(detector, self.weights)
        self.layers: list[str] = []
        self.rows: list[Tensor] = []  # one a part: loss, norm of each gradient, and of a batch's last part `layer_sums`
        self.batches: list[int] = []  # the batch each row belongs to
        self.batch = self.skipped = self.in_a_row = 0
        self.buffers: list[Tensor] = []

    # ---- while a batch is learned ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """A new batch."""
        self.batch += 1
        if self.skip:
            self.buffers = [b.clone() for b in self.detector.buffers()]

    @torch.no_grad()
    def fine(self, loss: Tensor, states: Sequence[DetectorState], last: bool) -> bool:
        """Look at one part of a batch between its backward and its update: its loss, and the state of each piece of the batch. `last`:
        the batch's last part, whose state is looked at.

        Returns:
            Whether the update may be made; without `skip` always True, and nothing waits for the device.
        """
        grads = [w.grad for w in self.weights if w.grad is not None]
        given = iter(torch._foreach_norm(grads) if grads else ())
        norms = [torch.zeros_like(loss) if w.grad is None else next(given) for w in self.weights]
        each = [layer_sums(state) for state in states] if last or self.skip else [{}]
        sums = {name: torch.stack([s[name] for s in each]).sum() for name in each[0]}
        self.layers = list(sums) or self.layers
        row = torch.stack([v.float() for v in (loss.detach(), *norms, *sums.values())])
        if self.skip:
            finite = row.isfinite().tolist()
            if self.peers.agree([not all(finite)], row.device)[0]:
                self.leave_out(finite)
                return False
        self.rows.append(row)
        self.batches.append(self.batch)
        if last:  # a batch is left out whole if any of its parts is bad
            self.in_a_row = 0
        return True

    def leave_out(self, finite: list[bool]) -> None:
        """What is left of this batch is left out, its norm statistics too.

        Raises:
            InputError: so many in a row that the weights must be broken.
        """
        for b, before in zip(self.detector.buffers(), self.buffers):
            b.copy_(before)
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.in_a_row >= IN_A_ROW:
            self.peers.refuse(f"{IN_A_ROW} batches in a row had to be left out: {self.what(finite)}")

    # ---- now and then ----------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def check(self) -> tuple[int, str] | None:
        """Read back what was gathered since the last time: the first bad batch (how many batches ago; 0: the newest) and what was not
        finite where; None when all was well. Looks at the weights, what is remembered of them and norm statistics too, so that what is
        saved next is good."""
        kept = [b for b in self.detector.buffers() if b.is_floating_point()]
        remembered = [v for values in self.memory.values() for v in values]
        now = torch.stack([n.float() for n in torch._foreach_norm([*self.weights, *remembered, *kept])])
        widths = [len(row) for row in (*self.rows, now)]
        *rows, now_fine = (part.tolist() for part in torch.cat([*self.rows, now]).isfinite().cpu().split(widths))  # the one synchronisation
        batches, self.rows, self.batches = self.batches, [], []
        for batch, row in zip(batches, rows):
            if not all(row):
                return self.batch - batch, self.what(row)
        if not all(now_fine):
            places = [f"the weight {name} is" for name in self.names]
            places += [f"{kind} of a weight is" for kind, values in self.memory.items() for _ in values]
            return 0, f"{[*places, *['statistics of a norm are'] * len(kept)][now_fine.index(False)]} not finite"
        return None

    def what(self, finite: list[bool]) -> str:
        """Where a row first was not finite. State: the first layer that ran; gradient: the last, since it runs backward."""
        loss, grads, layers = finite[0], finite[1 : 1 + len(self.names)], finite[1 + len(self.names) :]
        still = " (the loss still is)" if loss else ""
        if all(finite):
            return "values of another process are not finite"
        if not all(layers):
            return f"the state of {self.layers[layers.index(False)]} is not finite{still}"
        if not loss:
            return "the loss is not finite"
        return f"the gradient of {[n for n, fine in zip(self.names, grads) if not fine][-1]} is not finite{still}"


def extremes(rates: dict[str, float]) -> tuple[list[str], list[str]]:
    """Layers that (almost) never fire, and layers that (almost) always do, by their mean rates."""
    return [n for n, r in rates.items() if r < DEAD], [n for n, r in rates.items() if r > SATURATED]


def counts(rates: dict[str, float]) -> dict[str, int]:
    """How many of each: two columns of the log."""
    dead, saturated = extremes(rates)
    return {"dead_layers": len(dead), "saturated_layers": len(saturated)}


def told(rates: dict[str, float]) -> str:
    """One line about them; empty when there are none."""
    words = ("almost never fires", "almost always fires")
    return "; ".join(f"{name} {word} ({rates[name]:.2g})" for names, word in zip(extremes(rates), words) for name in names)
