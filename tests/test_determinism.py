"""The same seed is the same run, however many processes load its pictures."""

from __future__ import annotations

import pytest
import torch

from spyolo.checkpoint import load_tensors
from spyolo.trainer import Trainer

RUN = {"limit": 8, "val_limit": 2, "recalibrate": 1, "eval_every": 2, "epochs": 2, "plain_epochs": 1, "batch": 2}  # mosaics, then none


pytestmark = pytest.mark.usefixtures("unadorned")


@pytest.mark.slow
def test_the_weights_do_not_depend_on_the_number_of_loader_processes(tiny_config):
    runs = []
    for workers in (0, 1, 2, 3):
        trainer = Trainer(tiny_config(**RUN, workers=workers), quiet=True)
        assert trainer.fit()
        runs.append([load_tensors(path)[0] for path in (trainer.folder.last, trainer.folder.best)])
    for run in runs[1:]:
        for one, other in zip(runs[0], run):
            assert one.keys() == other.keys() and [k for k in one if not torch.equal(one[k], other[k])] == []


@pytest.mark.slow
def test_batches_do_not_depend_on_it_either(tiny_config):
    batches = [list(Trainer(tiny_config(workers=workers), quiet=True).batches()) for workers in (0, 2)]
    for one, other in zip(*batches, strict=True):
        assert one.ids == other.ids and torch.equal(one.images, other.images)
