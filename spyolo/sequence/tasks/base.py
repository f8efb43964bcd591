"""What a task is to the loops that train and evaluate it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from spyolo.errors import InputError
from spyolo.sequence.batch import Batch
from spyolo.sequence.objectives import Objective

ORDER_SEED = 2222  # of the order in which limited sets are taken: the same for every run, whatever its seed


class Sizes(NamedTuple):
    """What a network must know of its task, see `Task`."""

    inputs: tuple[int, ...]
    outputs: int
    vocabulary: int = 0
    tokens: str = ""


class Task(ABC):
    """Sequences and what is asked of them. A batch is a function of (seed, epoch, indices): order and interruptions do not matter.

    Attributes:
        inputs: shape of one step's input, without the batch.
        outputs: numbers a step's output has.
        timesteps: steps of a sequence; 0 where sequences differ.
        samples: training sequences an epoch (text: windows side by side, see `streams`).
        tests: sequences of the test (text: windows), or of the validation part in its place, see `validate`.
        vocabulary: number of tokens where an input is a token number, else 0.
        tokens: digest of a text's tokens in the order of their numbers; empty elsewhere.
        streams: True where a batch goes on where the one before it stopped: indices are then positions, taken in order.
    """

    inputs: tuple[int, ...]
    outputs: int
    objective: Objective
    timesteps: int = 0
    samples: int
    tests: int
    vocabulary: int = 0
    tokens: str = ""
    streams: bool = False

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.held_out = False  # judged by training sequences from number `samples` on
        self.orders: dict[str, list[int]] = {}  # of splits that a limit cuts and whose data lie class by class

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.inputs, self.outputs, self.vocabulary, self.tokens)

    @abstractmethod
    def train_batch(self, indices: list[int], epoch: int) -> Batch:
        """The training sequences of these indices, as they are in this epoch."""

    @abstractmethod
    def test_batch(self, indices: list[int]) -> Batch:
        """The test sequences of these indices."""

    def test_batches(self, size: int) -> Iterator[Batch]:
        """The whole test, `size` sequences at a time."""
        for i in range(0, self.tests, size):
            indices = list(range(i, min(self.tests, i + size)))
            yield self.held_batch([self.samples + j for j in indices]) if self.held_out else self.test_batch(indices)

    def held_batch(self, indices: list[int]) -> Batch:
        """Training sequences that are judged, not trained on: the same whatever the size of the batch."""
        return self.train_batch(indices, 0)

    def validate(self) -> None:
        """Take a validation part in the test's place: the set's own, or a tenth of the training sequences in use - the last, or of data
        that lie class by class as many of each class as can be. These are not trained on."""
        tenth = self.samples // 10
        if not tenth:
            raise InputError(f"judge validation holds out a tenth of the training sequences; of {self.samples} there is none")
        if labels := self.labels("train"):
            order = self.orders.get("train", in_turn(labels))[: self.samples]  # whose beginnings are balanced, its end is not
            self.orders["train"] = order[tenth:] + order[:tenth]
        self.held_out, self.tests, self.samples = True, tenth, self.samples - tenth

    def limit(self, train: int = 0, test: int = 0) -> None:
        """Use only so many training and test sequences; 0: all. The first ones, or of data that lie class by class some of each class."""
        for split, most in (("train", train), ("test", test)):
            if most and (labels := self.labels(split)):
                self.orders[split] = in_turn(labels)
        self.samples = min(self.samples, train or self.samples)
        self.tests = min(self.tests, test or self.tests)

    def steps(self) -> list[int]:
        """Of a task whose sequences differ: steps of each training sequence in use."""
        return []

    def least_steps(self, batch: int) -> int:
        """Steps of the shortest batch of so many training sequences that chance could draw: those of its longest sequence."""
        steps = sorted(self.steps())
        return self.timesteps or steps[min(batch, len(steps)) - 1]

    def labels(self, split: str) -> Sequence[int]:
        """Of a set that lies class by class, as folders do: the label of each sequence of `train` or `test`; of any other, none."""
        return ()

    def places(self, split: str, indices: list[int]) -> list[int]:
        """Where the sequences of these indices lie."""
        return [self.orders[split][i] for i in indices] if split in self.orders else indices

    def drawn(self, *numbers: int) -> torch.Generator:
        """Random numbers that depend on the seed and these numbers alone."""
        mixed = self.seed
        for n in numbers:
            mixed = (mixed * 1_000_003 + n + 12_345) % (1 << 62)
        return torch.Generator().manual_seed(mixed)


def in_turn(labels: Sequence[int]) -> list[int]:
    """Places 0 .. N - 1 in an order that any beginning of holds as many of each class as can be; within a class drawn once, by chance."""
    seen: Counter[int] = Counter()
    ranked = []
    for i in torch.randperm(len(labels), generator=torch.Generator().manual_seed(ORDER_SEED)).tolist():
        ranked.append((seen[labels[i]], i))
        seen[labels[i]] += 1
    return [i for _, i in sorted(ranked, key=lambda r: r[0])]
