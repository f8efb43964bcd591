"""What a task is to the loops that train and evaluate it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch

from spyolo.sequence.batch import Batch
from spyolo.sequence.objectives import Objective


class Sizes(NamedTuple):
    """What a network must know of its task, see `Task`."""

    inputs: tuple[int, ...]
    outputs: int
    vocabulary: int = 0


class Task(ABC):
    """Sequences and what is asked of them. A batch is a function of (seed, epoch, indices): order and interruptions do not matter.

    Attributes:
        inputs: shape of one step's input, without the batch.
        outputs: numbers a step's output has.
        timesteps: steps of a sequence; 0 where sequences differ.
        samples: training sequences an epoch (text: windows side by side, see `streams`).
        tests: sequences of the test.
        vocabulary: number of tokens where an input is a token number, else 0.
        streams: True where a batch goes on where the one before it stopped: indices are then positions, taken in order.
    """

    inputs: tuple[int, ...]
    outputs: int
    objective: Objective
    timesteps: int = 0
    samples: int
    tests: int
    vocabulary: int = 0
    streams: bool = False

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.inputs, self.outputs, self.vocabulary)

    @abstractmethod
    def train_batch(self, indices: list[int], epoch: int) -> Batch:
        """The training sequences of these indices, as they are in this epoch."""

    @abstractmethod
    def test_batch(self, indices: list[int]) -> Batch:
        """The test sequences of these indices."""

    def test_batches(self, size: int, most: int = 0) -> Iterator[Batch]:
        """The whole test (or its first `most` sequences), `size` at a time."""
        count = min(most, self.tests) if most else self.tests
        for i in range(0, count, size):
            yield self.test_batch(list(range(i, min(count, i + size))))

    def drawn(self, *numbers: int) -> torch.Generator:
        """Random numbers that depend on the seed and these numbers alone."""
        mixed = self.seed
        for n in numbers:
            mixed = (mixed * 1_000_003 + n + 12_345) % (1 << 62)
        return torch.Generator().manual_seed(mixed)
