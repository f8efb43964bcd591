"""The demo as its owner starts it, as a process of its own: host, TLS, user and password, Ctrl-C, and twenty visitors at once.

    pytest -m slow tests/app/test_demo_served.py
"""

from __future__ import annotations

import http.client
import signal
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from app_load import Server, load
from app_samples import NOISE
from gradio_client import Client, handle_file

from spyolo.drawing import save_image

pytestmark = pytest.mark.slow
ANY = ssl._create_unverified_context()  # the certificate is our own


@pytest.fixture(scope="module")
def locked(weights: Path, pair: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Served by HTTPS at 127.0.0.2, behind a password with a colon in it."""
    key, cert = pair
    options = ("--weights", str(weights), "--host", "127.0.0.2", "--user", "ann:se:cret", "--tls-key", key, "--tls-cert", cert)
    server = Server(tmp_path_factory.mktemp("locked"), *options)
    yield server
    server.stop()


def status(url: str, data: bytes | None = None) -> int:
    try:
        return int(urllib.request.urlopen(urllib.request.Request(url, data), timeout=60, context=ANY).status)
    except urllib.error.HTTPError as error:
        return error.code


def test_it_answers_at_the_host_asked_for_and_at_no_other(locked: Server) -> None:
    address = urllib.parse.urlparse(locked.address)
    assert (address.scheme, address.hostname) == ("https", "127.0.0.2")
    with pytest.raises(OSError, match="refused"):
        http.client.HTTPConnection("127.0.0.1", address.port, timeout=10).connect()


def test_plain_http_gets_nothing_from_a_tls_port(locked: Server) -> None:
    with pytest.raises((OSError, http.client.HTTPException)):
        urllib.request.urlopen(locked.address.replace("https", "http"), timeout=30)


@pytest.mark.parametrize(
    "path", ["/config", "/gradio_api/info", "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/queue/data?session_hash=x",
             "/gradio_api/file=/tmp/x", "/gradio_api/call/detect", "/gradio_api/run/detect"]
)  # fmt: skip
def test_nothing_is_shown_before_the_password(locked: Server, path: str) -> None:
    data = b"{}" if path.split("/")[-1] in ("upload", "join", "detect") else None
    assert status(locked.address + path, data) in (401, 403, 404, 405, 422)


@pytest.mark.parametrize(("user", "password"), [("ann", "wrong"), ("ann", "se"), ("bob", "se:cret"), ("", "")])
def test_a_wrong_password_is_refused(locked: Server, user: str, password: str) -> None:
    form = urllib.parse.urlencode({"username": user, "password": password}).encode()
    assert status(f"{locked.address}/login", form) in (400, 401, 422)


def test_with_the_password_a_script_gets_boxes(locked: Server, tmp_path: Path) -> None:
    client: Any = Client(locked.address, auth=("ann", "se:cret"), ssl_verify=False, verbose=False)
    path = save_image(tmp_path / "noise.png", NOISE)
    shown, *_, message = client.predict(handle_file(str(path)), 0.05, 0.5, 2, "tiny", api_name="/detect")
    assert Path(shown).stat().st_size > 0 and "found" in message
    client.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_kill_end_it_and_take_its_files_along(weights: Path, tmp_path: Path, number: int) -> None:
    server = Server(tmp_path / "server", "--weights", str(weights))
    assert server.address.startswith("http://127.0.0.1:") and list(server.folder.glob("spyolo-demo-*"))
    assert server.stop(number) in (0, 130)
    assert not list(server.folder.glob("spyolo-demo-*")) and "Traceback" not in server.log.read_text()


def test_a_port_that_is_taken_is_one_line(weights: Path, locked: Server, tmp_path: Path) -> None:
    port = str(urllib.parse.urlparse(locked.address).port)
    with pytest.raises(RuntimeError, match="cannot be served") as told:
        Server(tmp_path / "server", "--weights", str(weights), "--host", "127.0.0.2", "--port", port)
    assert "Traceback" not in str(told.value)


def test_twenty_visitors_at_once(weights: Path, tmp_path: Path) -> None:
    """A minute of what `python tools/bench/app_load.py` does for five."""
    report = load(weights, tmp_path, users=20, seconds=60)
    assert report.errors == [] and report.mixed == [] and report.left == []
    assert report.done["picture"] > 20 and report.worst_place > 0 and report.longest_queue <= 40
    assert report.growth() < 1.25  # in the first minute allocators still fill up; over five it is a few per cent
