"""Text as numbers: characters or words of any text file, or of PTB's three files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from spyolo.errors import InputError
from spyolo.files import read_limited

LEVELS = ("char", "word")
UNKNOWN, END = "<unk>", "<eos>"
PTB = {"train": "ptb.train.txt", "valid": "ptb.valid.txt", "test": "ptb.test.txt"}
HELD_OUT = 0.05  # of a single file, each for validation and test, from its end


class Corpus(NamedTuple):
    """Three splits as tokens, int64 [N] each, and what the tokens are."""

    train: Tensor
    valid: Tensor
    test: Tensor
    vocabulary: tuple[str, ...]


def read_corpus(path: Path, level: str) -> Corpus:
    """A text file (its last tenth is held out: half validation, half test), or a folder with PTB's three files.

    Words are separated by white space, and a line ends with <eos>. The vocabulary is that of the training part: a word that it does not
    know is <unk>; characters that only the rest has are too.

    Raises:
        InputError: no such file, not UTF-8, or too short to be split.
    """
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}; got {level!r}")
    if path.is_dir():
        parts = [tokens(read(path / name), level) for name in PTB.values()]
    else:
        found = tokens(read(path), level)
        a, b = int(len(found) * (1 - 2 * HELD_OUT)), int(len(found) * (1 - HELD_OUT))
        parts = [found[:a], found[a:b], found[b:]]
    if min(len(p) for p in parts) < 2:
        raise InputError(f"{path}: too short: training, validation and test get {', '.join(str(len(p)) for p in parts)} tokens")
    vocabulary = sorted(set(parts[0]))
    if UNKNOWN not in vocabulary and any(set(p) - set(vocabulary) for p in parts[1:]):
        vocabulary.append(UNKNOWN)
    number = {token: i for i, token in enumerate(vocabulary)}
    coded = [torch.tensor([number.get(token, number.get(UNKNOWN, -1)) for token in part]) for part in parts]
    return Corpus(coded[0], coded[1], coded[2], tuple(vocabulary))


def tokens(text: str, level: str) -> list[str]:
    if level == "char":
        return list(text)
    return [word for line in text.removesuffix("\n").split("\n") for word in (*line.split(), END)]


def read(path: Path) -> str:
    try:
        return read_limited(path, 1 << 30).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from None
