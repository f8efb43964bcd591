"""Spoken digits (Free Spoken Digit Dataset): recordings named <digit>_<speaker>_<number>.wav, 8 kHz; speakers of the test are never heard
in training."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from spyolo.errors import InputError
from spyolo.sequence.batch import Batch
from spyolo.sequence.objectives import ACCURACY
from spyolo.sequence.readers.sound import log_mel, read_wav
from spyolo.sequence.tasks.base import Task

RATE, BANDS = 8000, 40
NAME = re.compile(r"(\d)_([^_]+)_(\d+)")


class SpokenDigits(Task):
    """Inputs [T, B, 40]: log-mel frames of 10 ms, silent after a sound's end; `lengths` says where that is."""

    inputs, outputs, objective = (BANDS,), 10, ACCURACY

    def __init__(self, root: Path, test_speakers: tuple[str, ...], seed: int = 0) -> None:
        super().__init__(seed)
        folder = root / "recordings" if (root / "recordings").is_dir() else root
        named = [(p, m) for p in sorted(folder.glob("*.wav")) if (m := NAME.fullmatch(p.stem))]
        if not named:
            raise InputError(f"{folder}: no recordings named <digit>_<speaker>_<number>.wav here")
        speakers = sorted({m[2] for _, m in named})
        unknown = [s for s in test_speakers if s not in speakers]
        if unknown or not test_speakers or set(test_speakers) == set(speakers):
            raise InputError(f"{folder}: test_speakers must be some, not all, of {', '.join(speakers)}; got {', '.join(test_speakers)}")
        self.files = {
            "train": [(p, int(m[1])) for p, m in named if m[2] not in test_speakers],
            "test": [(p, int(m[1])) for p, m in named if m[2] in test_speakers],
        }
        self.samples, self.tests = len(self.files["train"]), len(self.files["test"])
        self.frames: dict[Path, Tensor] = {}  # 3,000 short sounds come to some 20 MB

    def train_batch(self, indices: list[int], epoch: int) -> Batch:
        return self.sounds("train", indices)

    def test_batch(self, indices: list[int]) -> Batch:
        return self.sounds("test", indices)

    def labels(self, split: str) -> list[int]:
        return [label for _, label in self.files[split]]

    def steps(self) -> list[int]:
        return [len(self.heard(self.files["train"][i][0])) for i in self.places("train", list(range(self.samples)))]

    def heard(self, path: Path) -> Tensor:
        """Frames of a sound [steps, 40], made once."""
        if path not in self.frames:
            self.frames[path] = log_mel(read_wav(path, RATE), RATE, bands=BANDS)
        return self.frames[path]

    def sounds(self, split: str, indices: list[int]) -> Batch:
        chosen = [self.files[split][i] for i in self.places(split, indices)]
        frames = [self.heard(path) for path, _ in chosen]
        lengths = torch.tensor([len(f) for f in frames])
        inputs = torch.nn.utils.rnn.pad_sequence(frames)
        return Batch(inputs, torch.tensor([label for _, label in chosen]), len(inputs), lengths)
