"""The command line of the demo."""

from __future__ import annotations

from pathlib import Path

import pytest

from spyolo.cli.demo import main
from spyolo.errors import InputError


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--tls-key", "k.pem"], "go together"), (["--user", "ann"], "name:password"), (["--port", "99999"], "65535"),
     (["--weights", "missing.safetensors"], "no such weights file")],
)  # fmt: skip
def test_bad_options_are_one_line(options: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        main(options)


def test_keys_that_are_no_keys_are_one_line(tmp_path: Path) -> None:
    for name in ("key.pem", "cert.pem"):
        (tmp_path / name).write_text("no key")
    with pytest.raises(InputError, match="no pair of PEM files"):
        main(["--tls-key", str(tmp_path / "key.pem"), "--tls-cert", str(tmp_path / "cert.pem")])
