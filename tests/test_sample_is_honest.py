"""The sample set measures learning: a net that has learned nothing, or nothing about classes, scores next to nothing on it."""

from __future__ import annotations

import pytest

from spyolo import builders, engine
from spyolo.config import Config, load_preset
from spyolo.data import SAMPLE_CLASSES, make_sample, shuffle_labels
from spyolo.detection import Reading
from spyolo.evaluation import evaluate_detections
from spyolo.neurons.fused import Compiling
from spyolo.running import choose_device
from spyolo.trainer import Trainer

NOTHING = 0.05  # mAP@0.5


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("sample")
    given = {"data": str(make_sample(folder / "data")), "classes": SAMPLE_CLASSES, "out": str(folder / "run"), "workers": 0}
    return load_preset("sample").updated(given)


def test_an_untrained_net_scores_nothing(config: Config):
    dataset = builders.validation_set(config, limit=40)
    detector = builders.detector(config, len(SAMPLE_CLASSES))
    batches = builders.calibration_batches(config.updated({"recalibrate": 2}), 0)
    engine.recalibrate(detector, batches, 2, device=choose_device("cpu"))
    found = engine.detect(detector, dataset, (2,), reading=Reading(0.0))[2]
    truth = {name: dataset.voc.objects(i) for i, name in enumerate(dataset.voc.ids)}
    assert sum(map(len, found.values())) > 1000  # it is not silent
    assert evaluate_detections(truth, found, SAMPLE_CLASSES)["voc10_ap50"] < NOTHING


@pytest.mark.slow
def test_a_net_trained_on_shuffled_labels_scores_nothing(config: Config, compiling: None):
    trainer = Trainer(config.updated({"epochs": 20, "eval_every": 20}), quiet=True)
    trainer.train_set.voc = shuffle_labels(trainer.train_set.voc)
    assert trainer.fit()
    assert trainer.history[-1]["loss"] < trainer.history[0]["loss"]  # it did learn: where things are
    assert trainer.best < NOTHING


@pytest.fixture
def compiling(compiler: bool) -> None:
    """Compiled kernels, where there is a compiler: minutes instead of an hour."""
    Compiling.enabled = compiler
