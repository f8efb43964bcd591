"""What several tests share. Pictures and data sets are drawn on the fly."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from PIL import Image

from spyolo.data.annotation import Annotation, Thing, write_annotation


class MakeDevkit(Protocol):
    def __call__(self, things: dict[str, list[Thing]], year: str = ..., split: str = ..., size: tuple[int, int] = ...) -> Path: ...


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
