"""Pooled spikes and their gradients are max_pool2d's."""

from __future__ import annotations

import torch

from spyolo.detection.pooling import spike_pool


def test_values_and_gradients_are_those_of_max_pool2d():
    chance = torch.rand(2, 5, 6, 8, generator=torch.Generator().manual_seed(0))
    spikes = (chance < 0.4).double().contiguous(memory_format=torch.channels_last)
    answers = []
    for pool in (spike_pool, lambda x: torch.nn.functional.max_pool2d(x, 2)):
        x = spikes.clone().requires_grad_()
        y = pool(x)
        weight = torch.arange(y.numel(), dtype=torch.float64).view(y.shape)
        answers.append((y.detach(), torch.autograd.grad((y * weight).sum(), x)[0]))
    assert torch.equal(answers[0][0], answers[1][0]) and torch.equal(answers[0][1], answers[1][1])
    assert answers[0][1].any()
