"""Autograd oracles of the online rules: the same network with the paths cut that a rule leaves out."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from spyolo.learning import build_rule
from spyolo.neurons import Cell, Readout, Stack, dense_cell


class DeafCell(Cell):
    """A cell that is deaf to itself in its gradient: what the recurrent synapse carries is detached."""

    def drive(self, current: Tensor, state) -> Tensor:
        if self.recurrent is None:  # LTC neurons at rest then have no state yet
            return super().drive(current, state)
        sent = list(state)
        at = getattr(self.unit, "transmits", 1)
        sent[at] = sent[at].detach()
        return super().drive(current, type(state)(*sent))


def random_network(kinds: list[str], sizes: list[int], outputs: int, *, recurrent: bool = True, readout: str = "leaky",
                   reads: str = "output", seed: int = 0, cell: type[Cell] = Cell, **unit) -> Stack:  # fmt: skip
    """Lively neurons in float64: currents around the threshold."""
    torch.manual_seed(seed)
    cells = [dense_cell(kind, m, n, recurrent=recurrent, **unit) for kind, m, n in zip(kinds, sizes, sizes[1:])]
    last = Readout(sizes[-1], outputs, readout, decay=0.7, reads=reads)
    net = Stack([cell(c.synapse, c.unit, c.recurrent) for c in cells], last).double()
    with torch.no_grad():
        for w in net.parameters():
            w.copy_(torch.randn_like(w) * 0.8)
        for c in net.cells:
            if hasattr(c.unit, "bias"):
                c.unit.bias.sub_(0.5)
    return net


def random_sequence(timesteps: int, batch: int, inputs: int, outputs: int, seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1000 + seed)
    return torch.randn(timesteps, batch, inputs, dtype=torch.float64), torch.randn(timesteps, batch, outputs, dtype=torch.float64)


def rule_gradients(name: str, net: nn.Module, x: Tensor, y: Tensor, skip: int = 0, **options) -> dict[str, Tensor]:
    """What a rule leaves in `.grad` after a sequence; the first `skip` steps have no loss."""
    net.zero_grad()
    rule = build_rule(name, net, torch.optim.SGD(net.parameters(), lr=1.0), nn.functional.mse_loss, **{"parts": 1, **options})
    rule.hold = True
    rule.start(len(x))
    for t in range(len(x)):
        rule.step(x[t], None if t < skip else y[t], weight=1.0 + 0.1 * t)
    rule.finish()
    return {name: w.grad.clone() if w.grad is not None else torch.zeros_like(w) for name, w in net.named_parameters()}


def autograd_gradients(net: nn.Module, x: Tensor, y: Tensor, skip: int = 0, step: Callable | None = None,
                       cuts: Container[int] = ()) -> dict[str, Tensor]:  # fmt: skip
    """BPTT of `net(x, state)`, written out; of `step(x, state)` where the net is to be run otherwise. Nothing flows back over the begin
    of the steps in `cuts`."""
    step = step or net
    net.zero_grad()
    state, total = None, 0.0
    for t in range(len(x)):
        if t in cuts:
            state = tree_map_only(Tensor, Tensor.detach, state)
        output, state = step(x[t], state)
        if t >= skip:
            total = total + (1.0 + 0.1 * t) * nn.functional.mse_loss(output, y[t])
    total.backward()
    return {name: w.grad.clone() if w.grad is not None else torch.zeros_like(w) for name, w in net.named_parameters()}


def cut_between_layers(net: Stack, feedback: Sequence[Tensor] = ()) -> Callable:
    """`net` as a step whose gradient has no way through time between layers: that of symmetric e-prop, OSTL and OTTT in hidden layers.

    What a layer does to its own later steps counts for its own weights only. What it sends up, x, reaches the loss through the layers above
    as they are at that step, their states and weights taken as given:

        dE/dw^l = sum_t (dE_t/do_t) W_out (prod_{k>l} dx_t^k/dx_t^{k-1}) f_t^l,     f_t^l = decay f_{t-1}^l + (1 - decay) dx_t^l/dw^l

    dx_t^l/dw^l through the layer's own past; f is what a leaky readout makes of it, and dx_t^l/dw^l itself under a linear one. With
    `feedback` [outputs, n] a layer (e-prop's), this B_l stands for the way through W_out and the layers above.
    """
    decay = net.readout.decay

    def step(x: Tensor, before):
        states, filtered, o = before or ((None,) * len(net.cells), (0.0,) * len(net.cells), None)
        states, filtered = list(states), list(filtered)
        for i, cell in enumerate(net.cells):
            field = net.readout.reads == "membrane" and i == len(net.cells) - 1
            given = tree_map_only(Tensor, Tensor.detach, (dict(cell.named_parameters()), states[i]))
            through = torch.func.functional_call(cell, given[0], (x, given[1]))
            own = cell(x.detach(), states[i])
            states[i] = own[1]
            through, own = (shown[1][0] if field else shown[0] for shown in (through, own))
            filtered[i] = decay * filtered[i] + (1 - decay) * own
            x = own.detach() + (filtered[i] - filtered[i].detach()) + (through - through.detach())
        output, o = net.readout(x.detach(), o)
        if feedback:
            ways = [nn.functional.linear(f - f.detach(), b) for f, b in zip(filtered, feedback, strict=True)]
        else:
            ways = [nn.functional.linear((x - x.detach()).flatten(1), net.readout.linear.weight.detach())]
        return output + sum(ways), (states, filtered, o)

    return step


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor], only: str = "") -> float:
    """Max |a - b| over the weights whose name contains `only`, relative to the largest entry where that exceeds one."""
    assert a.keys() == b.keys()
    return max(((a[k] - b[k]).abs().max() / max(1.0, b[k].abs().max())).item() for k in a if only in k)
