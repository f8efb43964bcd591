"""What several tests share. Pictures and data sets are drawn on the fly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from PIL import Image

from spyolo.config import Config
from spyolo.data.annotation import Annotation, Thing, write_annotation
from spyolo.neurons.fused import Compiling
from spyolo.run_folder import RunFolder


@pytest.fixture(scope="session", autouse=True)
def compiler() -> Iterator[bool]:
    """Nothing is compiled: these networks are through before their kernels would be. Yields whether kernels could be."""
    before = Compiling.enabled
    Compiling.enabled = False
    yield before
    Compiling.enabled = before


@pytest.fixture(autouse=True)
def compiler_on_request(request: pytest.FixtureRequest, compiler: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that hold the compiled step to the plain one have a fixture `compiling`, which decides."""
    if "compiling" in request.fixturenames:
        monkeypatch.setattr(Compiling, "enabled", compiler)


@pytest.fixture
def compiling() -> None:
    """For tests that compile in any case."""
    if not Compiling.enabled:
        pytest.skip("no compiler here")


class MakeDevkit(Protocol):
    def __call__(self, things: dict[str, list[Thing]], year: str = ..., split: str = ..., size: tuple[int, int] = ...) -> Path: ...


@pytest.fixture
def unadorned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no curves and tell TensorBoard nothing: that takes longer than training here."""
    monkeypatch.setattr(RunFolder, "plot", lambda *_: None)
    monkeypatch.setattr(RunFolder, "board", lambda *_: None)


@pytest.fixture
def make_devkit(tmp_path: Path) -> MakeDevkit:
    """Writes a devkit of one-colour pictures into tmp_path: `make_devkit({"000001": [Thing("cat", (10, 10, 40, 30))]})` -> root."""

    def make(things: dict[str, list[Thing]], year: str = "2007", split: str = "train", size: tuple[int, int] = (64, 48)) -> Path:
        folder = tmp_path / "VOCdevkit" / f"VOC{year}"
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for k, (image_id, found) in enumerate(things.items()):
            picture = np.full((size[1], size[0], 3), 40 + 20 * k, np.uint8)
            Image.fromarray(picture).save(folder / "JPEGImages" / f"{image_id}.jpg")
            write_annotation(folder / "Annotations" / f"{image_id}.xml", Annotation(*size, found), f"{image_id}.jpg", f"VOC{year}")
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{image_id}\n" for image_id in things))
        return tmp_path

    return make


@pytest.fixture(scope="session")
def sample_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample set of 20 pictures: `VOCSet(sample_root, "2007:train", SAMPLE_CLASSES)`."""
    from spyolo.data import make_sample

    return make_sample(tmp_path_factory.mktemp("sample"), pictures=20, seed=0)


class TinyConfig(Protocol):
    def __call__(self, **changes: Any) -> Config: ...


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory, sample_root: Path) -> TinyConfig:
    """`tiny_config(epochs=3)` -> a run of seconds: 16 pictures at 64 pixels, the narrowest network, into a new folder each time."""
    from spyolo.data import SAMPLE_CLASSES

    def make(**changes: Any) -> Config:
        tiny = {
            "data": str(sample_root), "classes": SAMPLE_CLASSES, "train": "2007:train", "val": "2007:val", "size": 64, "width": 0.05,
            "timesteps": 2, "epochs": 2, "batch": 4, "workers": 0, "amp": "none", "device": "cpu", "eval_every": 1, "recalibrate": 1,
            "out": str(tmp_path_factory.mktemp("tiny") / "run"),
        }  # fmt: skip
        return Config().updated(tiny | changes)

    return make


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory, sample_root: Path) -> Path:
    """A narrow, untrained detector of the sample classes that sees boxes everywhere (norms calibrated, logits apart); 64 pixels, T = 2."""
    import torch

    from spyolo.checkpoint import WeightsInfo, save_weights
    from spyolo.data import SAMPLE_CLASSES, DetectionDataset, VOCSet, collate
    from spyolo.detection import build_detector
    from spyolo.engine import recalibrate

    torch.manual_seed(0)
    detector = build_detector("spyv4_lite", len(SAMPLE_CLASSES), width=0.05, threshold=0.3)
    dataset = DetectionDataset(VOCSet(sample_root, "2007:val", SAMPLE_CLASSES), 64, "eval")
    recalibrate(detector, [collate([dataset[i] for i in range(len(dataset))])], 2, device=torch.device("cpu"))
    with torch.no_grad():
        for head in detector.heads:
            head.conv.weight.normal_(std=0.3)
            head.conv.bias.zero_()
    path = tmp_path_factory.mktemp("weights") / "seeing.safetensors"
    save_weights(path, detector, WeightsInfo(detector.spec, SAMPLE_CLASSES, size=64, timesteps=2))
    return path
