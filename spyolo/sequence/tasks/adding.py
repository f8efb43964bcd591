"""The adding problem (Hochreiter & Schmidhuber, 1997): the sum of two marked numbers far apart, told at the end."""

from __future__ import annotations

from functools import cached_property

import torch

from spyolo.errors import InputError
from spyolo.sequence.batch import Batch
from spyolo.sequence.objectives import MSE
from spyolo.sequence.tasks.base import Task

EPOCH = 50  # batches the drawn data count as an epoch: an evaluation and a line of the log
TESTS = 1000


class Adding(Task):
    """Inputs [T, B, 2]: a value from U(0, 1) and a mark, which is 1 once in each half; target: the sum of the two marked values.

    Always answering 1 has an error of 1/6. Sequences are never shown twice; the test's are drawn once.

    Raises:
        InputError: fewer than 2 steps (0: 200), for there is a mark in each half.
    """

    inputs, outputs, objective = (2,), 1, MSE

    def __init__(self, timesteps: int = 200, batch: int = 128, seed: int = 0) -> None:
        super().__init__(seed)
        self.timesteps, self.samples, self.tests = timesteps or 200, EPOCH * batch, TESTS
        if self.timesteps < 2:
            raise InputError(f"the adding problem marks a number in each half of its steps: it needs 2 timesteps or more, got {timesteps}")

    def train_batch(self, indices: list[int], epoch: int) -> Batch:
        return self.draw(len(indices), self.drawn(1, epoch, indices[0]))

    def test_batch(self, indices: list[int]) -> Batch:
        return Batch(self.test.inputs[:, indices], self.test.targets[indices], self.timesteps)

    @cached_property
    def test(self) -> Batch:
        """All of the test at once, whatever the size of its batches."""
        return self.draw(TESTS, self.drawn(2, 0))

    def validate(self) -> None:
        self.test = self.draw(TESTS, self.drawn(3, 0))

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        half = self.timesteps // 2
        values = torch.rand(self.timesteps, count, generator=generator)
        first = torch.randint(0, half, (count,), generator=generator)
        second = torch.randint(half, self.timesteps, (count,), generator=generator)
        column = torch.arange(count)
        marks = torch.zeros_like(values)
        marks[first, column] = marks[second, column] = 1.0
        return Batch(torch.stack([values, marks], -1), values[first, column] + values[second, column], self.timesteps)
