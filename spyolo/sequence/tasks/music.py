"""Next step of polyphonic music (Boulanger-Lewandowski et al., 2012): which of 88 keys sound, given all before."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from spyolo.errors import InputError
from spyolo.sequence.batch import Batch
from spyolo.sequence.objectives import NLL
from spyolo.sequence.readers.pianoroll import KEYS, read_rolls
from spyolo.sequence.tasks.base import Task


class Music(Task):
    """Inputs [T, B, 88]: the chord before; targets [T, B, 88]: the chord.

    Args:
        first_chord: the first chord of a piece is asked for as well, from silence. Figures published for OSTL leave it out.
    """

    inputs, outputs, objective = (KEYS,), KEYS, NLL

    def __init__(self, root: Path, name: str, first_chord: bool = True, seed: int = 0) -> None:
        super().__init__(seed)
        path = root / name if root.is_dir() else root
        if not path.is_file():
            raise InputError(f"{path}: no such file of piano rolls")
        rolls = read_rolls(path)
        self.pieces = {split: [torch.from_numpy(p) for p in rolls[split]] for split in ("train", "valid", "test")}
        self.first = 0 if first_chord else 1
        self.path = path
        self.check_lengths("train", "test")
        self.samples, self.tests = len(self.pieces["train"]), len(self.pieces["test"])

    def train_batch(self, indices: list[int], epoch: int) -> Batch:
        return self.rolls("train", indices)

    def test_batch(self, indices: list[int]) -> Batch:
        return self.rolls("test", indices)

    def check_lengths(self, *splits: str) -> None:
        for split in splits:
            for i, piece in enumerate(self.pieces[split]):
                if len(piece) <= self.first:
                    raise InputError(f"{self.path}: piece {i} of {split} has {len(piece)} chord(s), which leaves none to ask for")

    def validate(self) -> None:
        self.check_lengths("valid")
        self.pieces["test"] = self.pieces["valid"]
        self.tests = len(self.pieces["test"])

    def steps(self) -> list[int]:
        return [len(piece) - self.first for piece in self.pieces["train"][: self.samples]]

    def rolls(self, split: str, indices: list[int]) -> Batch:
        pieces = [self.pieces[split][i] for i in indices]
        chords = pad_sequence(pieces)
        inputs, targets = torch.cat([torch.zeros_like(chords[:1]), chords[:-1]])[self.first :], chords[self.first :]
        lengths = torch.tensor([len(p) - self.first for p in pieces])
        return Batch(inputs, targets, len(targets), lengths if len(pieces) > 1 else None)
