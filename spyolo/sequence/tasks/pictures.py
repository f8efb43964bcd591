"""MNIST and Fashion-MNIST as sequences: pixel by pixel, in a scrambled order, as random spikes, or as one picture that stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spyolo.errors import InputError
from spyolo.files import is_there
from spyolo.sequence.batch import Batch
from spyolo.sequence.objectives import ACCURACY
from spyolo.sequence.places import VARIABLE, data_root, place_of
from spyolo.sequence.readers.idx import FILES, read_pictures
from spyolo.sequence.tasks.base import Task

PERMUTATION_SEED = 1111  # of the scrambled order: the same for every run, whatever its seed
SHOWN = ("pixels", "permuted", "spikes", "still")


def find_pictures(given: str, name: str, download: bool = False) -> Path:
    """The folder with the four IDX files of MNIST (`mnist`) or Fashion-MNIST (`fashion-mnist`), also as torchvision lays them out.

    Args:
        given: a folder, or nothing: <SPYOLO_DATA>/<name>.
        download: where the files are not all there, let torchvision fetch them into that folder (into `data` where neither is given).

    Raises:
        InputError: nothing there, and (with `download`) nothing to be fetched.
    """
    kind = "FashionMNIST" if name.startswith("fashion") else "MNIST"
    needs = f"a folder with train-images-idx3-ubyte.gz and the three other files of {kind} (--download true fetches them)"
    if download:
        root = place_of(given, name) or Path("data")
        if not is_there(root, lambda path: any(missing(folder) == 0 for folder in layouts(path, kind))):
            fetch(kind, root)
        given = str(root)
    root = data_root(given, name, needs)
    folder = min(layouts(root, kind), key=missing)  # where some files lay and the rest was fetched, that is the fetched one
    if missing(folder) < len(FILES):
        return folder
    raise InputError(f"{root}: needed: {needs}; or set {VARIABLE}")


def layouts(root: Path, kind: str) -> tuple[Path, Path, Path]:
    """Where a set's files may lie: in the folder itself, or as torchvision lays them out."""
    return root, root / "raw", root / kind / "raw"


def missing(folder: Path) -> int:
    """How many of the four files a folder holds neither as they are nor gzipped."""
    return sum(not any((folder / f"{name}{end}").is_file() for end in ("", ".gz")) for name in FILES)


def fetch(kind: str, root: Path) -> None:
    """Let torchvision download and check a set."""
    from torchvision import datasets

    try:
        getattr(datasets, kind)(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{kind} could not be fetched ({error}). By hand: put its four .gz files into a folder and give --data") from None


class Pictures(Task):
    """Digits or clothes.

    Args:
        shown: `pixels`: 784 steps of one pixel; `permuted`: the same in an order drawn once from a fixed seed; `spikes` (R-MNIST): at
            each step each pixel fires with a probability of its brightness; `still`: the picture itself at each step.
        timesteps: for `spikes` and `still`.
        flat: pictures as vectors of 784, for dense networks; else [1, 28, 28].
    """

    outputs, objective = 10, ACCURACY

    def __init__(self, folder: Path, shown: str, timesteps: int = 20, *, flat: bool = True, seed: int = 0) -> None:
        super().__init__(seed)
        if shown not in SHOWN:
            raise ValueError(f"shown must be one of {', '.join(SHOWN)}; got {shown!r}")
        self.shown, self.flat = shown, flat
        (pictures, labels), (tests, test_labels) = (read_pictures(folder, split) for split in ("train", "t10k"))
        if pictures.shape[1:] != tests.shape[1:]:
            raise InputError(f"{folder}: pictures of {pictures.shape[1:]} to train on and of {tests.shape[1:]} to test on")
        self.data = {"train": (ready(pictures), torch.from_numpy(labels.astype(np.int64))),
                     "test": (ready(tests), torch.from_numpy(test_labels.astype(np.int64)))}  # fmt: skip
        self.samples, self.tests = len(pictures), len(tests)
        pixels, side = pictures[0].size, pictures.shape[1:]
        self.order = None
        if shown in ("pixels", "permuted"):
            self.inputs, self.timesteps = (1,), pixels
            if shown == "permuted":
                self.order = torch.randperm(pixels, generator=torch.Generator().manual_seed(PERMUTATION_SEED))
        else:
            self.inputs, self.timesteps = ((pixels,) if flat else (1, *side)), timesteps or 20

    def train_batch(self, indices: list[int], epoch: int) -> Batch:
        return self.shows("train", indices, epoch)

    def held_batch(self, indices: list[int]) -> Batch:
        return self.shows("train", indices, alone=3)

    def test_batch(self, indices: list[int]) -> Batch:
        return self.shows("test", indices, alone=2)

    def shows(self, split: str, indices: list[int], epoch: int = 0, alone: int = 0) -> Batch:
        """`alone`: spikes are drawn for each picture, from a stream of this number: the size of the batch changes nothing."""
        pictures, labels = self.data[split]
        chosen, truth = pictures[indices], labels[indices]
        if self.shown in ("pixels", "permuted"):
            line = chosen.flatten(1).T
            return Batch((line if self.order is None else line[self.order])[..., None], truth, self.timesteps, scale=1 / 255)
        chosen = chosen.flatten(1) if self.flat else chosen[:, None]
        if self.shown == "still":
            return Batch(chosen[None], truth, self.timesteps, scale=1 / 255)
        if not alone:
            return Batch(rate_coded(chosen, self.timesteps, self.drawn(1, epoch, indices[0])), truth, self.timesteps)
        each = [rate_coded(picture[None], self.timesteps, self.drawn(alone, i)) for picture, i in zip(chosen, indices)]
        return Batch(torch.cat(each, 1), truth, self.timesteps)


def ready(pictures: np.ndarray) -> Tensor:
    """As a tensor of its own (what was read from a file may not be written to)."""
    return torch.from_numpy(pictures.copy())


def rate_coded(pictures: Tensor, timesteps: int, generator: torch.Generator) -> Tensor:
    """uint8 brightness [B, ...] -> spikes [T, B, ...], each with probability brightness / 255."""
    dice = torch.randint(0, 255, (timesteps, *pictures.shape), generator=generator, dtype=torch.uint8)
    return (dice < pictures).to(torch.uint8)
