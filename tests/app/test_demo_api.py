"""The served page from a script: the detect endpoint, its schema, bad input, two users at once, and nothing fetched from elsewhere."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from spyolo.drawing import save_image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def client(server: str) -> Client:
    return Client(server, verbose=False)


@pytest.fixture
def picture(tmp_path: Path) -> Any:
    noise = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    return handle_file(str(save_image(tmp_path / "noise.png", noise)))


def test_a_script_gets_boxes(client: Client, picture: Any, models: Any) -> None:
    boxed, strip, numbers, meter, message = client.predict(picture, 0.05, 0.5, 2, models.names()[0], api_name="/detect")
    assert Path(boxed).stat().st_size > 0 and len(strip) == 2 and "ANN twin" in meter and "found" in message
    x1, y1, x2, y2 = numbers[0]["box"]
    assert 0 <= x1 < x2 <= 120 and 0 <= y1 < y2 <= 80 and numbers[0]["class"] in models.load(models.names()[0]).classes


def test_the_schema_says_what_goes_in_and_comes_out(client: Client) -> None:
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/detect", "/video"}
    detect = endpoints["/detect"]
    assert [p["label"] for p in detect["parameters"]] == ["Your picture", "Confidence", "Overlap (IoU)", "Time steps (T)", "Model"]
    assert [r["component"] for r in detect["returns"]] == ["Image", "Gallery", "Json", "Html", "Markdown"]


def test_a_file_that_is_no_picture_is_told_and_the_page_goes_on(client: Client, picture: Any, models: Any, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a picture")
    bad = handle_file(str(tmp_path / "text.jpg"))
    boxed, *_, message = client.predict(bad, 0.3, 0.5, 2, models.names()[0], api_name="/detect")
    assert boxed is None and "text.jpg cannot be read as a picture" in message
    assert client.predict(picture, 0.3, 0.5, 2, models.names()[0], api_name="/detect")[0] is not None


def test_two_users_at_once_get_their_own_answers(server: str, models: Any, tmp_path: Path) -> None:
    def ask(seed: int) -> tuple[Any, Any]:
        noise = np.random.default_rng(seed).integers(0, 255, (80, 120, 3), dtype=np.uint8)
        path = save_image(tmp_path / f"{seed}.png", noise)
        args = (handle_file(str(path)), 0.05, 0.5, 2, models.names()[0])
        alone = models.load(models.names()[0]).predictor(confidence=0.05, nms_iou=0.5, timesteps=2).predict(noise)
        return Client(server, verbose=False).predict(*args, api_name="/detect")[2], alone

    with ThreadPoolExecutor(2) as users:
        for answer, alone in users.map(ask, (1, 2)):
            assert [d["score"] for d in answer] == pytest.approx(alone.scores.tolist(), abs=1e-3)


def test_files_outside_the_page_are_not_served(server: str, weights: Path) -> None:
    for path in ("/etc/passwd", str(weights), "../../etc/passwd", str(ROOT / "README.md")):
        with pytest.raises(urllib.error.HTTPError, match=r"403|404"):
            urllib.request.urlopen(f"{server}/gradio_api/file={path}", timeout=30)


@pytest.mark.parametrize("root", ["", "/gradio_api"])
@pytest.mark.parametrize("way", ["file=http:", "file/http:", "file/HTTPS:", "proxy=http:"])
def test_the_server_fetches_nothing_for_a_visitor(server: str, root: str, way: str) -> None:
    """Gradio refuses this very machine's addresses by itself: what is asserted is that it was not even asked."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server}{root}/{way}//127.0.0.1:9/x.png", timeout=30)
    assert (refused.value.code, refused.value.read()) == (403, b"nothing is fetched from elsewhere here")


def test_an_address_in_place_of_a_picture_is_refused(client: Client, models: Any) -> None:
    elsewhere = {"path": "http://127.0.0.1:9/x.png", "url": "http://127.0.0.1:9/x.png", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(AppError, match="Addresses are not fetched"):
        client.predict(elsewhere, 0.3, 0.5, 2, models.first, api_name="/detect")


def test_nothing_of_a_visitor_is_left_on_disk(
    server: str, page: Any, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = handle_file(str(save_image(tmp_path / "mine.png", np.full((80, 120, 3), 200, np.uint8))))
    monkeypatch.setattr("app.sessions.FRESH", 0.0)
    sessions = page.sessions
    visitor, before = Client(server, verbose=False), {session.folder for session in sessions.now()}
    visitor.predict(picture, 0.3, 0.5, 2, models.first, api_name="/detect")
    (folder,) = {session.folder for session in sessions.now()} - before
    assert list(folder.iterdir()) and list(sessions.uploaded.glob("*/mine.png"))
    visitor.close()
    until = time.monotonic() + 60
    while (folder.exists() or list(sessions.uploaded.glob("*/mine.png"))) and time.monotonic() < until:
        time.sleep(0.1)  # the server's thread takes the folder first, then the upload
    assert not folder.exists()
    assert not list(sessions.uploaded.glob("*/mine.png"))


def test_the_page_names_no_other_server(server: str) -> None:
    """What would be fetched at once; what scripts fetch later is watched in the browser test."""
    html = urllib.request.urlopen(server, timeout=10).read().decode()
    fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', html)
    assert [url for url in fetched if not url.startswith(server)] == []
