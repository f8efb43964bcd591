"""A tiny model, the page built from it, and a server: nothing here needs a browser."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the demo's tests need the extra `app`")
os.environ["GRADIO_HEARTBEAT_INTERVAL"] = "1"  # seconds after which a script's goodbye is noticed
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools" / "bench")]  # `app` lies beside the package


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
    from app.server import launch

    yield launch(page)
    page.close()


@pytest.fixture(scope="module")
def tabs(models: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The three tabs, called as Python: `.picture`, `.live`, `.learn`, with their `.sessions` and `.folder`."""
    import gradio as gr

    from app.examples import make_examples
    from app.learn import LearnTab
    from app.live import LiveTab
    from app.picture import PictureTab
    from app.sessions import Sessions

    folder = tmp_path_factory.mktemp("tabs")
    sessions = Sessions(folder / "sessions", folder / "uploads")
    with gr.Blocks():
        chosen = gr.Dropdown(models.names())
        examples = make_examples(folder)
        picture, live = PictureTab(models, sessions, chosen, examples), LiveTab(models, sessions, chosen, examples)
        learn = LearnTab(models, sessions, chosen, examples, folder / "learned")
    return SimpleNamespace(picture=picture, live=live, learn=learn, folder=folder, sessions=sessions)


@pytest.fixture
def visitor() -> Any:
    """A new visitor's request."""
    return SimpleNamespace(session_hash=secrets.token_hex())


@pytest.fixture
def name(models: Any) -> str:
    """The name of the model on offer."""
    return models.first


@pytest.fixture
def noise(tmp_path: Path) -> str:
    """A picture file of noise."""
    from app_samples import NOISE

    from spyolo.drawing import save_image

    return str(save_image(tmp_path / "noise.png", NOISE))


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Key and self-signed certificate."""
    openssl = shutil.which("openssl") or pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    how = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost")
    subprocess.run([openssl, *how, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return key, cert
