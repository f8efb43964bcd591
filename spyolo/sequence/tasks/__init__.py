"""Tasks by name. `build_task(config)` reads the data that it needs, or says which are missing and where to put them."""

from __future__ import annotations

from collections.abc import Callable

from spyolo.errors import InputError
from spyolo.sequence.config import SequenceConfig
from spyolo.sequence.places import data_root
from spyolo.sequence.tasks.adding import Adding
from spyolo.sequence.tasks.base import Task
from spyolo.sequence.tasks.digits import SpokenDigits
from spyolo.sequence.tasks.event_sets import CIFAR10DVS, NMNIST, DVSGesture
from spyolo.sequence.tasks.language import Language
from spyolo.sequence.tasks.music import Music
from spyolo.sequence.tasks.pictures import Pictures, find_pictures

Builder = Callable[[SequenceConfig], Task]


def pictures(name: str, shown: str) -> Builder:
    def build(c: SequenceConfig) -> Task:
        return Pictures(find_pictures(c.data, name, c.download), shown, c.timesteps, flat=not c.conv, seed=c.seed)

    return build


def events(kind: Callable[..., Task], name: str, needs: str) -> Builder:
    def build(c: SequenceConfig) -> Task:
        return kind(data_root(c.data, name, needs), c.timesteps, c.frames_by, c.shrink, flat=not c.conv, seed=c.seed)

    return build


def music(name: str) -> Builder:
    def build(c: SequenceConfig) -> Task:
        return Music(data_root(c.data, "piano_rolls", f"the folder that holds {name}, or that file"), name, c.first_chord, c.seed)

    return build


def language(name: str, level: str, needs: str) -> Builder:
    def build(c: SequenceConfig) -> Task:
        path = data_root(c.data, name, needs)
        if path.is_dir() and not (path / "ptb.train.txt").is_file():
            only = [p for p in sorted(path.glob("*.txt")) if p.is_file()]
            if len(only) != 1:
                raise InputError(f"{path}: needed: {needs}")
            path = only[0]
        return Language(path, level, c.timesteps, c.batch, c.seed)

    return build


ANY_TEXT = "a text file (UTF-8), or a folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt"
TASKS: dict[str, Builder] = {
    "adding": lambda c: Adding(c.timesteps, c.batch, c.seed),
    "smnist": pictures("mnist", "pixels"),
    "psmnist": pictures("mnist", "permuted"),
    "rmnist": pictures("mnist", "spikes"),
    "mnist": pictures("mnist", "still"),
    "fashion": pictures("fashion-mnist", "still"),
    "nmnist": events(NMNIST, "nmnist", "the folder that holds Train and Test with .bin files, or an .npz of their events"),
    "cifar10dvs": events(CIFAR10DVS, "cifar10dvs", "the folder with one folder of .aedat files a class (airplane, automobile ...)"),
    "gesture": events(DVSGesture, "DvsGesture", "the folder DvsGesture with .aedat files, label files and trials_to_train.txt"),
    "digits": lambda c: SpokenDigits(
        data_root(c.data, "fsdd", "the folder of the Free Spoken Digit Dataset with its recordings/"), c.test_speakers, c.seed
    ),
    "jsb": music("JSB_Chorales.mat"),
    "nottingham": music("Nottingham.mat"),
    "char": language("text", "char", ANY_TEXT),
    "word": language("text", "word", ANY_TEXT),
}


def build_task(config: SequenceConfig) -> Task:
    """The config's task.

    Raises:
        InputError: no such task, or data that are missing or damaged.
    """
    if config.task not in TASKS:
        raise InputError(f"task must be one of {', '.join(TASKS)}; got {config.task!r}")
    task = TASKS[config.task](config)
    task.limit(train=config.limit)
    if config.judge == "validation":
        task.validate()
    task.limit(test=config.test_limit)
    return task


__all__ = ["TASKS", "Task", "build_task"]
