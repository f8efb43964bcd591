"""A tiny model, the page built from it, and a server: nothing here needs a browser."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the demo's tests need the extra `app`")
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # so that `app`, which lies beside the package, is found


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained detector of the drawn shapes: what it finds means nothing, but it finds something."""
    import torch

    from spyolo.checkpoint import WeightsInfo, save_weights
    from spyolo.data import SAMPLE_CLASSES
    from spyolo.detection import build_detector

    torch.manual_seed(0)
    detector = build_detector("spyv4_lite", len(SAMPLE_CLASSES), width=0.1)
    for head in detector.heads:
        torch.nn.init.zeros_(head.conv.bias)  # no prior: scores around 1/4
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, detector, WeightsInfo(detector.spec, SAMPLE_CLASSES, size=96, timesteps=2))
    return path


@pytest.fixture(scope="session")
def models(weights: Path) -> Any:
    from app.models import Models

    return Models([weights.parent])


@pytest.fixture(scope="session")
def page(models: Any, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from app.page import build

    return build(models, tmp_path_factory.mktemp("page"), weights.parent)


@pytest.fixture(scope="session")
def server(page: Any) -> Iterator[str]:
    """The page, served; yields its address."""
    from app.page import CSS, theme

    page.launch(prevent_thread_lock=True, quiet=True, share=False, theme=theme(), css=CSS, ssr_mode=False, footer_links=["api"])
    yield page.local_url
    page.close()
