"""Language modelling: the next character or word of a text, with the neurons' state going on from window to window."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from spyolo.errors import InputError
from spyolo.sequence.batch import Batch
from spyolo.sequence.objectives import BITS, PERPLEXITY
from spyolo.sequence.readers.text import read_corpus
from spyolo.sequence.tasks.base import Task

ONE_HOT = 512  # vocabularies up to this size are shown one-hot, larger ones as token numbers to be embedded
TEST_STREAMS = 20


class Language(Task):
    """The text as `batch` streams side by side; window i of all of them is a batch: inputs [T, B, V] (or token numbers [T, B]),
    targets [T, B]. Characters are judged in bits each, words by perplexity.

    The indices of a batch are those of its sequences in the epoch's natural order, so batch i holds i * batch and those after it.
    """

    streams = True

    def __init__(self, path: Path, level: str, timesteps: int = 150, batch: int = 128, seed: int = 0) -> None:
        super().__init__(seed)
        self.corpus = read_corpus(path, level)
        self.timesteps, self.batch = timesteps or 150, batch
        self.objective = BITS if level == "char" else PERPLEXITY
        self.outputs = len(self.corpus.vocabulary)
        self.tokens = hashlib.sha256("\0".join(self.corpus.vocabulary).encode()).hexdigest()[:16]
        self.vocabulary = self.outputs if self.outputs > ONE_HOT else 0
        self.inputs = () if self.vocabulary else (self.outputs,)
        self.lines = side_by_side(self.corpus.train, batch)
        windows = (len(self.lines) - 1) // self.timesteps
        if not windows:
            raise InputError(f"{path}: {len(self.corpus.train)} tokens are too few for {batch} streams of {self.timesteps} steps")
        self.samples = windows * batch
        self.judged_by(self.corpus.test)

    def judged_by(self, tokens: Tensor) -> None:
        self.test_lines = side_by_side(tokens, max(1, min(TEST_STREAMS, (len(tokens) - 1) // 2)))
        self.tests = -(-(len(self.test_lines) - 1) // self.timesteps)  # windows

    def validate(self) -> None:
        self.judged_by(self.corpus.valid)

    def limit(self, train: int = 0, test: int = 0) -> None:
        """Both count windows over all streams."""
        super().limit(train * self.batch, test)

    def train_batch(self, indices: list[int], epoch: int) -> Batch:
        return self.window(self.lines, indices[0] // self.batch)

    def test_batch(self, indices: list[int]) -> Batch:
        return self.window(self.test_lines, indices[0])

    def test_batches(self, size: int) -> Iterator[Batch]:
        for i in range(self.tests):
            yield self.window(self.test_lines, i)

    def window(self, lines: Tensor, i: int) -> Batch:
        """Window i of all streams; the last of the test may be shorter."""
        a, b = i * self.timesteps, min((i + 1) * self.timesteps, len(lines) - 1)
        tokens, targets = lines[a:b], lines[a + 1 : b + 1]
        inputs = tokens if self.vocabulary else F.one_hot(tokens, self.outputs).to(torch.uint8)
        return Batch(inputs, targets, b - a, fresh=i == 0)


def side_by_side(tokens: Tensor, streams: int) -> Tensor:
    """[N] -> [N / streams, streams], each column a stretch of the text; what is left over is dropped."""
    length = len(tokens) // streams
    return tokens[: length * streams].view(streams, length).T.contiguous()
