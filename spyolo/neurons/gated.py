"""LSTM and GRU as units with explicit state, for comparison: the same equations and order of gates as torch.nn.LSTMCell and GRUCell."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from spyolo.neurons.state import start


class LSTMState(NamedTuple):
    """State of a layer of LSTM units; fields have the shape of the layer's output."""

    c: Tensor  # memory
    h: Tensor  # output of the step before


class GRUState(NamedTuple):
    """State of a layer of GRU units."""

    h: Tensor  # output of the step before


class LSTMUnit(nn.Module):
    """i, f, g, o = current;  c_t = sigma(f) c_{t-1} + sigma(i) tanh(g);  h_t = sigma(o) tanh(c_t). Current [B, 4n], output [B, n]."""

    lines = 4

    def initial_state(self, current: Tensor) -> LSTMState:
        c = start(current.chunk(4, -1)[0].shape, current)
        return LSTMState(c, torch.zeros_like(c))

    def forward(self, current: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        i, f, g, o = current.chunk(4, -1)
        c = torch.sigmoid(f) * state.c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, LSTMState(c, h)


class GRUUnit(nn.Module):
    """r, z = sigma(first two lines);  n = tanh(x_n + r h_n);  h_t = n + z (h_{t-1} - n). Current [B, 4n]: lines r, z, x_n, h_n.

    The reset gate acts on the recurrent part of the candidate alone, so synapse [B, 3n] and recurrent synapse [B, 3n] are not
    simply added: `combine` lays them side by side.
    """

    lines = 4
    transmits = 0  # the field of the state that the recurrent synapse carries

    @staticmethod
    def combine(synaptic: Tensor, recurrent: Tensor | None) -> Tensor:
        """r, z, n [B, 3n] of the input and (None: zeros) of the layer itself -> lines [B, 4n]."""
        r, z, n = synaptic.chunk(3, -1)
        if recurrent is None:
            return torch.cat([r, z, n, torch.zeros_like(n)], -1)
        hr, hz, hn = recurrent.chunk(3, -1)
        return torch.cat([r + hr, z + hz, n, hn], -1)

    def initial_state(self, current: Tensor) -> GRUState:
        return GRUState(start(current.chunk(3, -1)[0].shape, current))

    def forward(self, current: Tensor, state: GRUState) -> tuple[Tensor, GRUState]:
        r, z, n, hn = current.chunk(4, -1)
        n = torch.tanh(n + torch.sigmoid(r) * hn)
        h = n + torch.sigmoid(z) * (state.h - n)
        return h, GRUState(h)
